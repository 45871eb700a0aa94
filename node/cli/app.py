"""All commands, and what happens when one of them cannot do its work.

Exit codes are the same for every command; see :class:`node.cli.output.ExitCode`. A command's module
is imported when it is called, and what needs TensorFlow, the network or the database inside the
command that uses it, so that ``echonode status`` answers at once.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any

import typer

from node.cli.examples import add_examples
from node.cli.output import ExitCode, Problem, complain, print_text, say
from node.settings_file import FILE_VARIABLE, SettingsError

#: Where each command is: module and function, or group of commands, in the order of ``--help``.
COMMANDS = MappingProxyType(
    {
        "serve": "serve.serve",
        "scheduler": "scheduler.scheduler",
        "worker": "worker.worker",
        "demo": "demo.demo",
        "simulate": "simulate.simulate",
        "analyze": "analyze.analyze",
        "import": "importing.import_objects",
        "fetch": "fetch.fetch",
        "backfill": "backfill.commands",
        "status": "status.status",
        "top": "top.top",
        "doctor": "doctor.doctor",
        "retention": "retention.retention",
        "studies": "studies.studies",
        "study": "studies.study",
        "retry": "studies.retry",
        "hold": "studies.hold",
        "release": "studies.release",
        "resend": "studies.resend",
        "destinations": "destinations.commands",
        "alerts": "alerts.commands",
        "quarantine": "quarantine.commands",
        "packs": "packs_outside.commands",
        "train": "train.train",
        "evaluate": "evaluate.evaluate",
        "explain": "explain.explain",
        "ecg-summaries": "ecg_summaries.ecg_summaries",
        "dataset": "dataset.commands",
        "user": "user.commands",
        "rules": "rules.commands",
        "config": "config.commands",
        "db": "db.commands",
        "export": "export.export",
        "backup": "backup.backup",
        "restore": "backup.restore",
    }
)


@cache
def all_commands() -> typer.Typer:
    """Every command, for whoever describes them."""
    return _commands(COMMANDS)


def _commands(names: Iterable[str]) -> typer.Typer:
    app = typer.Typer(
        name="echonode",
        help="A DICOM node that reads echocardiograms and reports to the PACS. "
        "Research use only, not for diagnosis.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
    )
    app.callback()(_options)
    for name in names:
        module, _, attribute = COMMANDS[name].partition(".")
        found: Any = getattr(import_module(f"node.cli.{module}"), attribute)
        if isinstance(found, typer.Typer):
            app.add_typer(found, name=name)
        else:
            app.command(name)(found)
    add_examples(app)
    return app


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print_text(f"echonode {version('echonode')}")
        raise typer.Exit


def _options(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar=FILE_VARIABLE,
            help="The settings file; without it echonode.toml in the working folder, if any.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it."),
    ] = False,
) -> None:
    context.obj = config_file


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what goes wrong is said in a line on stderr."""
    try:
        given = sys.argv[1:] if arguments is None else list(arguments)
        code = _needed(given)(
            args=given,
            prog_name="echonode",
            standalone_mode=False,
        )
    except Problem as problem:
        say(f"echonode: {problem}")
        return int(problem.code)
    except SettingsError as error:
        for line in error.problems:
            say(f"echonode: {line}")
        return int(ExitCode.USAGE)
    except typer.TyperException as error:
        say(f"echonode: {error.format_message()} (echonode --help tells more)")
        return int(ExitCode.USAGE)
    except (typer.Abort, KeyboardInterrupt):
        return int(ExitCode.INTERRUPTED)
    except OSError as error:
        return int(complain(error))
    return code if isinstance(code, int) else int(ExitCode.OK)


def _needed(arguments: Sequence[str]) -> typer.Typer:
    """The command that is called, by itself; all of them where that is not plain."""
    left = iter(arguments)
    for word in left:
        if word == "--config":
            next(left, None)
        elif not word.startswith("-"):
            return _commands([word]) if word in COMMANDS else all_commands()
    return all_commands()
