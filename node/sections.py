"""The sections of the settings: every key with its type, its default and what it means.

Each class is a section of ``echonode.toml``; :mod:`node.settings` reads and joins them.
"""

from __future__ import annotations

import ipaddress
import os
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar, Literal, Self
from urllib.parse import parse_qs, urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    model_validator,
)

from storage.files import Address


def _ae_title(value: str) -> str:
    # PS3.5 6.2, AE: 16 bytes at most, no backslash, no control characters, not only spaces.
    title = value.strip(" ")
    if not 1 <= len(title) <= 16 or not re.fullmatch(r"[ -\[\]-~]+", title):
        raise ValueError("an AE title has 1 to 16 plain characters and no backslash")
    return title


def _host(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:%-]{1,255}", value):
        raise ValueError("a host is a name or an IP address, without a port")
    return value


def _executor(value: str) -> str:
    if value == "processes" or cluster_address(value) is not None:
        return value
    raise ValueError('clips are read by "processes" of this machine or by "dask://host:port"')


def cluster_address(executor: str) -> str | None:
    """``host:port`` of the scheduler that an executor names; None where it names none."""
    try:
        parts = urlsplit(executor)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    plain = not (parts.path or parts.query or parts.fragment or "@" in parts.netloc)
    if parts.scheme != "dask" or not host or not port or not plain:
        return None
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _in_a_list(value: object) -> object:
    return [value] if isinstance(value, str) else value


def _destination_name(value: str) -> str:
    if not 1 <= len(value) <= 64 or not value.isprintable() or value != value.strip():
        raise ValueError("a name has 1 to 64 printable characters")
    return value


def _web_url(value: str) -> str:
    try:
        parts = urlsplit(value)
        usable = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise ValueError("a DICOMweb URL looks like https://pacs.example/dicom-web")
    if parts.username is not None or parts.password is not None:
        raise ValueError("a DICOMweb URL must not carry a name or password")
    return value.rstrip("/")


def _url_host(url: str) -> str:
    return urlsplit(url).hostname or ""


def _variable(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,127}", value):
        raise ValueError("a variable's name has letters, digits and underscores")
    return value


def webhook_url(value: str) -> str:
    """An address that takes alerts; raises ValueError where it is none, or not a safe one."""
    try:
        parts = urlsplit(value)
        usable = bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable or parts.scheme not in {"http", "https"}:
        raise ValueError("an address looks like https://alerts.example/hook")
    if parts.scheme == "http" and not is_loopback(parts.hostname or ""):
        raise ValueError("alerts go by https alone, this machine apart; write https://")
    return value


def _mail_address(value: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+@[A-Za-z0-9.-]+", value):
        raise ValueError("a mail address looks like name@hospital.example")
    return value


def _database_url(value: str) -> str:
    if re.fullmatch(r"sqlite(\+pysqlite)?:////[^?]+(\?.*)?", value):
        return value
    parts = urlsplit(value)
    if parts.scheme not in {"postgresql", "postgresql+psycopg"}:
        raise ValueError(
            "the rows are kept in an SQLite file, sqlite:////absolute/path.db, or in PostgreSQL, "
            "postgresql://user@host/database"
        )
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ValueError(
            "no password stands in the settings: write ?passfile=/path, a file as libpq knows it "
            "(host:port:database:user:password), which only the service user can read"
        )
    if not parts.hostname or len(parts.path) < 2:
        raise ValueError("name host and database: postgresql://user@host/database")
    return value.replace("postgresql:", "postgresql+psycopg:", 1)


def _store_url(value: str) -> str:
    if not value or Path(value).is_absolute() or re.fullmatch(r"file:///[^?#]+", value):
        return value
    if value.startswith("s3:"):
        return str(Address.parse(value))
    raise ValueError(
        "the files lie in a folder, file:///absolute/path, in an object store, s3://bucket/folder, "
        "or in data_dir: leave it out"
    )


def _origin(value: str) -> str:
    parts = urlsplit(value)
    if value != f"{parts.scheme}://{parts.netloc}" or parts.scheme not in {"http", "https"}:
        raise ValueError("an origin looks like https://viewer.example, without a path")
    if not parts.hostname or parts.username is not None:
        raise ValueError("an origin looks like https://viewer.example, without a name")
    return value.lower()


def _network(value: str) -> str:
    try:
        return str(ipaddress.ip_network(value, strict=False))
    except ValueError:
        raise ValueError("a network looks like 10.1.2.3 or 10.1.0.0/16") from None


def is_loopback(host: str) -> bool:
    """Whether an address in the settings can only be reached from this machine."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
StoreUrl = Annotated[str, AfterValidator(_store_url)]
AETitle = Annotated[str, AfterValidator(_ae_title)]
Host = Annotated[str, AfterValidator(_host)]
Variable = Annotated[str, AfterValidator(_variable)]
Port = Annotated[int, Field(ge=0, le=65535)]
MailAddress = Annotated[str, AfterValidator(_mail_address)]
AbsolutePath = Annotated[Path, AfterValidator(lambda path: path.expanduser().absolute())]
Network = Annotated[str, AfterValidator(_network)]
Origin = Annotated[str, AfterValidator(_origin)]
Role = Literal["send", "read", "operate"]
PersonEstimate = Literal["age", "sex", "weight", "height"]
Seconds = Annotated[float, Field(gt=0, le=31_536_000, allow_inf_nan=False)]


class Section(BaseModel):
    """What all sections share: unknown keys are refused, nothing changes after the start."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class ServerTls(Section):
    """``[….tls]`` of a door: who we are to callers, and which callers may come in."""

    certificate: AbsolutePath = Field(description="PEM: ours, then those that signed it")
    private_key: AbsolutePath = Field(description="PEM: the certificate's key, without a password")
    client_authorities: AbsolutePath | None = Field(
        None, description="PEM: callers need a certificate signed by one of these"
    )


class ClientTls(Section):
    """``[….tls]`` of a destination: whom we believe to be it, and who we are to it."""

    authorities: AbsolutePath | None = Field(
        None, description="PEM: authorities that may vouch for it; by default the system's"
    )
    certificate: AbsolutePath | None = Field(None, description="PEM: ours, where it asks for one")
    private_key: AbsolutePath | None = Field(None, description="PEM: the certificate's key")

    @model_validator(mode="after")
    def _both_or_none(self) -> Self:
        if (self.certificate is None) != (self.private_key is None):
            raise ValueError("certificate and private_key belong together: write both or neither")
        return self


class DimseSettings(Section):
    """``[dimse]``: the door for echo machines."""

    host: Host = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(11112, description="port to listen on; 0 takes a free one")
    ae_title: AETitle = Field("ECHONODE", description="the node's own AE title")
    allowed_addresses: tuple[Network, ...] = Field(
        (), description="addresses or networks that may call; an empty list lets all call"
    )
    allowed_calling_aes: tuple[AETitle, ...] = Field(
        (), description="AE titles that may call; an empty list lets all call"
    )
    check_called_ae: bool = Field(False, description="callers must call us by our AE title")
    anyone_may_send: bool = Field(
        False, description="listen on the network although anyone there may send"
    )
    tls: ServerTls | None = Field(None, description="speak TLS, and nothing else, on the port")
    max_associations: int = Field(50, ge=1, le=1000, description="open associations at once")
    max_associations_per_peer: int = Field(
        20, ge=1, le=1000, description="open associations at once from one address"
    )
    maximum_pdu_size: int = Field(131072, ge=4096, le=1 << 24, description="in bytes")
    network_timeout_s: Seconds = Field(60.0, description="silence after which a caller is cut off")
    acse_timeout_s: Seconds = Field(30.0, description="longest wait in association set-up")
    dimse_timeout_s: Seconds = Field(30.0, description="longest wait for a DIMSE message")
    pdu_timeout_s: Seconds = Field(30.0, description="longest time from a PDU's begin to its end")

    @model_validator(mode="after")
    def _not_open_to_all(self) -> Self:
        shows_certificate = self.tls is not None and self.tls.client_authorities is not None
        if not (
            is_loopback(self.host)
            or self.allowed_addresses
            or self.allowed_calling_aes
            or shows_certificate
            or self.anyone_may_send
        ):
            raise ValueError(
                f"listening on {self.host} lets anyone on the network send: name "
                "allowed_addresses, or allowed_calling_aes, or tls.client_authorities; or write "
                "anyone_may_send = true"
            )
        return self


class Machine(Section):
    """A ``[[machines]]``: an echo machine that is told of what we promised to keep."""

    ae_title: AETitle = Field(description="the machine's AE title, unique; it calls by it, too")
    host: Host = Field(description="where the machine takes reports on storage commitment")
    port: int = Field(ge=1, le=65535, description="where the machine takes reports")
    tls: ClientTls | None = Field(None, description="speak TLS with it")


class HttpSettings(Section):
    """``[http]``: status, the operator's buttons, and whether the node is well."""

    enabled: bool = Field(True, description="serve HTTP at all")
    host: Host = Field("127.0.0.1", description="address to listen on")
    port: Port = Field(8080, description="port to listen on; 0 takes a free one")
    tls: ServerTls | None = Field(None, description="speak HTTPS with this certificate")
    certificate_roles: tuple[Role, ...] = Field(
        ("read",), description="what callers may do who show a certificate of client_authorities"
    )
    users_file: AbsolutePath | None = Field(
        None, description="users and tokens; by default users.json in data_dir"
    )
    anyone_may_look: bool = Field(False, description="reading needs no user")
    proxies: tuple[Network, ...] = Field(
        (), description="addresses or networks of the proxies that speak HTTPS for the node"
    )
    max_request_bytes: int = Field(
        1 << 20, ge=1024, le=1 << 40, description="longest body of a request"
    )
    max_connections: int = Field(100, ge=1, le=10_000, description="open connections at once")


class DicomwebSettings(Section):
    """``[dicomweb]``: objects in and out by HTTP, under ``/dicom-web``."""

    enabled: bool = Field(True, description="serve DICOMweb where HTTP is served")
    max_request_bytes: int = Field(
        8 << 30, ge=1024, le=1 << 40, description="longest body of an upload (STOW-RS)"
    )
    allowed_origins: tuple[Origin, ...] = Field(
        (), description="pages of these origins may use it from a browser (CORS)"
    )
    search_results: int = Field(
        1000, ge=1, le=100_000, description="most matches that a search gives at once (QIDO-RS)"
    )
    search_reads: int = Field(
        2000, ge=10, le=1_000_000, description="most files that one search reads anew"
    )


class WatchedFolder(Section):
    """A ``[[folders]]``: files that are left there are taken in."""

    path: AbsolutePath = Field(description="the folder, with all that is below it")
    after: Literal["leave", "delete", "move"] = Field(
        "leave", description="what is done with a file once what it holds is kept"
    )
    unchanged_s: Seconds = Field(
        10.0, description="time in which a file must not change before it is taken"
    )
    every_s: Seconds = Field(5.0, description="pause between two looks")


class SyslogSettings(Section):
    """``[audit.syslog]``: where the audit trail goes besides."""

    host: Host = Field(description="the syslog server")
    port: int = Field(6514, ge=1, le=65535, description="the syslog server's port")
    transport: Literal["tls", "tcp"] = Field("tls", description="tcp only on this machine")
    tls: ClientTls = ClientTls()

    @model_validator(mode="after")
    def _in_the_clear_only_here(self) -> Self:
        if self.transport == "tcp" and not is_loopback(self.host):
            raise ValueError('transport = "tcp" is for a server on this machine; use "tls"')
        return self


class AuditSettings(Section):
    """``[audit]``: who sent, got, asked and changed what (PS3.15 A.5)."""

    enabled: bool = Field(True, description="write it at all")
    folder: AbsolutePath | None = Field(None, description="by default audit in data_dir")
    max_file_bytes: int = Field(
        10_000_000, ge=10_000, le=1 << 34, description="size at which a new file is begun"
    )
    keep_days: int = Field(2192, ge=1, le=36_500, description="age at which a file is deleted")
    syslog: SyslogSettings | None = None


class DiskSettings(Section):
    """``[disk]``: when the disk counts as nearly full, and when it no longer does."""

    keep_free_bytes: int = Field(
        1_000_000_000, ge=0, le=1 << 60, description="with less free nothing is taken in or made"
    )
    keep_free_percent: float = Field(
        0.0, ge=0, le=90, description="the same, of the volume; the larger of the two counts"
    )
    go_on_percent: float = Field(
        125.0, ge=100, le=1000, description="of that mark must be free before the node goes on"
    )


class RetentionSettings(Section):
    """``[retention]``: what is given up by age and by space. Off where no key is written."""

    sources_after_days: float | None = Field(
        None, gt=0, le=36_500, description="age at which received files go"
    )
    results_after_days: float | None = Field(
        None, gt=0, le=36_500, description="age at which the files of results go"
    )
    quarantine_after_days: float | None = Field(
        None, gt=0, le=36_500, description="age at which what is in quarantine goes, row and file"
    )
    most_bytes: int | None = Field(
        None, ge=0, le=1 << 60, description="more than this is not kept: the oldest go"
    )
    start_when_free_below: int | None = Field(
        None, ge=0, le=1 << 60, description="with less free, in bytes, the oldest go"
    )
    keep_at_least_days: float = Field(
        1.0, ge=0, le=36_500, description="what is younger does not go for space"
    )
    promised_after_days: float | None = Field(
        None,
        gt=0,
        le=36_500,
        description="age at which also goes what a machine was promised that it is kept",
    )


class StudySettings(Section):
    """``[study]``: when a study counts as complete."""

    quiet_s: Seconds = Field(30.0, description="quiet time since the last image")
    released_quiet_s: Seconds = Field(
        default_factory=lambda known: min(10.0, known.get("quiet_s", 10.0)),
        description="quiet time once the sender has released its association",
    )
    max_age_s: Seconds = Field(3600.0, description="longest time from the first image")

    @model_validator(mode="after")
    def _released_is_sooner(self) -> Self:
        if self.released_quiet_s > self.quiet_s:
            raise ValueError(
                f"released_quiet_s ({self.released_quiet_s:g}) must not be longer than "
                f"quiet_s ({self.quiet_s:g})"
            )
        return self


_TIMEOUT = "longest wait for an answer, an object's own time on a slow line not counted"
_COMMITMENT = '"auto": ask for its promise to keep what it stored, as it can; "off": do not ask'
_COMMITMENT_TIMEOUT = "time in which it is to promise, or to show, what it stored"
_TEXT_REPORT = "also send each report as text for people, in a series of its own"
_KEY_OBJECT = "also send a Key Object Selection that points at the clips read and the pictures"


class DimsePeer(Section):
    """An archive that speaks DIMSE: where it listens, and as whom."""

    section: ClassVar[str] = "destinations"  #: of the settings, for messages

    name: Annotated[str, AfterValidator(_destination_name)] = Field(description="unique")
    kind: Literal["dimse"]
    host: Host = Field(description="where the archive listens")
    port: int = Field(ge=1, le=65535, description="where the archive listens")
    ae_title: AETitle = Field(description="the archive's AE title")
    tls: ClientTls | None = Field(None, description="speak TLS with it")
    timeout_s: Seconds = Field(120.0, description=_TIMEOUT)


class DimseDestination(DimsePeer):
    """A ``[[destinations]]`` that takes results by C-STORE."""

    commitment: Literal["auto", "required", "off"] = Field(
        "auto", description=f'{_COMMITMENT}; "required": only storage commitment counts'
    )
    commitment_timeout_s: Seconds = Field(600.0, description=_COMMITMENT_TIMEOUT)
    text_report: bool = Field(False, description=_TEXT_REPORT)
    key_object: bool = Field(False, description=_KEY_OBJECT)


class DimseSource(DimsePeer):
    """An ``[[archives]]`` that is read by C-FIND, C-GET and C-MOVE, and gets no results."""

    section: ClassVar[str] = "archives"


class DicomwebPeer(Section):
    """An archive that speaks DICOMweb: where, and who we are to it."""

    section: ClassVar[str] = "destinations"  #: of the settings, for messages

    name: Annotated[str, AfterValidator(_destination_name)] = Field(description="unique")
    kind: Literal["dicomweb"]
    url: Annotated[str, AfterValidator(_web_url)] = Field(
        description="the DICOMweb root, such as https://pacs.example/dicom-web"
    )
    tls: ClientTls | None = Field(
        None,
        description="whom to believe, and our certificate; by default the system's authorities",
    )
    token_file: AbsolutePath | None = Field(None, description="file with a bearer token")
    token_variable: Variable | None = Field(None, description="variable with a bearer token")
    user: str | None = Field(None, min_length=1, description="name to show with a password")
    password_file: AbsolutePath | None = Field(None, description="file with the user's password")
    password_variable: Variable | None = Field(None, description="variable with that password")
    timeout_s: Seconds = Field(120.0, description=_TIMEOUT)

    @model_validator(mode="after")
    def _one_way_to_show_who_we_are(self) -> Self:
        tokens = [self.token_file, self.token_variable]
        passwords = [self.password_file, self.password_variable]
        named = [place for place in (*tokens, *passwords) if place is not None]
        if len(named) > 1:
            raise ValueError("name one secret: a token or a password, in a file or in a variable")
        if (self.user is None) != (passwords == [None, None]):
            raise ValueError("user and password_file or password_variable belong together")
        if named and urlsplit(self.url).scheme == "http" and not is_loopback(_url_host(self.url)):
            raise ValueError("a token or password goes by https alone; write https:// in the url")
        return self


class DicomwebDestination(DicomwebPeer):
    """A ``[[destinations]]`` that takes results by STOW-RS."""

    commitment: Literal["auto", "off"] = Field("auto", description=_COMMITMENT)
    commitment_timeout_s: Seconds = Field(600.0, description=_COMMITMENT_TIMEOUT)
    text_report: bool = Field(False, description=_TEXT_REPORT)
    key_object: bool = Field(False, description=_KEY_OBJECT)


class DicomwebSource(DicomwebPeer):
    """An ``[[archives]]`` that is read by QIDO-RS and WADO-RS, and gets no results."""

    section: ClassVar[str] = "archives"


Destination = Annotated[DimseDestination | DicomwebDestination, Field(discriminator="kind")]
Source = Annotated[DimseSource | DicomwebSource, Field(discriminator="kind")]
KINDS: Mapping[int | str, Mapping[int | str, type[Section]]] = {
    "destinations": {"dimse": DimseDestination, "dicomweb": DicomwebDestination},
    "archives": {"dimse": DimseSource, "dicomweb": DicomwebSource},
}
"""Of the sections that come in kinds: the kind to its class."""

Door = Literal["dimse", "dicomweb", "folder", "fetch"]
ViewLabel = Literal[
    "psla", "rvinflow", "saxbasal", "saxmid", "a4c", "a5c", "a2c", "a3c", "sub4c", "ivc", "subao",
    "supao", "pw", "cw", "mmode", "other",
]  # fmt: skip
Pattern = Annotated[str, Field(min_length=1, max_length=256)]
Patterns = Annotated[tuple[Pattern, ...], Field(min_length=1), BeforeValidator(_in_a_list)]
Doors = Annotated[tuple[Door, ...], Field(min_length=1), BeforeValidator(_in_a_list)]
ViewLabels = Annotated[tuple[ViewLabel, ...], Field(min_length=1), BeforeValidator(_in_a_list)]
Score = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
DestinationNames = Annotated[tuple[Pattern, ...], BeforeValidator(_in_a_list)]


class Rule(Section):
    """A ``[[rules]]``: where all its conditions fit, its actions are done; see docs/rules.md."""

    name: Annotated[str, AfterValidator(_destination_name)] = Field(description="unique")
    calling_ae: Patterns | None = Field(None, description="patterns of the sender's AE title")
    called_ae: Patterns | None = Field(None, description="patterns of the AE title it called")
    door: Doors | None = Field(None, description="doors by which it came")
    modality: Patterns | None = Field(None, description="patterns of Modality")
    description: Patterns | None = Field(None, description="patterns of Study Description")
    series_description: Patterns | None = Field(None, description="patterns of Series Description")
    manufacturer: Patterns | None = Field(None, description="patterns of Manufacturer")
    model: Patterns | None = Field(None, description="patterns of Manufacturer's Model Name")
    view: ViewLabels | None = Field(None, description="views of the clip")
    score_at_least: Score | None = Field(None, description="least score of the clip's view")
    score_below: Score | None = Field(None, description="its score is below this")
    analyse: bool | None = Field(None, description="whether the models read the clip")
    packs: Patterns | None = Field(None, description="names of the packs that read it")
    destinations: DestinationNames | None = Field(
        None, description="names of destinations that get the study's results"
    )
    urgency: int | None = Field(None, ge=-1000, le=1000, description="of the study, higher first")

    @model_validator(mode="after")
    def _says_something_that_can_be_done(self) -> Self:
        of_study = [name for name in ("destinations", "urgency") if self._names(name)]
        of_clip = [name for name in ("analyse", "packs") if self._names(name)]
        by_view = [name for name in ("view", "score_at_least", "score_below") if self._names(name)]
        if not of_study and not of_clip:
            raise ValueError(
                f"{self.name!r} does nothing: write analyse, packs, destinations or urgency"
            )
        if of_study and by_view:
            raise ValueError(
                f"{self.name!r}: {of_study[0]} is of a whole study, and {by_view[0]} of one clip; "
                "write two rules"
            )
        if self.analyse is False and self.packs is not None:
            raise ValueError(f"{self.name!r}: with analyse = false no pack runs; leave out packs")
        low, high = self.score_at_least, self.score_below
        if low is not None and high is not None and low >= high:
            raise ValueError(f"{self.name!r}: no score is at least {low:g} and below {high:g}")
        return self

    def _names(self, key: str) -> bool:
        return getattr(self, key) is not None


class ClusterTls(Section):
    """``[analysis.tls]``: who we are in the cluster, and who says who belongs to it."""

    authorities: AbsolutePath = Field(
        description="PEM: the cluster's own authority; whoever it vouches for may run code"
    )
    certificate: AbsolutePath = Field(description="PEM: ours, for calling and for being called")
    private_key: AbsolutePath = Field(description="PEM: the certificate's key, without a password")


class AnalysisSettings(Section):
    """``[analysis]``: where clips are read, and what may be reported."""

    executor: Annotated[str, AfterValidator(_executor)] = Field(
        "processes",
        description='where clips are read: "processes" of this machine, or "dask://host:port"',
    )
    tls: ClusterTls | None = Field(None, description="TLS in the cluster; off this machine always")
    send_bytes: bool = Field(
        True, description="a clip travels with its job; otherwise workers read the store"
    )
    device: Literal["cpu", "gpu"] = Field(
        "cpu", description="the workers of a cluster that read clips: those without a GPU, or with"
    )
    workers: int = Field(
        default_factory=lambda: max(1, (os.cpu_count() or 1) - 1),
        ge=1,
        le=256,
        description="worker processes; the default leaves one core free",
    )
    allow_simulated_evidence: bool = Field(
        False, description="also report outputs that have only seen the simulator"
    )
    person_estimates: tuple[PersonEstimate, ...] = Field(
        (),
        description='also report these estimates of the person: "age", "sex", "weight", "height"',
    )
    ahead: bool = Field(
        True, description="read clips while their study still arrives, where nothing else waits"
    )
    time_limit_s: Seconds = Field(600.0, description="longest time for one clip")
    max_attempts: int = Field(3, ge=1, le=100, description="tries before a clip has failed")
    packs: tuple[AbsolutePath, ...] = Field(
        (), description="folders of packs beside the shipped ones"
    )
    prepared: AbsolutePath | None = Field(
        None, description="networks as they run, for a quick start; by default prepared in data_dir"
    )

    @property
    def cluster(self) -> str | None:
        """``host:port`` of the scheduler; None where clips are read on this machine."""
        return cluster_address(self.executor)

    @model_validator(mode="after")
    def _in_the_clear_only_here(self) -> Self:
        if self.cluster is not None and self.tls is None:
            host = urlsplit(self.executor).hostname or ""
            if not is_loopback(host):
                raise ValueError(
                    f"executor: whoever speaks to the cluster at {host} can run code in it and in "
                    "the node: write [analysis.tls] with authorities, certificate and private_key"
                )
        return self


class CaptureSettings(Section):
    """``[capture]``: the pictures, saliency cines and the summary page."""

    summary_page: bool = Field(True, description="also send a page of each study's results")
    jpeg_quality: int = Field(70, ge=40, le=95, description="of each frame: size against grain")
    frames_per_second: float = Field(
        30.0, ge=5.0, le=1000.0, description="of a faster clip frames are left out"
    )


class DeliverySettings(Section):
    """``[delivery]``: the pauses between tries, and when to give up."""

    first_pause_s: Seconds = Field(10.0, description="pause after the first failed try")
    longest_pause_s: Seconds = Field(900.0, description="pauses double up to this")
    give_up_after_s: Seconds = Field(259_200.0, description="age at which a delivery has failed")
    ask_again_after_s: Seconds = Field(
        604_800.0, description="age at which a refused SOP class is asked for anew"
    )


class WebhookSettings(Section):
    """``[alerts.webhook]``: an address that takes alerts as JSON, by POST."""

    url: Annotated[str, AfterValidator(webhook_url)] | None = Field(
        None, description="where alerts go"
    )
    url_file: AbsolutePath | None = Field(
        None, description="file with the address, where the address itself is a secret"
    )
    token_file: AbsolutePath | None = Field(None, description="file with a bearer token")
    token_variable: Variable | None = Field(None, description="variable with a bearer token")
    tls: ClientTls | None = Field(
        None, description="whom to believe; by default the system's authorities"
    )
    timeout_s: Seconds = Field(10.0, description="longest wait for an answer")

    @model_validator(mode="after")
    def _one_address(self) -> Self:
        if (self.url is None) == (self.url_file is None):
            raise ValueError("name url or url_file, one of them")
        if self.token_file is not None and self.token_variable is not None:
            raise ValueError("name token_file or token_variable, not both")
        return self


class MailSettings(Section):
    """``[alerts.mail]``: the mail server that takes alerts, from whom and for whom."""

    host: Host = Field(description="the mail server (SMTP)")
    port: int = Field(587, ge=1, le=65535, description="the mail server's port")
    security: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="none only on this machine"
    )
    tls: ClientTls = ClientTls()
    sender: MailAddress = Field(description="from whom")
    to: tuple[MailAddress, ...] = Field(min_length=1, description="for whom")
    user: str | None = Field(None, min_length=1, description="name to show with a password")
    password_file: AbsolutePath | None = Field(None, description="file with the user's password")
    password_variable: Variable | None = Field(None, description="variable with that password")
    timeout_s: Seconds = Field(30.0, description="longest wait for an answer")

    @model_validator(mode="after")
    def _password_is_kept(self) -> Self:
        if self.security == "none" and not is_loopback(self.host):
            raise ValueError('security = "none" is for a server on this machine; use "starttls"')
        named = [one for one in (self.password_file, self.password_variable) if one is not None]
        if len(named) > 1 or (self.user is None) != (not named):
            raise ValueError("user and password_file or password_variable belong together")
        return self


class AlertsSettings(Section):
    """``[alerts]``: when somebody is told that the node is in trouble, and how."""

    queue_older_than_s: Seconds = Field(1800.0, description="age of a waiting clip that is told")
    destination_down_after_s: Seconds = Field(
        1800.0, description="time in which a destination that is tried takes nothing"
    )
    failures_within_s: Seconds = Field(
        3600.0, description="what failed in this time is told, and over when nothing did"
    )
    pause_s: Seconds = Field(
        300.0, description="a trouble is over when it was not seen for so long"
    )
    webhook: WebhookSettings | None = None
    mail: MailSettings | None = None


class NodeSettings(Section):
    """``[node]``: this node among others that share its database."""

    name: str = Field(
        default_factory=lambda: re.sub(r"[^\w.-]", "-", socket.gethostname(), flags=re.A)[:48],
        min_length=1,
        max_length=48,
        pattern=r"^[A-Za-z0-9._-]+$",
        description="1 to 48 letters, digits, dots, dashes or underscores: one for each node",
    )
    lease_s: float = Field(
        30.0, ge=2, le=600, description="silence after which others go on with this node's work"
    )


class LogSettings(Section):
    """``[log]``: what goes to stderr, and how."""

    level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level")
    format: Literal["auto", "console", "json"] = Field(
        "auto", description="auto: console on a terminal, otherwise JSON"
    )
