"""How the node is watched: logs now; metrics and audit have their place here too."""

from node.watch.logs import set_up_logging, study_key

__all__ = ["set_up_logging", "study_key"]
