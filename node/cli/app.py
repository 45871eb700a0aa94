"""All commands, and what happens when one of them cannot do its work.

Exit codes are the same for every command; see :class:`node.cli.output.ExitCode`. Modules that
need TensorFlow, the network or the database are imported inside the commands that use them, so
that ``echonode status`` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from node.cli import (
    alerts,
    analyze,
    backup,
    config,
    dataset,
    db,
    demo,
    destinations,
    doctor,
    evaluate,
    explain,
    export,
    fetch,
    importing,
    packs,
    packs_outside,
    quarantine,
    retention,
    rules,
    serve,
    simulate,
    status,
    studies,
    top,
    train,
    user,
)
from node.cli.examples import add_examples
from node.cli.output import ExitCode, Problem, print_text, say
from node.settings import SettingsError

app = typer.Typer(
    name="echonode",
    help="A DICOM node that reads echocardiograms and reports to the PACS. "
    "Research use only, not for diagnosis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print_text(f"echonode {version('echonode')}")
        raise typer.Exit


@app.callback()
def _options(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            metavar="FILE",
            envvar="ECHONODE_CONFIG",
            help="The settings file; without it echonode.toml in the working folder, if any.",
        ),
    ] = None,
    _version: Annotated[
        bool,
        typer.Option("--version", is_eager=True, callback=_print_version, help="Print it."),
    ] = False,
) -> None:
    context.obj = config_file


app.command("serve")(serve.serve)
app.command("demo")(demo.demo)
app.command("simulate")(simulate.simulate)
app.command("analyze")(analyze.analyze)
app.command("import")(importing.import_objects)
app.command("fetch")(fetch.fetch)
app.command("status")(status.status)
app.command("top")(top.top)
app.command("doctor")(doctor.doctor)
app.command("retention")(retention.retention)
app.command("studies")(studies.studies)
app.command("study")(studies.study)
app.command("retry")(studies.retry)
app.command("hold")(studies.hold)
app.command("release")(studies.release)
app.command("resend")(studies.resend)
app.add_typer(destinations.commands, name="destinations")
app.add_typer(alerts.commands, name="alerts")
app.add_typer(quarantine.commands, name="quarantine")
packs_outside.register(packs.commands)
app.add_typer(packs.commands, name="packs")
app.command("train")(train.train)
app.command("evaluate")(evaluate.evaluate)
app.command("explain")(explain.explain)
app.add_typer(dataset.commands, name="dataset")
app.add_typer(user.commands, name="user")
app.add_typer(rules.commands, name="rules")
app.add_typer(config.commands, name="config")
app.add_typer(db.commands, name="db")
app.command("export")(export.export)
app.command("backup")(backup.backup)
app.command("restore")(backup.restore)
add_examples(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code; what goes wrong is said in a line on stderr."""
    try:
        code = app(
            args=None if arguments is None else list(arguments),
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
        # The edge of the process: a full disk behind stdout, a folder that has gone.
        say(f"echonode: {error.filename or 'output'}: {error.strerror}")
        return int(ExitCode.FAILED)
    return code if isinstance(code, int) else int(ExitCode.OK)
