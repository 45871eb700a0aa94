"""The command ``echonode``: one module per noun, joined in :mod:`node.cli.app`."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; see :func:`node.cli.app.main`."""
    from node.cli.glance import glance

    given = sys.argv[1:] if arguments is None else list(arguments)
    code = glance(given)
    if code is not None:
        return int(code)
    from node.cli.app import main as whole

    return whole(given)


__all__ = ["main"]
