"""The doors of the node: each hands what comes in to :mod:`node.intake` and writes nothing."""
