"""``python -m node.conformance [--check] [FILE]``: renew the tables of the statement."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from node.conformance.document import DocumentError, renewed
from node.conformance.tables import TABLES

_STATEMENT = Path("docs/conformance.md")


def main(arguments: list[str] | None = None) -> int:
    """Write the statement anew; 0 where it is up to date, 1 where ``--check`` finds it is not."""
    parser = argparse.ArgumentParser(prog="python -m node.conformance", description=__doc__)
    parser.add_argument("file", nargs="?", type=Path, default=_STATEMENT)
    parser.add_argument("--check", action="store_true", help="write nothing, say what differs")
    options = parser.parse_args(arguments)
    try:
        before = options.file.read_text(encoding="utf-8")
        after, changed = renewed(before, TABLES)
    except (DocumentError, OSError) as error:
        parser.exit(2, f"{error}\n")
    if options.check:
        for name in changed:
            sys.stderr.write(f"{options.file}: the table {name} is stale\n")
        return 1 if changed else 0
    if changed:
        options.file.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
