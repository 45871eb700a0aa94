"""The node itself: doors in, the life of a study, results, delivery out, the operator's tools."""
