"""Certificates for the tests: an authority, a server, a client, and an authority nobody knows."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

from node.sections import ClientTls, ServerTls
from tests.peers import require


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate and its key, both PEM."""

    certificate: Path
    private_key: Path


@dataclass(frozen=True, kw_only=True)
class Certificates:
    """What the tests of TLS need. Server and client are signed by ``authority``."""

    authority: Path
    server: Certificate  #: for localhost, 127.0.0.1 and ::1
    client: Certificate  #: of ECHOCART
    other_authority: Path
    stranger: Certificate  #: a client that only ``other_authority`` vouches for
    elsewhere: Certificate  #: a server of ``authority`` under another name

    def server_tls(self, *, ask_for_client: bool = False) -> ServerTls:
        """Settings of a door."""
        return ServerTls(
            certificate=self.server.certificate,
            private_key=self.server.private_key,
            client_authorities=self.authority if ask_for_client else None,
        )

    def client_tls(self, *, show: Certificate | None = None) -> ClientTls:
        """Settings of a destination; ``show`` is the certificate that it is shown."""
        return ClientTls(
            authorities=self.authority,
            certificate=None if show is None else show.certificate,
            private_key=None if show is None else show.private_key,
        )


_LOCAL = "subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"
_SERVER = "extendedKeyUsage=serverAuth"
_CLIENT = "extendedKeyUsage=clientAuth"


def make_certificates(folder: Path) -> Certificates:
    """Make them all by the openssl program: EC keys, a moment for each."""
    authority = _make(folder, "authority")
    other = _make(folder, "other-authority")
    return Certificates(
        authority=authority.certificate,
        server=_make(folder, "server", authority, _SERVER, _LOCAL),
        client=_make(folder, "ECHOCART", authority, _CLIENT),
        other_authority=other.certificate,
        stranger=_make(folder, "stranger", other, _CLIENT),
        elsewhere=_make(
            folder, "elsewhere", authority, _SERVER, "subjectAltName=DNS:elsewhere.example"
        ),
    )


def _make(
    folder: Path,
    name: str,
    signed_by: Certificate | None = None,
    *extensions: str,
) -> Certificate:
    made = Certificate(certificate=folder / f"{name}.pem", private_key=folder / f"{name}.key")
    command = [require("openssl"), "req", "-x509", "-newkey", "ec"]
    command += ["-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}"]
    command += ["-keyout", str(made.private_key), "-out", str(made.certificate)]
    command += ["-days", "30"]
    if signed_by is None:
        command += ["-addext", "keyUsage=critical,keyCertSign,cRLSign"]
    else:
        command += ["-CA", str(signed_by.certificate), "-CAkey", str(signed_by.private_key)]
        command += ["-addext", "basicConstraints=critical,CA:FALSE"]
        command += ["-addext", "keyUsage=critical,digitalSignature"]
    for extension in extensions:
        command += ["-addext", extension]
    subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    made.private_key.chmod(0o600)
    return made
