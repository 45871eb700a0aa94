"""TLS for every door and every destination, after BCP 195 (RFC 9325; PS3.15 B.12).

TLS 1.2 at least, and 1.3 where the other side can; forward secrecy and authenticated encryption
only. A certificate that cannot be used is an error at the start, not at the first patient.
"""

from __future__ import annotations

import ssl
from pathlib import Path

from node.sections import ClientTls, ServerTls

CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"  #: of TLS 1.2; those of 1.3 are all of this kind


class TlsError(Exception):
    """A certificate, key or list of authorities cannot be used; the message says which and why."""


def server_context(tls: ServerTls) -> ssl.SSLContext:
    """What a door speaks TLS with; callers must show a certificate where authorities are named.

    Raises
    ------
    TlsError
        If a file cannot be read or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _bcp_195(context)
    _show(context, tls.certificate, tls.private_key)
    if tls.client_authorities is not None:
        _believe(context, tls.client_authorities)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(tls: ClientTls) -> ssl.SSLContext:
    """What we call a destination with; its certificate must be good and name its host.

    Raises
    ------
    TlsError
        If a file cannot be read or is not what it should be.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _bcp_195(context)
    if tls.authorities is None:
        context.load_default_certs()
    else:
        _believe(context, tls.authorities)
    if tls.certificate is not None and tls.private_key is not None:
        _show(context, tls.certificate, tls.private_key)
    return context


def _bcp_195(context: ssl.SSLContext) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(CIPHERS)
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION


def _show(context: ssl.SSLContext, certificate: Path, private_key: Path) -> None:
    try:
        context.load_cert_chain(certificate, private_key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(
            f"certificate {certificate} with key {private_key} cannot be used: {_reason(error)}"
        ) from error


def _believe(context: ssl.SSLContext, authorities: Path) -> None:
    try:
        context.load_verify_locations(authorities)
    except (OSError, ssl.SSLError) as error:
        raise TlsError(f"authorities {authorities} cannot be used: {_reason(error)}") from error


def _no_password() -> str:
    return ""  # without this, a key with a password would be asked for at a terminal


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return f"{error.reason or error}; see that it is PEM, unlocked, and that the two fit"
    return f"{error.strerror}; see that the file is there and that this user may read it"
