"""``echonode scheduler``: what the nodes and workers of a cluster meet at."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from node.cli.output import Problem, print_text, say, settings_of
from node.cli.worker import in_cluster


def scheduler(
    context: typer.Context,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to listen on.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8786,
    as_json: Annotated[
        bool, typer.Option("--json", help="Log JSON, and print one line of JSON once it listens.")
    ] = False,
) -> None:
    """Be a cluster's scheduler until SIGTERM or Ctrl-C.

    It is Dask's, without its pages. Off this machine it needs [analysis.tls]. What nodes have
    handed over is in its memory alone; where it ends, their clips go back to their queues.
    """
    from node.compute.scheduler import run
    from node.compute.settings import ComputeError
    from node.memory import leave_no_holes
    from node.watch import set_up_logging

    settings = settings_of(context)
    set_up_logging(settings.log.model_copy(update={"format": "json"}) if as_json else settings.log)
    shown = f"[{host}]" if ":" in host else host
    analysis = in_cluster(settings.analysis, f"{shown}:{port or 8786}")

    def ready(address: str) -> None:
        if as_json:
            print_text(json.dumps({"scheduler": address.partition("://")[2]}))
        else:
            say(f"listening at {address}")

    leave_no_holes()  # clips come and go here by the megabyte
    try:
        run(analysis, host, port, ready=ready)
    except (ComputeError, OSError) as error:
        raise Problem(f"the scheduler at {shown}:{port}: {error}") from error
