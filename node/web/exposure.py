"""Closed by default: the HTTP door does not open to the network unless it is safe there."""

from __future__ import annotations

from node.sections import HttpSettings, is_loopback
from node.web.users import UserError, UserFile


class ExposureError(Exception):
    """The settings would open the node to the network; the message names the ways out."""


def check_exposure(settings: HttpSettings, users: UserFile) -> None:
    """Refuse what would be open: passwords in the clear, or nobody asked who he is.

    Raises
    ------
    ExposureError
        With the ways out.
    """
    if is_loopback(settings.host):
        return
    place = f"[http] host = {settings.host!r} is open to the network"
    if settings.tls is None and not settings.proxies:
        raise ExposureError(
            f"{place} and without TLS passwords would go there in the clear. Ways out: "
            "[http.tls] with certificate and private_key; or [http] proxies with the address of a "
            'proxy that speaks HTTPS for the node; or host = "127.0.0.1"; or enabled = false'
        )
    if settings.anyone_may_look or (settings.tls and settings.tls.client_authorities):
        return
    try:
        known = bool(users.users())
    except UserError as error:
        raise ExposureError(f"{place}, and {error}") from error
    if not known:
        raise ExposureError(
            f"{place} and there are no users ({users.path}). Ways out: "
            "`echonode user add NAME --role read`; or [http.tls] client_authorities, to ask for "
            "certificates; or [http] anyone_may_look = true, if all who reach it may look; or "
            'host = "127.0.0.1"; or enabled = false'
        )
