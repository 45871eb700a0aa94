"""How the shipped packs were trained: data sets, augmentation, and one command for each pack.

Nothing here is imported by the running node.
"""
