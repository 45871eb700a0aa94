"""``echonode serve``: the node itself."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.output import ExitCode, Problem, print_text, settings_of

if TYPE_CHECKING:
    from node.app import Addresses


def serve(
    context: typer.Context,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Log JSON, and print one line of JSON once the node listens."),
    ] = False,
) -> None:
    """Run the node until it gets SIGTERM or Ctrl-C."""
    import structlog

    from node.app import NodeError, run
    from node.settings import cautions
    from node.watch import set_up_logging
    from storage.database import DatabaseError
    from storage.files import FileStoreError

    settings = settings_of(context)
    set_up_logging(settings.log.model_copy(update={"format": "json"}) if as_json else settings.log)

    for line in cautions(settings):
        structlog.get_logger(__name__).warning("settings-hardly-meant", reason=line)

    def ready(addresses: Addresses) -> None:
        if as_json:
            print_text(json.dumps({"addresses": asdict(addresses)}))

    try:
        run(settings, ready=ready)
    except (NodeError, FileStoreError) as error:
        raise Problem(str(error)) from error
    except DatabaseError as error:
        raise Problem(str(error), ExitCode.NOT_REACHABLE) from error
