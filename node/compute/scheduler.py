"""A Dask scheduler as a cluster of echonode needs it: no page open to the network, TLS off it."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Any

from node.compute.settings import security_of, set_up_dask
from node.sections import AnalysisSettings


async def serve(
    analysis: AnalysisSettings,
    host: str,
    port: int,
    stopping: asyncio.Event,
    *,
    ready: Callable[[str], None] = lambda _address: None,
) -> None:
    """Be the scheduler until ``stopping`` is set; ``ready`` gets its address."""
    set_up_dask()
    from distributed import Scheduler

    scheduler: Any = Scheduler(
        host=host,
        port=port,
        protocol="tcp" if analysis.tls is None else "tls",
        security=security_of(analysis.tls),
        dashboard=False,
        dashboard_address="127.0.0.1:0",
    )
    async with scheduler:
        ready(scheduler.address)
        await stopping.wait()


def run(analysis: AnalysisSettings, host: str, port: int, *, ready: Callable[[str], None]) -> None:
    """Be the scheduler until SIGTERM or SIGINT."""

    async def until_told() -> None:
        stopping = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stopping.set)
        await serve(analysis, host, port, stopping, ready=ready)

    asyncio.run(until_told())
