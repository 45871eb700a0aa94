"""How far a pack's explanations can be trusted, at the terminal: its ``explanations.json``."""

from __future__ import annotations

from pathlib import Path

from node.cli.figures import print_markdown
from node.cli.output import print_table, print_text


def print_map_checks(folder: Path, *, whole: bool = False) -> None:
    """The checks of a pack's maps: in short, or their page."""
    from models.explain.summary import PAGE, read_summary

    short = read_summary(folder)
    print_text("")
    if short is None:
        print_text("Its explanations were not checked: `echonode explain --check` does it.")
        return
    if whole:
        print_markdown((folder / PAGE).read_text())
        return
    print_table(f"Can its explanations be trusted? By {short.method}", short.columns, short.rows)
    print_text(short.legend)
    for remark in short.remarks:
        print_text(f"  not passed: {remark}")
    print_text(f"The whole page is {PAGE}, or --report; docs/explanations.md says how to read it.")
