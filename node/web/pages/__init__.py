"""The page: what the node does, its studies, packs and quarantine, for people with a browser."""
