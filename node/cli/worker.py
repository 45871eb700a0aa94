"""``echonode worker``: read clips for nodes elsewhere."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Annotated

import typer

from node.cli.output import ExitCode, Problem, print_text, settings_of
from node.sections import AnalysisSettings, is_loopback

_GPUS = Path("/proc/driver/nvidia/gpus")


def worker(
    context: typer.Context,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="The scheduler; by default of [analysis] executor."),
    ] = None,
    places: Annotated[
        int | None,
        typer.Option(min=1, max=256, help="Clips read at once; by default [analysis] workers."),
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="Read with the GPUs of this machine.")] = False,
    host: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Our address in the cluster; by default the one on the way to the scheduler.",
        ),
    ] = None,
    name: Annotated[
        str | None, typer.Option(help="How the scheduler names us; by default this machine's name.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Log JSON, and print a line of JSON on each joining.")
    ] = False,
) -> None:
    """Read clips for the nodes of a cluster until SIGTERM or Ctrl-C.

    The packs of the settings are loaded first. A node gives clips only to workers with its own
    version, packs and libraries, and shows why another gets none. See docs/compute.md.
    """
    from models.packs import PackError, load_pack, shipped_packs
    from node.compute.settings import ComputeError, security_of
    from node.compute.worker import Machine, Offer, run
    from node.evidence import running_packs
    from node.memory import leave_no_holes
    from node.watch import set_up_logging

    settings = settings_of(context)
    logs = settings.log.model_copy(update={"format": "json"}) if as_json else settings.log
    set_up_logging(logs)
    analysis = in_cluster(settings.analysis, scheduler)
    assert analysis.cluster is not None  # noqa: S101 - in_cluster has seen to it
    if analysis.tls is None and host is not None and not is_loopback(host):
        raise Problem(f"--host {host}: off this machine only with [analysis.tls]", ExitCode.USAGE)
    gpus = len(list(_GPUS.glob("*"))) if gpu else 0
    if gpu and not gpus:
        raise Problem(f"there is no GPU here (none in {_GPUS}); start without --gpu")
    try:
        security_of(analysis.tls)
        folders = (*shipped_packs(), *analysis.packs)
        packs = running_packs(analysis, [load_pack(folder) for folder in folders])
    except (ComputeError, PackError) as error:
        raise Problem(str(error)) from error
    offer = Offer(
        scheduler=analysis.cluster,
        name=name or socket.gethostname(),
        places=places or analysis.workers,
        packs=tuple(str(pack.folder) for pack in packs),
        device="gpu" if gpu else "cpu",
        gpus=gpus,
        host=host,
        prepared=settings.prepared_networks,
    )

    def joined(address: str) -> None:
        if as_json:
            print_text(json.dumps({"worker": address, "scheduler": offer.scheduler}))

    leave_no_holes()  # clips come and go here by the megabyte
    run(Machine(offer, analysis, logs), analysis, joined=joined)


def in_cluster(analysis: AnalysisSettings, scheduler: str | None) -> AnalysisSettings:
    """The settings with the scheduler that was named, or that they name."""
    if scheduler is None:
        if analysis.cluster is None:
            raise Problem(
                "no scheduler is named: write --scheduler HOST:PORT, or [analysis] executor = "
                '"dask://HOST:PORT"',
                ExitCode.USAGE,
            )
        return analysis
    from pydantic import ValidationError

    named = {key: getattr(analysis, key) for key in analysis.model_fields_set}
    try:
        return AnalysisSettings(**{**named, "executor": f"dask://{scheduler}"})
    except ValidationError as error:
        words = str(error.errors()[0]["msg"]).removeprefix("Value error, ")
        raise Problem(f"--scheduler {scheduler}: {words}", ExitCode.USAGE) from error
