"""The HTTP door in this process: a real server on loopback, over a real database."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from node.sections import HttpSettings
from node.settings import Settings
from node.watch.audit import Audit
from node.watch.audit_file import audit_files
from node.watch.metrics import Metrics
from node.web import metrics, studies
from node.web.callers import Callers
from node.web.pages import routes as pages
from node.web.server import HttpServer
from node.web.site import Parts, make_site
from node.web.users import Role, UserFile
from storage.database import Database

PASSWORD = "correct horse battery staple"  # noqa: S105 - of nobody


@dataclass
class Site:
    """A server that runs, and what it has told the audit."""

    url: str
    users: UserFile
    folder: Path
    refusing: str | None = None
    verify: Any = True
    clients: list[httpx.Client] = field(default_factory=list)

    def client(self, **options: Any) -> httpx.Client:
        """A client that asks this server."""
        client = httpx.Client(
            base_url=self.url, verify=self.verify, timeout=30.0, **{"trust_env": False, **options}
        )
        self.clients.append(client)
        return client

    def audit(self) -> list[str]:
        """The lines of the audit trail."""
        return [
            line
            for path in audit_files(self.folder / "audit")
            for line in path.read_text().splitlines()
        ]


@contextmanager
def serving(
    folder: Path, database: Database, http: HttpSettings, **settings: Any
) -> Iterator[Site]:
    """Serve until the end of the block."""
    # `port` is said, so that a port in use is an error and not another port.
    whole = Settings(data_dir=folder, http=http, **settings)
    users = UserFile(http.users_file or folder / "users.json")
    audit = Audit(whole.audit, folder, "ECHONODE")
    server = HttpServer(http, users)
    site = Site(url="", users=users, folder=folder)
    parts = Parts(
        settings=whole,
        database=database,
        audit=audit,
        callers=Callers(http, users, audit),
        not_ready=lambda: site.refusing,
        metrics=Metrics(),
    )
    try:
        server.start(make_site(parts, metrics.router, studies.router, pages.router))
        site.url = server.url
        yield site
    finally:
        for client in site.clients:
            client.close()
        server.stop()
        audit.close()


def add_users(users: UserFile) -> dict[str, str]:
    """A user for each role, with a token; gives role to token."""
    tokens = {}
    for role in Role:
        users.add(role.value, [role], None)
        tokens[role.value] = users.add_token(role.value)
    return tokens


def bearer(token: str) -> dict[str, str]:
    """The header that shows a token."""
    return {"authorization": f"Bearer {token}"}


def basic(name: str, password: str) -> dict[str, str]:
    """The header that shows a password."""
    value = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"authorization": f"Basic {value}"}
