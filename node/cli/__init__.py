"""The command ``echonode``: one module per noun, joined in :mod:`node.cli.app`."""

from node.cli.app import main

__all__ = ["main"]
