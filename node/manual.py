"""Writes the manual page from the words of ``--help``: ``python -m node.manual [FILE]``.

``deploy/man/echonode.1`` is what it writes; a test compares.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

PAGE = Path(__file__).parents[1] / "deploy" / "man" / "echonode.1"

_FILES = (
    ("echonode.toml", "The settings, in the working folder or where --config says."),
    ("ECHONODE_CONFIG", "Names the settings file, as --config does."),
    ("ECHONODE_...", "Settings by variable: the path of a key in capitals, ECHONODE_DIMSE__PORT."),
)


def manual() -> str:
    """The whole page, in the language of man(7)."""
    from typer.main import get_command

    from node.cli.app import all_commands

    return "\n".join(_page(get_command(all_commands()))) + "\n"


def _page(root: Any) -> Iterator[str]:
    from node.cli.output import ExitCode

    yield f'.TH ECHONODE 1 "" "echonode {version("echonode")}" "User Commands"'
    yield ".SH NAME"
    yield r"echonode \- a DICOM node that reads echocardiograms and reports to the PACS"
    yield ".SH SYNOPSIS"
    yield r".B echonode"
    yield r"[\fB\-\-config\fR \fIFILE\fR] \fICOMMAND\fR [\fIOPTIONS\fR]"
    yield ".SH DESCRIPTION"
    yield from _paragraphs(str(root.help or ""))
    yield ".SH OPTIONS"
    yield from _parameters(root)
    yield ".SH COMMANDS"
    for names, command in _commands(root, ()):
        yield from _command(names, command)
    yield ".SH EXIT STATUS"
    for code, words in _exit_codes(ExitCode):
        yield from (".TP", f".B {code}", _escaped(words))
    yield ".SH FILES AND ENVIRONMENT"
    for name, words in _FILES:
        yield from (".TP", f".B {_escaped(name)}", _escaped(words))
    yield ".SH NOTES"
    yield "Research use only, not for diagnosis."


def _commands(group: Any, names: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        below = getattr(command, "commands", None)
        if below is None or command.invoke_without_command:
            yield (*names, name), command
        if below is not None:
            yield from _commands(command, (*names, name))


def _command(names: tuple[str, ...], command: Any) -> Iterator[str]:
    yield f'.SS "echonode {_escaped(" ".join(names))}{_arguments(command)}"'
    yield from _paragraphs(inspect.cleandoc(command.help or ""))
    yield from _parameters(command)
    examples = [line for line in (command.epilog or "").split("\n\n")[1:] if line]
    if examples:
        yield from (".PP", "Examples:", ".PP", ".nf", ".RS 4")
        yield from (_escaped(line) for line in examples)
        yield from (".RE", ".fi")


def _arguments(command: Any) -> str:
    shown = [
        f" {_escaped(str(one.metavar or one.name).upper())}"
        for one in command.params
        if one.param_type_name == "argument"
    ]
    return "".join(shown)


def _parameters(command: Any) -> Iterator[str]:
    for one in command.params:
        if one.param_type_name != "option" or one.hidden:
            continue
        names = ", ".join(rf"\fB{_escaped(name)}\fR" for name in (*one.opts, *one.secondary_opts))
        value = "" if one.is_flag else rf" \fI{_escaped(_value(one))}\fR"
        yield from (".TP", f"{names}{value}", _escaped(_one_line(one.help or "")) or r"\&")


def _value(option: Any) -> str:
    described = option.type_descriptor
    if option.metavar:
        return str(option.metavar)
    if described.is_choice:
        return "|".join(str(getattr(one, "value", one)) for one in described.choices or ())
    return str(option.name).upper()


def _paragraphs(text: str) -> Iterator[str]:
    for part in re.split(r"\n\s*\n", text.strip()):
        if part.strip():
            yield from (".PP", _escaped(_one_line(part)))


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _exit_codes(codes: Any) -> Iterator[tuple[int, str]]:
    """Each code with the words that stand beside it."""
    source = inspect.getsource(codes)
    for name, number, words in re.findall(r"(\w+) = (\d+)  #: (.+)", source):
        assert codes[name] == int(number)  # noqa: S101 - of one source
        yield int(number), words


def _escaped(text: str) -> str:
    """Text of which roff takes nothing for a request."""
    text = text.replace("\\", r"\e").replace("-", r"\-").replace("`", "").replace("'", r"\(aq")
    text = "".join(char if char.isascii() else rf"\[u{ord(char):04X}]" for char in text)
    return rf"\&{text}" if text.startswith(".") else text


def main(arguments: list[str]) -> int:
    """Write the page to the file that is named, or to its place in the source."""
    target = Path(arguments[0]) if arguments else PAGE
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(manual(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
