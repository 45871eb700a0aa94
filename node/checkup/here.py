"""What can be looked at on this machine: ports, disk, clock, database, packs, and who may look.

Nothing is changed, and it makes no difference whether the node runs.
"""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from models.packs import Pack, PackError, load_pack, shipped_packs
from node.checkup.findings import Finding, Light, green, red, unknown, yellow
from node.evidence import running_packs
from node.rules import idle_packs, unknown_packs
from node.secrets import SecretError, check_private
from node.sections import ServerTls, is_loopback
from node.settings import Settings, cautions, unknown_variables
from node.tls import TlsError, server_context
from node.watch.alerts import AlertError, ways_of
from node.watch.disk import full_volumes, store_troubles, volumes_of
from node.web.exposure import ExposureError, check_exposure
from node.web.users import UserError, UserFile
from storage import catalog
from storage.database import Database, DatabaseError, SchemaError, migration_state
from storage.soundness import problems_of

_CLOCK_TOLERANCE = timedelta(seconds=60)
_MOST_LOOKED_THROUGH_BYTES = 256_000_000
_NEARLY_FULL = 2.0  # times the mark of [disk]


def look_here(settings: Settings) -> Iterator[Finding]:
    """Every finding on this machine, in the order in which a node needs things."""
    yield from _settings(settings)
    yield from _who_may_come(settings)
    yield from _disk(settings)
    yield from _folders(settings)
    database: Database | None = None
    node: catalog.NodeRecord | None = None
    try:
        found, database = _database(settings)
        yield from found
        if database is not None:
            node = _running(database, settings)
            yield from _clock(database)
    except DatabaseError as error:
        yield red("database", str(error), "see `echonode status` and the log of the node")
    finally:
        if database is not None:
            database.close()
    yield _synchronised()
    yield _node(node)
    yield from _ports(settings, node)
    yield from _packs(settings)


def _settings(settings: Settings) -> Iterator[Finding]:
    notes = [*cautions(settings)]
    notes += [f"{name} names no setting and is ignored" for name in unknown_variables()]
    if not notes:
        yield green("settings", "they are right")
    for line in notes:
        yield yellow("settings", line, "mend it in the settings; docs/settings.md lists them")
    if settings.alerts.webhook is None and settings.alerts.mail is None:
        yield yellow(
            "alerts",
            "nobody is told when the node is in trouble",
            "name a webhook or a mail address in [alerts], then `echonode alerts test`",
        )
    for way in ways_of(settings.alerts):
        try:
            way.check()
        except AlertError as error:
            yield red(
                "alerts", f"{way.name}: {error}", "mend it in [alerts]; the node runs without"
            )
        else:
            yield green("alerts", f"trouble is told by {way.name}; `echonode alerts test` tries it")


def _who_may_come(settings: Settings) -> Iterator[Finding]:
    if settings.dimse.anyone_may_send and not is_loopback(settings.dimse.host):
        yield yellow(
            "exposure",
            f"whoever reaches {settings.dimse.host}:{settings.dimse.port} may send",
            "name allowed_addresses or allowed_calling_aes in [dimse], or tls.client_authorities",
        )
    for section, tls in (("dimse", settings.dimse.tls), ("http", settings.http.tls)):
        if tls is not None:
            yield _certificate(section, tls)
    if not settings.http.enabled:
        return
    users = UserFile(settings.http.users_file or settings.data_dir / "users.json")
    try:
        check_exposure(settings.http, users)
        names = len(users.users())
    except (ExposureError, UserError) as error:
        yield red("exposure", str(error), "take one of these ways, then start the node again")
        return
    if not names and not settings.http.anyone_may_look:
        yield yellow(
            "users",
            "there are none: the page, the API and the metrics answer nobody",
            "make one with `echonode user add NAME --role read`",
        )
    else:
        yield green("users", f"{names} may use the page and the API")


def _certificate(section: str, tls: ServerTls) -> Finding:
    try:
        check_private(tls.private_key, f"[{section}.tls] private_key")
        server_context(tls)
    except (TlsError, SecretError) as error:
        return red("exposure", str(error), f"mend it, or name others in [{section}.tls]")
    return green("exposure", f"the certificate and key of [{section}.tls] can be used")


def _disk(settings: Settings) -> Iterator[Finding]:
    folder = settings.data_dir
    if not folder.is_dir():
        above = next(one for one in folder.parents if one.is_dir())
        if os.access(above, os.W_OK | os.X_OK):
            yield green("disk", f"{folder} is not there yet; the first start makes it")
        else:
            yield red(
                "disk",
                f"{folder} is not there, and this user may not make it in {above}",
                "make the folder and give it to the service user, or set another data_dir",
            )
        return
    now = datetime.now(UTC)
    volumes = volumes_of(settings.disk, folder, settings.database_url)
    began = (folder / "incoming").is_dir()
    troubles = [*full_volumes(volumes, now)]
    if began:
        troubles += store_troubles(folder, now, probe=True)
    for trouble in troubles:
        yield red("disk", trouble.words, trouble.next_step)
    if troubles:
        return
    if not os.access(folder, os.W_OK | os.X_OK):
        yield red(
            "disk",
            f"{folder} cannot be written by this user",
            "give it to the service user, or run this command as that user",
        )
        return
    for volume in volumes:
        words = f"{_size(volume.free_bytes)} free of {_size(volume.total_bytes)} at {volume.path}"
        if volume.free_bytes < _NEARLY_FULL * volume.mark_bytes:
            yield yellow(
                "disk",
                f"{words}; under {_size(volume.mark_bytes)} the node takes nothing",
                "free space there, or let [retention] do it",
            )
        else:
            yield green("disk", words)


def _folders(settings: Settings) -> Iterator[Finding]:
    """The watched folders."""
    for folder in settings.folders:
        needed = os.R_OK | os.X_OK | (0 if folder.after == "leave" else os.W_OK)
        if not folder.path.is_dir():
            yield red(
                "folders",
                f"{folder.path} is not there",
                "see that its volume or share is mounted, or take it out of [[folders]]",
            )
        elif not os.access(folder.path, needed):
            does = "read" if folder.after == "leave" else "read and written"
            yield red(
                "folders",
                f"{folder.path} cannot be {does} by this user",
                "give it to the service user, or run this command as that user",
            )
        else:
            yield green("folders", f"{folder.path} can be watched; after: {folder.after}")


_BACKUP = "`echonode backup DIR`"


def _database(settings: Settings) -> tuple[list[Finding], Database | None]:
    """What is found of the database, and the database where it can be asked."""
    url = settings.database_url
    database = None
    try:
        file = (
            Path(url.partition(":///")[2].partition("?")[0]) if url.startswith("sqlite") else None
        )
        if file is not None and not file.exists():
            return [green("database", "it is not there yet; the first start makes it")], None
        state = migration_state(url)
        if state.current is None:
            return [green("database", "it has no tables yet; the first start makes them")], None
        if state.current != state.head:
            return [
                yellow(
                    "database",
                    f"its tables are at revision {state.current}, this version needs {state.head}",
                    f"{_BACKUP if file else '`pg_dump`'}, then start the node: it mends that",
                )
            ], None
        database = Database(url)
        if file is not None and file.stat().st_size > _MOST_LOOKED_THROUGH_BYTES:
            words = (
                f"its tables are at revision {state.current}; it is large, so not looked through"
            )
            return [yellow("database", words, "`echonode db check` looks through it")], database
        wrong = problems_of(database)
    except SchemaError as error:
        return [
            red("database", str(error), "install the version of echonode that wrote it, or newer")
        ], None
    except DatabaseError as error:
        if database is not None:
            database.close()
        return [
            red("database", str(error), "see that it is there and that this user may use it")
        ], None
    if wrong:
        step = "stop the node and restore the database from a backup"
        return [red("database", line, step) for line in wrong[:3]], database
    return [green("database", f"it is sound; its tables are at revision {state.current}")], database


def _running(database: Database, settings: Settings) -> catalog.NodeRecord | None:
    with database.read() as session:
        for node in catalog.read_nodes(session):
            if node.node_id == settings.node.name and node.alive:
                return node
    return None


def _clock(database: Database) -> Iterator[Finding]:
    with database.read() as session:
        newest = catalog.newest_time(session)
    now = datetime.now(UTC)
    if newest is None:
        return
    if newest - now > _CLOCK_TOLERANCE:
        yield red(
            "clock",
            f"it says {now:%Y-%m-%d %H:%M:%S} UTC; the newest row is of {newest:%Y-%m-%d %H:%M:%S}",
            "set the machine's clock, best by NTP: `timedatectl set-ntp true`",
        )
    else:
        yield green("clock", f"it says {now:%Y-%m-%d %H:%M:%S} UTC, which fits the newest row")


def _synchronised() -> Finding:
    """Whether the clock is kept right by NTP, where systemd tells."""
    program = shutil.which("timedatectl")
    told: dict[str, str] = {}
    if program is not None:
        try:
            answer = subprocess.run(  # noqa: S603 - our own words
                [program, "show", "--property=NTP", "--property=NTPSynchronized"],
                capture_output=True,
                text=True,
                timeout=5,
                check=False,
            )
            told = dict(line.split("=", 1) for line in answer.stdout.splitlines() if "=" in line)
        except (OSError, subprocess.TimeoutExpired):
            told = {}
    if told.get("NTPSynchronized") == "yes":
        return green("clock", "it is synchronised by NTP")
    if "NTPSynchronized" in told:
        return yellow(
            "clock",
            "it is not synchronised: times in reports, TLS and the audit trail go by it",
            "`timedatectl set-ntp true`, or see what else keeps the clock of this machine",
        )
    return unknown("clock", "nothing here tells whether it is synchronised")


def _node(node: catalog.NodeRecord | None) -> Finding:
    if node is None:
        return unknown("node", "none runs here now")
    return green(
        "node", f"it runs as process {node.pid} since {node.started_at:%Y-%m-%d %H:%M} UTC"
    )


def _ports(settings: Settings, node: catalog.NodeRecord | None) -> Iterator[Finding]:
    addresses: dict[str, Any] = node.details.get("addresses", {}) if node is not None else {}
    ours = {addresses.get("dimse_port")}
    url = str(addresses.get("http_url") or "")
    if url:
        ours.add(int(url.rpartition(":")[2]))
    dimse = settings.dimse
    yield _port("dimse", dimse.host, dimse.port, ours=dimse.port in ours, may_move=False)
    if settings.http.enabled:
        http = settings.http
        moved = node is not None and http.port not in ours and "port" not in http.model_fields_set
        if moved and url:
            yield yellow(
                "ports",
                f"http: {http.port} was taken at the start, the node answers at {url}",
                "name a free port in [http]",
            )
            return
        may_move = "port" not in http.model_fields_set
        yield _port("http", http.host, http.port, ours=http.port in ours, may_move=may_move)


def _port(section: str, host: str, port: int, *, ours: bool, may_move: bool) -> Finding:
    place = f"{section}: {host}:{port}"
    if port == 0:
        return green("ports", f"{section}: any free port of {host}")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        with socket.create_server((host, port), family=family):
            pass
    except OSError as error:
        if error.errno == errno.EADDRINUSE and ours:
            return green("ports", f"{place} is ours")
        if error.errno == errno.EADDRINUSE and may_move:
            return yellow(
                "ports",
                f"{place} is used by something else; the node would take any free one",
                f"name a free port in [{section}]",
            )
        step = {
            errno.EADDRINUSE: f"stop what uses it, or choose another port in [{section}]",
            errno.EACCES: f"choose a port from 1024 on in [{section}], or give the service user "
            "CAP_NET_BIND_SERVICE",
        }.get(error.errno or 0, f"set [{section}] host to an address of this machine")
        number = error.errno or 0  # negative where the host's name is not known
        reason = os.strerror(number) if number > 0 else str(error.strerror)
        return red("ports", f"{place}: {reason}", step)
    return green("ports", f"{place} is free")


def _packs(settings: Settings) -> Iterator[Finding]:
    sound = []
    for folder in (*shipped_packs(), *settings.analysis.packs):
        try:
            pack = load_pack(folder)
        except PackError as error:
            yield red(
                "packs", str(error), "install it again: `echonode packs` lists where they are"
            )
        else:
            sound.append(pack)
    if sound:
        shown = ", ".join(f"{one.manifest.name} {one.manifest.version}" for one in sound)
        yield green("packs", f"checksums are right: {shown}")
    else:
        yield Finding(
            area="packs",
            light=Light.RED,
            words="there is none that can be used",
            next_step="install echonode again, or name folders in [analysis] packs",
        )
    yield from _rules(settings, sound)


def _rules(settings: Settings, packs: Sequence[Pack]) -> Iterator[Finding]:
    """Rules that never decide are told with the settings; here, those that name packs."""
    wrong = unknown_packs(settings.rules, packs)
    for line in wrong:
        yield red(
            "rules",
            line.removeprefix("rules: "),
            "mend it in [[rules]]: the node does not start with it",
        )
    idle = idle_packs(settings.rules, packs, running_packs(settings.analysis, packs))
    for line in idle:
        yield yellow("rules", line.removeprefix("rules: "), "mend it in [[rules]] or in [analysis]")
    if settings.rules and not (wrong or idle):
        yield green("rules", f"{len(settings.rules)}; `echonode rules test FILE` tries them")


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
