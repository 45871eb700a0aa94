"""The demonstration: a study, a node as a process of its own, and a stand-in archive."""
