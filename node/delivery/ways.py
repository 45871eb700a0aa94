"""The ways to the destinations of the settings: to send there, and to ask there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from node.delivery.asking import Archive
from node.delivery.commitment import Terms
from node.delivery.dimse import DimseSender
from node.delivery.dimse_archive import DimseArchive
from node.delivery.lines import Lines
from node.delivery.sending import Sender
from node.delivery.stow import StowSender
from node.delivery.web_archive import WebArchive
from node.secrets import SecretError
from node.sections import Destination, DicomwebDestination
from node.tls import TlsError
from node.watch.transfers import Peer


class WayError(Exception):
    """A destination's certificate or secret cannot be used; the message names it and says why."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Ways:
    """What the outbox needs of the destinations, by their names."""

    senders: dict[str, Sender]
    terms: dict[str, Terms]
    peers: dict[str, Peer]
    lines: Lines = field(default_factory=Lines)  #: what is open to them now


def ways_to(destinations: Sequence[Destination], ae_title: str) -> Ways:
    """The ways to all destinations; ``ae_title`` is our own.

    Raises
    ------
    WayError
        If a certificate or secret that the settings name cannot be used.
    """
    ways = Ways(senders={}, terms={}, peers={})
    for destination in destinations:
        try:
            ways.senders[destination.name] = _sender(destination, ae_title, ways.lines)
            if destination.commitment != "off":
                ways.terms[destination.name] = _terms(destination, ae_title, ways.lines)
        except (TlsError, SecretError) as error:
            raise WayError(f"destination {destination.name!r}: {error}") from error
        ways.peers[destination.name] = _peer(destination)
    return ways


def _sender(destination: Destination, ae_title: str, lines: Lines) -> Sender:
    if isinstance(destination, DicomwebDestination):
        return StowSender(destination, lines=lines)
    return DimseSender(destination, ae_title, lines=lines)


def _terms(destination: Destination, ae_title: str, lines: Lines) -> Terms:
    archive: Archive
    if isinstance(destination, DicomwebDestination):
        archive, title = WebArchive(destination, lines=lines), ""
    else:
        archive, title = DimseArchive(destination, ae_title, lines=lines), destination.ae_title
    return Terms(
        archive=archive,
        required=destination.commitment == "required",
        timeout_s=destination.commitment_timeout_s,
        ae_title=title,
    )


def _peer(destination: Destination) -> Peer:
    if isinstance(destination, DicomwebDestination):
        where = urlsplit(destination.url)
        port = where.port or (443 if where.scheme == "https" else 80)
        return Peer(host=where.hostname or "", port=port, user=destination.user or "")
    return Peer(host=destination.host, port=destination.port, ae_title=destination.ae_title)
