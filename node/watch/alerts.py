"""Tells people of trouble, by webhook and by mail: once when it begins, once when it is over.

Everything here runs in a thread of its own. What cannot be sent is logged, counted and tried again
with growing pauses; the node does not notice. An alert holds no patient, no UID, and no words of
another machine, which may quote what it was sent.
"""

from __future__ import annotations

import json
import smtplib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

import httpx
import structlog

from node.secrets import Secret, SecretError, read_secret, secret_of
from node.sections import (
    AlertsSettings,
    ClientTls,
    MailSettings,
    WebhookSettings,
    webhook_url,
)
from node.tls import TlsError, client_context
from storage import catalog
from storage.database import Database, DatabaseError

log = structlog.get_logger(__name__)

_LOOK_S = 10.0
_FIRST_PAUSE_S = 10.0
_LONGEST_PAUSE_S = 900.0
_MOST_WAITING = 100
_STOP_S = 2.0  # an address that does not answer holds up no stop
_OF_ROWS = frozenset({"queue-old", "destination-down", "failures"})

_FAILED = {
    "study-failed": ("study", "studies"),
    "recording-failed": ("clip", "clips"),
    "delivery-failed": ("delivery", "deliveries"),
    "result-quarantined": ("result with a fault", "results with a fault"),
}


class AlertError(Exception):
    """An alert could not be sent; the message says why, without any secret."""


class State(StrEnum):
    """What an alert says of a trouble."""

    BEGUN = "begun"
    OVER = "over"
    TEST = "test"


@dataclass(frozen=True, kw_only=True, slots=True)
class Alarm:
    """Something that someone should know. ``subject`` tells two of a kind apart."""

    kind: str
    words: str
    next_step: str
    subject: str = ""

    @property
    def key(self) -> str:
        """By which it is known again."""
        return f"{self.kind}:{self.subject}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Sight:
    """What is wrong now; of the kinds in ``unseen`` nothing can be told."""

    alarms: tuple[Alarm, ...]
    unseen: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """What is sent."""

    node: str
    state: State
    alarm: Alarm
    since: datetime
    at: datetime

    @property
    def title(self) -> str:
        """In a few words."""
        of = f" ({self.alarm.subject})" if self.alarm.subject else ""
        return f"{self.node}: {self.alarm.kind}{of} {self.state}"

    @property
    def text(self) -> str:
        """In a line or two."""
        if self.state is State.OVER:
            return f"{self.title}. It lasted since {self.since:%Y-%m-%d %H:%M} UTC."
        return f"{self.title}. {self.alarm.words}. To do: {self.alarm.next_step}."


class Way(Protocol):
    """A way to people."""

    name: str

    def check(self) -> None:
        """Read secrets and certificates, and send nothing; raises :class:`AlertError`."""
        ...  # pragma: no cover

    def send(self, alert: Alert) -> None:
        """Send one; raises :class:`AlertError`."""
        ...  # pragma: no cover


class Webhook:
    """POSTs JSON."""

    name = "webhook"

    def __init__(self, settings: WebhookSettings) -> None:
        self._settings = settings

    def check(self) -> None:
        """See :class:`Way`."""
        self._prepared()

    def send(self, alert: Alert) -> None:
        """See :class:`Way`."""
        content = {
            "text": alert.text,
            "node": alert.node,
            "state": alert.state.value,
            "kind": alert.alarm.kind,
            "subject": alert.alarm.subject,
            "what": alert.alarm.words,
            "next_step": alert.alarm.next_step,
            "since": alert.since.isoformat(),
            "at": alert.at.isoformat(),
        }
        url, headers, verify = self._prepared()
        try:
            with httpx.Client(verify=verify, timeout=self._settings.timeout_s) as client:
                status = client.post(url, json=content, headers=headers).status_code
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            # Its words may hold the address, which may be a secret.
            raise AlertError(f"the webhook cannot be reached: {type(error).__name__}") from None
        if not 200 <= status < 300:
            raise AlertError(f"the webhook answered HTTP {status}")

    def _prepared(self) -> tuple[str, dict[str, str], ssl.SSLContext | bool]:
        """Address, headers, and whom to believe, read anew: they may have been changed."""
        settings = self._settings
        try:
            url = settings.url or webhook_url(
                read_secret(settings.url_file or Path(), "address of the webhook")
            )
            token = secret_of(settings.token_file, settings.token_variable, "token of the webhook")
            headers = {} if token is None else {"Authorization": f"Bearer {token.reveal()}"}
            if url.startswith("https:"):
                return url, headers, client_context(settings.tls or ClientTls())
        except (SecretError, TlsError) as error:
            raise AlertError(str(error)) from error
        except ValueError as error:
            raise AlertError(f"the address in {settings.url_file}: {error}") from None
        return url, headers, False  # http is for this machine alone


class Mail:
    """Hands a message to a mail server."""

    name = "mail"

    def __init__(self, settings: MailSettings) -> None:
        self._settings = settings

    def check(self) -> None:
        """See :class:`Way`."""
        self._password()
        if self._settings.security != "none":
            self._context()

    def send(self, alert: Alert) -> None:
        """See :class:`Way`."""
        settings = self._settings
        message = EmailMessage()
        message["Subject"] = f"[echonode] {alert.title}"
        message["From"] = settings.sender
        message["To"] = ", ".join(settings.to)
        message["Auto-Submitted"] = "auto-generated"  # RFC 3834: nobody's absence answers it
        message.set_content(f"{alert.text}\n")
        password = self._password()
        try:
            with self._connection() as server:
                if password is not None and settings.user is not None:
                    server.login(settings.user, password.reveal())
                server.send_message(message)
        except smtplib.SMTPException as error:
            code = getattr(error, "smtp_code", None)
            why = f"it answered {code}" if code else type(error).__name__
            raise AlertError(f"the mail server did not take it: {why}") from None
        except ssl.SSLError as error:
            raise AlertError(f"no TLS with the mail server: {error.reason}") from None
        except OSError as error:
            why = error.strerror or type(error).__name__
            raise AlertError(f"the mail server cannot be reached: {why}") from None

    def _password(self) -> Secret | None:
        settings = self._settings
        what = "password of the mail server"
        try:
            return secret_of(settings.password_file, settings.password_variable, what)
        except SecretError as error:
            raise AlertError(str(error)) from error

    def _context(self) -> ssl.SSLContext:
        try:
            return client_context(self._settings.tls)
        except TlsError as error:
            raise AlertError(str(error)) from error

    def _connection(self) -> smtplib.SMTP:
        settings = self._settings
        where = (settings.host, settings.port)
        if settings.security == "none":
            return smtplib.SMTP(*where, timeout=settings.timeout_s)
        context = self._context()
        if settings.security == "tls":
            return smtplib.SMTP_SSL(*where, timeout=settings.timeout_s, context=context)
        server = smtplib.SMTP(*where, timeout=settings.timeout_s)
        try:
            server.starttls(context=context)
        except BaseException:
            server.close()
            raise
        return server


def ways_of(settings: AlertsSettings) -> tuple[Way, ...]:
    """The ways that the settings name."""
    ways: list[Way] = []
    if settings.webhook is not None:
        ways.append(Webhook(settings.webhook))
    if settings.mail is not None:
        ways.append(Mail(settings.mail))
    return tuple(ways)


def trial_alert(node: str) -> Alert:
    """An alert that says that alerts arrive."""
    now = datetime.now(UTC)
    alarm = Alarm(
        kind="test",
        words="This is a test: alerts of this node arrive here",
        next_step="nothing",
    )
    return Alert(node=node, state=State.TEST, alarm=alarm, since=now, at=now)


@dataclass(frozen=True, kw_only=True, slots=True)
class Tried:
    """A way that was tried: whom it reaches, and what went wrong; "" for nothing."""

    way: str
    to: str
    error: str


def try_ways(settings: AlertsSettings, node: str, only: str | None = None) -> tuple[Tried, ...]:
    """Send a test by every way in the settings, or by one of them; may take a minute."""
    alert = trial_alert(node)
    tried = []
    for way in ways_of(settings):
        if only not in (None, way.name):
            continue
        error = ""
        try:
            way.send(alert)
        except AlertError as failed:
            error = str(failed)
        tried.append(Tried(way=way.name, to=reaches(settings, way.name), error=error))
    return tuple(tried)


def reaches(settings: AlertsSettings, way: str) -> str:
    """Whom a way reaches; an address that may be a secret is not shown whole."""
    if way == "mail" and settings.mail is not None:
        return ", ".join(settings.mail.to)
    if settings.webhook is not None and settings.webhook.url is not None:
        return urlsplit(settings.webhook.url).hostname or "?"
    return "the address in url_file"


def node_name(ae_title: str) -> str:
    """How alerts name the node."""
    return f"{ae_title} on {socket.gethostname()}"


def sight_of(
    settings: AlertsSettings,
    database: Database,
    disk: Mapping[str, Any],
    workers: Iterable[Any] = (),
    *,
    folders: Iterable[Mapping[str, Any]] = (),
    now: datetime | None = None,
) -> Sight:
    """What is wrong now.

    Parameters
    ----------
    disk
        As :func:`node.watch.disk.shown` gives it.
    workers
        The slots of the executor.
    folders
        As :meth:`node.doors.folder.FolderDoor.shown` gives each.
    """
    now = now or datetime.now(UTC)
    alarms = [
        Alarm(kind=trouble["kind"], words=trouble["what"], next_step=trouble["next_step"])
        for trouble in disk.get("troubles", ())
    ]
    alarms += [
        Alarm(
            kind="folder",
            subject=folder["path"],
            words=folder["trouble"],
            next_step=folder["next_step"],
        )
        for folder in folders
        if folder["trouble"] is not None
    ]
    workers = tuple(workers)
    states = [str(getattr(worker.state, "value", worker.state)) for worker in workers]
    if states and all(state == "failed" for state in states):
        if any(getattr(worker, "place", None) for worker in workers):
            words = "no worker of the cluster can read, so no clip is read"
            step = "`echonode status` says why, and `echonode doctor`; see docs/compute.md"
        else:
            words = "no worker process can be started, so no clip is read"
            step = "`echonode status` says why; see the memory and the log of the machine"
        alarms.append(
            Alarm(
                kind="workers",
                words=words,
                next_step=step,
            )
        )
    try:
        with database.read() as session:
            queues = catalog.queue_status(session, now, last_errors=0)
            destinations = catalog.watch_destinations(session, now)
            failed = catalog.failures_since(
                session, now - timedelta(seconds=settings.failures_within_s)
            )
    except DatabaseError as error:
        if all(alarm.kind != "database" for alarm in alarms):
            step = "see that it is there and that the service user may use it"
            alarms.append(Alarm(kind="database", words=str(error), next_step=step))
        return Sight(alarms=tuple(alarms), unseen=_OF_ROWS)
    oldest = queues.oldest_recording
    if oldest is not None and oldest.age_s > settings.queue_older_than_s:
        waiting = queues.recordings.get("queued", 0) + queues.recordings.get("to_view", 0)
        alarms.append(
            Alarm(
                kind="queue-old",
                words=f"a clip has waited for a worker for {_span(oldest.age_s)}; {waiting} wait",
                next_step="`echonode status` shows the workers and the last errors",
            )
        )
    alarms += [
        Alarm(
            kind="destination-down",
            subject=one.destination,
            words=f"it has taken nothing for {_span(one.silent_s)}; {one.waiting} results wait",
            next_step="`echonode doctor` says what it answers now",
        )
        for one in destinations
        if one.silent_s > settings.destination_down_after_s
    ]
    if failed:
        parts = [f"{count} {_FAILED[kind][count != 1]}" for kind, count in sorted(failed.items())]
        alarms.append(
            Alarm(
                kind="failures",
                words=f"in the last {_span(settings.failures_within_s)}: {', '.join(parts)}",
                next_step="`echonode status` shows the last errors, "
                "`echonode studies --state failed` the studies",
            )
        )
    return Sight(alarms=tuple(alarms))


@dataclass(slots=True)
class _Known:
    """A trouble that was told, or is being told."""

    alarm: Alarm
    since: datetime
    seen_at: datetime


@dataclass(slots=True)
class _Post:
    """What waits for a way."""

    way: Way
    waiting: list[Alert] = field(default_factory=list)
    pause_s: float = 0.0
    not_before: float = 0.0  # of the monotonic clock


class Alerts:
    """Looks from time to time, and tells.

    Parameters
    ----------
    settings
        ``[alerts]``.
    look
        Says what is wrong now.
    node
        The node's name in alerts.
    memory
        A file that remembers over a restart what was told.
    counted
        Called with kind, way and outcome of every alert.
    ways
        In place of those in the settings.
    """

    def __init__(
        self,
        settings: AlertsSettings,
        look: Callable[[], Sight],
        *,
        node: str,
        memory: Path | None = None,
        counted: Callable[[str, str, str], None] = lambda _kind, _way, _outcome: None,
        ways: Sequence[Way] | None = None,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._pause = timedelta(seconds=settings.pause_s)
        self._look = look
        self._node = node
        self._memory = memory
        self._counted = counted
        self._clock = clock
        self._posts = [_Post(way=way) for way in (ways_of(settings) if ways is None else ways)]
        self._noted: list[dict[str, Any]] = []
        self._known = self._remembered()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="alerts", daemon=True)

    def start(self) -> None:
        """Begin to look, where there is a way to tell."""
        if self._posts:
            self._thread.start()

    def stop(self) -> None:
        """Look no more; what waits goes out after the next start."""
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(_STOP_S)

    def turn(self) -> None:
        """Look once, and send what is to be sent."""
        self._compare(self._look())
        for post in self._posts:
            self._send(post)
        self._remember()

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self.turn()
            except Exception:
                # The edge of the thread: those who watch hold up no one, and go on.
                log.exception("alerts-failed")
            self._stopping.wait(_LOOK_S)

    def _compare(self, sight: Sight) -> None:
        now = self._clock()
        for alarm in sight.alarms:
            known = self._known.get(alarm.key)
            if known is None:
                self._known[alarm.key] = _Known(alarm=alarm, since=now, seen_at=now)
                self._queue(State.BEGUN, alarm, now, now)
            else:
                known.seen_at = now
        seen = {alarm.key for alarm in sight.alarms}
        for key, known in list(self._known.items()):
            if key in seen:
                continue
            if known.alarm.kind in sight.unseen:
                known.seen_at = now
            elif now - known.seen_at >= self._pause:
                del self._known[key]
                self._queue(State.OVER, known.alarm, known.since, now)

    def _queue(self, state: State, alarm: Alarm, since: datetime, now: datetime) -> None:
        log.log(
            30 if state is State.BEGUN else 20,
            f"alert-{state}",
            kind=alarm.kind,
            subject=alarm.subject,
            what=alarm.words,
        )
        alert = Alert(node=self._node, state=state, alarm=alarm, since=since, at=now)
        for post in self._posts:
            untold = [one for one in post.waiting if one.alarm.key == alarm.key]
            if state is State.OVER and untold:
                # Nobody heard that it began: there is nothing to take back.
                post.waiting = [one for one in post.waiting if one not in untold]
                continue
            post.waiting = [*post.waiting, alert][-_MOST_WAITING:]

    def _send(self, post: _Post) -> None:
        while post.waiting and not self._stopping.is_set():
            if time.monotonic() < post.not_before:
                return
            alert = post.waiting[0]
            try:
                post.way.send(alert)
            except Exception as error:  # noqa: BLE001 - the edge of a way: the others go on
                post.pause_s = min(max(_FIRST_PAUSE_S, 2 * post.pause_s), _LONGEST_PAUSE_S)
                post.not_before = time.monotonic() + post.pause_s
                log.warning(
                    "alert-not-sent",
                    way=post.way.name,
                    reason=str(error) if isinstance(error, AlertError) else type(error).__name__,
                    again_in_s=post.pause_s,
                    waiting=len(post.waiting),
                )
                self._counted(alert.alarm.kind, post.way.name, "failed")
                return
            post.waiting.pop(0)
            post.pause_s = 0.0
            self._counted(alert.alarm.kind, post.way.name, "sent")

    def _remembered(self) -> dict[str, _Known]:
        if self._memory is None:
            return {}
        known: dict[str, _Known] = {}
        untold: list[tuple[Alert, str]] = []
        try:
            now = self._clock()
            for item in json.loads(self._memory.read_text()):
                alarm = Alarm(**item["alarm"])
                since = datetime.fromisoformat(item["since"])
                known[alarm.key] = _Known(alarm=alarm, since=since, seen_at=now)
                alert = Alert(node=self._node, state=State.BEGUN, alarm=alarm, since=since, at=now)
                untold += [(alert, str(way)) for way in item["untold"]]
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("alerts-not-remembered", reason=type(error).__name__)
            return {}
        for post in self._posts:
            # What some way could not tell before the restart.
            post.waiting += [alert for alert, way in untold if way == post.way.name]
        return known

    def _remember(self) -> None:
        if self._memory is None:
            return
        items = [
            {
                "alarm": asdict(known.alarm),
                "since": known.since.isoformat(),
                "untold": [
                    post.way.name
                    for post in self._posts
                    if any(one.alarm.key == key for one in post.waiting)
                ],
            }
            for key, known in self._known.items()
        ]
        if items == self._noted:
            return
        beside = self._memory.with_suffix(".new")
        try:
            beside.write_text(json.dumps(items))
            beside.replace(self._memory)
            self._noted = items
        except OSError as error:
            # The disk may be what is wrong: then a restart tells it again.
            log.warning("alerts-not-noted", reason=error.strerror)


def _span(seconds: float) -> str:
    if seconds >= 7200:
        return f"{seconds / 3600:.0f} h"
    return f"{seconds / 60:.0f} min" if seconds >= 120 else f"{seconds:.0f} s"
