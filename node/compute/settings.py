"""How Dask is set up here, by the settings of ``[analysis]``."""

from __future__ import annotations

import logging
import ssl
from typing import TYPE_CHECKING, Any

from node.secrets import SecretError, check_private
from node.sections import AnalysisSettings, ClientTls, ClusterTls
from node.tls import CIPHERS, TlsError, client_context

if TYPE_CHECKING:
    from distributed import Security

CONNECT_S = 10.0  #: longest wait for a scheduler or a worker that is called

_CONFIG: dict[str, Any] = {
    # Without this, importing distributed would give its loggers handlers of their own.
    "logging": {"version": 1, "incremental": True},
    "distributed.comm.timeouts.connect": f"{CONNECT_S:g}s",
    "distributed.admin.large-graph-warning-threshold": "1TB",  # a clip may travel with its job
    "distributed.worker.profile.enabled": False,  # our jobs are elsewhere: there is nothing to see
    # Of what Dask shows by HTTP, only whether it lives, and that on this machine alone.
    "distributed.scheduler.http.routes": ["distributed.http.health"],
    "distributed.worker.http.routes": ["distributed.http.health"],
    # A clip is run elsewhere where its worker dies; with a third one it has failed once.
    "distributed.scheduler.allowed-failures": 2,
}


class ComputeError(Exception):
    """A cluster cannot be used as the settings say; the message names the thing and the place."""


def set_up_dask() -> None:
    """Settings of Dask for this process; to be called before ``distributed`` is imported.

    What ``dask.yaml`` files and ``DASK_…`` variables say of anything else counts.
    """
    import dask

    dask.config.set(_CONFIG)
    for name in ("distributed", "tornado", "bokeh"):
        logging.getLogger(name).setLevel(logging.WARNING)


def scheduler_url(analysis: AnalysisSettings, address: str) -> str:
    """A scheduler's ``host:port`` as Dask writes it."""
    return f"{'tcp' if analysis.tls is None else 'tls'}://{address}"


def security_of(tls: ClusterTls | None) -> Security | None:
    """How Dask speaks: with certificates on both sides, or in the clear on this machine.

    Raises
    ------
    ComputeError
        If a file cannot be read or is not what it should be.
    """
    if tls is None:
        return None
    try:
        check_private(tls.private_key, "[analysis.tls] private_key")
        client_context(  # says what is wrong with the files better than Dask would
            ClientTls(
                authorities=tls.authorities,
                certificate=tls.certificate,
                private_key=tls.private_key,
            )
        )
    except (SecretError, TlsError) as error:
        raise ComputeError(f"[analysis.tls]: {error}") from error
    from distributed import Security

    ours = {
        f"tls_{role}_{part}": str(path)
        for role in ("client", "worker", "scheduler")
        for part, path in (("cert", tls.certificate), ("key", tls.private_key))
    }
    return Security(
        require_encryption=True,
        tls_ca_file=str(tls.authorities),
        tls_ciphers=CIPHERS,
        tls_min_version=ssl.TLSVersion.TLSv1_2,
        **ours,
    )
