"""Whether a node can do its work, before the first patient: for ``echonode doctor``."""

from node.checkup.findings import Finding, Light
from node.checkup.here import look_here
from node.checkup.peers import look_at_peers

__all__ = ["Finding", "Light", "look_at_peers", "look_here"]
