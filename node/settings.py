"""The settings of the node: ``echonode.toml`` and ``ECHONODE_…`` variables, checked at the start.

An environment variable goes before the file, the file before the defaults here. A variable's name
is the key's path in capitals: ``ECHONODE_DATA_DIR``, ``ECHONODE_DIMSE__PORT``; lists are written
as JSON. Keys that are not known here are refused.
"""

from __future__ import annotations

import difflib
import ipaddress
import os
import re
import types
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self, Union, get_args, get_origin

from pydantic import BaseModel, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict
from pydantic_settings import SettingsError as SourceError

from node.rules import never_decide
from node.sections import (
    KINDS,
    AbsolutePath,
    AlertsSettings,
    AnalysisSettings,
    AuditSettings,
    CaptureSettings,
    DatabaseUrl,
    DeliverySettings,
    Destination,
    DicomwebSettings,
    DimseDestination,
    DimseSettings,
    DiskSettings,
    HttpSettings,
    LogSettings,
    Machine,
    NodeSettings,
    RetentionSettings,
    Rule,
    Source,
    StoreUrl,
    StudySettings,
    WatchedFolder,
)
from node.settings_file import (
    DEFAULT_DATA_DIR,
    ENV_PREFIX,
    FILE_VARIABLE,
    SettingsError,
    beside,
    read_settings_file,
    settings_file,
)

_DELIMITER = "__"
_DEFAULT = "default"
_NEVER_SHOWN = frozenset({"database_url", "store_url", "url"})  #: may carry a password


class Settings(BaseSettings):
    """All settings of a node. Paths are absolute. Made by :func:`load_settings`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter=_DELIMITER,
        extra="forbid",
        frozen=True,
        validate_default=True,
    )

    data_dir: AbsolutePath = Field(DEFAULT_DATA_DIR, description="the node's own folder")
    database_url: DatabaseUrl = Field(
        default_factory=lambda known: f"sqlite:///{known['data_dir']}/echonode.db",
        description="an SQLAlchemy URL; by default a file in data_dir",
        repr=False,
    )
    store_url: StoreUrl = Field("", description="where images and results lie; by default data_dir")
    node: NodeSettings = Field(default_factory=NodeSettings)
    dimse: DimseSettings = DimseSettings()
    machines: tuple[Machine, ...] = Field((), description="echo machines that take reports")
    http: HttpSettings = HttpSettings()
    dicomweb: DicomwebSettings = DicomwebSettings()
    folders: tuple[WatchedFolder, ...] = Field((), description="where files are left for the node")
    disk: DiskSettings = DiskSettings()
    retention: RetentionSettings = RetentionSettings()
    study: StudySettings = StudySettings()
    destinations: tuple[Destination, ...] = Field((), description="where results are sent")
    rules: tuple[Rule, ...] = Field((), description="what is analysed, and what goes where")
    archives: tuple[Source, ...] = Field((), description="what is only read, by `echonode fetch`")
    analysis: AnalysisSettings = Field(default_factory=AnalysisSettings)
    capture: CaptureSettings = CaptureSettings()
    delivery: DeliverySettings = DeliverySettings()
    audit: AuditSettings = AuditSettings()
    alerts: AlertsSettings = AlertsSettings()
    log: LogSettings = LogSettings()

    @property
    def prepared_networks(self) -> Path | None:
        """Where workers keep networks as they run; None where this user can keep none."""
        if self.analysis.prepared is not None:
            return self.analysis.prepared
        return self.data_dir / "prepared" if os.access(self.data_dir, os.W_OK | os.X_OK) else None

    @model_validator(mode="after")
    def _names_are_unique(self) -> Self:
        names = [item.name for item in (*self.destinations, *self.archives)]
        for item in (*self.destinations, *self.archives):
            if names.count(item.name) > 1:
                raise ValueError(f"{item.section}: the name {item.name!r} is used more than once")
        titles = [machine.ae_title for machine in self.machines]
        for title in titles:
            if titles.count(title) > 1:
                raise ValueError(f"machines: the AE title {title!r} is used more than once")
        return self

    @model_validator(mode="after")
    def _folders_lie_apart(self) -> Self:
        own = self.data_dir.resolve()
        places = [folder.path.resolve() for folder in self.folders]
        for number, place in enumerate(places):
            if place.is_relative_to(own) or own.is_relative_to(place):
                raise ValueError(
                    f"folders: {place} must lie apart from data_dir ({own}), where the node keeps "
                    "its own files"
                )
            for other in places[:number]:
                if place.is_relative_to(other) or other.is_relative_to(place):
                    raise ValueError(f"folders: {place} and {other} must lie apart")
        return self

    @model_validator(mode="after")
    def _rules_name_what_is_there(self) -> Self:
        rules = [rule.name for rule in self.rules]
        known = [destination.name for destination in self.destinations]
        for rule in self.rules:
            if rules.count(rule.name) > 1:
                raise ValueError(f"rules: the name {rule.name!r} is used more than once")
            for name in rule.destinations or ():
                if name not in known:
                    raise ValueError(
                        f"rules: {rule.name!r} names the destination {name!r}, and "
                        f"[[destinations]] has {', '.join(map(repr, known)) or 'none'}"
                    )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],  # noqa: ARG003 - the library's signature
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first; what the file says is handed over as keyword arguments."""
        return env_settings, init_settings


def load_settings(path: Path | None = None) -> Settings:
    """Read and check the settings.

    Parameters
    ----------
    path
        The file to read. None reads ``echonode.toml`` in the working folder where there is one,
        and otherwise only the environment.

    Raises
    ------
    SettingsError
        With one line for each wrong key or value.
    """
    file = settings_file(path)
    written = read_settings_file(file) if file is not None else {}
    base = file.parent.resolve() if file is not None else Path.cwd()
    try:
        return Settings(**_with_absolute_paths(written, base))
    except ValidationError as error:
        raise SettingsError(tuple(_lines(error, file, written))) from error
    except SourceError as error:
        raise SettingsError((_unreadable_variable(error),)) from error


def sources(settings: Settings, path: Path | None = None) -> dict[str, str]:
    """Where each value came from: key path to the file, the variable, or ``default``."""
    file = settings_file(path)
    written = read_settings_file(file) if file is not None else {}
    return {
        _dotted(key): _source(key, file, written)
        for key in _leaves(settings.model_dump(mode="json"))
    }


def shown(settings: Settings) -> dict[str, Any]:
    """The settings as plain values for a reader, without secrets."""
    values = settings.model_dump(mode="json")
    values["database_url"] = re.sub(r"//([^:/@]*):[^@/]*@", r"//\1:***@", settings.database_url)
    webhook = values["alerts"]["webhook"]
    if webhook is not None and webhook["url"] is not None:
        # Of many chat servers the path is the key to the room.
        webhook["url"] = re.sub(r"^(\w+://[^/?#]*)[/?#].+$", r"\1/***", webhook["url"])
    return values


def cautions(settings: Settings) -> tuple[str, ...]:
    """What is allowed and hardly meant, a line each: archives cut off, rules never asked."""
    door = settings.dimse
    lines = []
    for one in settings.destinations:
        if not isinstance(one, DimseDestination) or one.commitment == "off":
            continue
        closed = []
        if door.allowed_calling_aes and one.ae_title not in door.allowed_calling_aes:
            closed.append(f"allowed_calling_aes does not name {one.ae_title}")
        if door.allowed_addresses and _is_kept_out(one.host, door.allowed_addresses):
            closed.append(f"allowed_addresses does not name {one.host}")
        if closed:
            lines.append(
                f"destinations: {one.name} is asked for its promise (storage commitment) and could "
                f"not report: [dimse] {' and '.join(closed)}"
            )
    return (*lines, *never_decide(settings.rules))


def _is_kept_out(host: str, networks: Sequence[str]) -> bool:
    """Whether an address is in none of the networks; not known of a host's name."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    return not any(address in ipaddress.ip_network(network) for network in networks)


def unknown_variables() -> tuple[str, ...]:
    """``ECHONODE_…`` variables that name no setting.

    They are told and not refused: Kubernetes sets ``ECHONODE_PORT`` and its like by itself for a
    service of this name.
    """
    known = {name.upper() for name in Settings.model_fields}
    known.add(FILE_VARIABLE.removeprefix(ENV_PREFIX))
    return tuple(
        sorted(
            name
            for name in os.environ
            if name.upper().startswith(ENV_PREFIX)
            and name.upper().removeprefix(ENV_PREFIX).split(_DELIMITER)[0] not in known
        )
    )


def _with_absolute_paths(written: dict[str, Any], base: Path) -> dict[str, Any]:
    """Paths in the file are meant from the file's folder, those of variables from where we are."""
    return {
        name: _beside_file(value, Settings.model_fields[name].annotation, base)
        if name in Settings.model_fields
        else value
        for name, value in written.items()
    }


def _beside_file(value: Any, annotation: Any, base: Path) -> Any:
    """A value of the file with every path in it made absolute, as its type says which are."""
    if isinstance(value, list):
        return [_beside_file(item, annotation, base) for item in value]
    if isinstance(value, dict):
        fields = {
            name: field
            for model in _models(annotation)
            for name, field in model.model_fields.items()
        }
        return {
            name: _beside_file(item, fields[name].annotation, base) if name in fields else item
            for name, item in value.items()
        }
    return beside(value, base) if isinstance(value, str) and _names_path(annotation) else value


def _names_path(annotation: Any) -> bool:
    return annotation is Path or any(_names_path(part) for part in get_args(annotation))


def _lines(error: ValidationError, file: Path | None, written: Mapping[str, Any]) -> Iterator[str]:
    for detail in error.errors(include_url=False):
        if detail["type"] == "default_factory_not_called":
            continue  # only follows from another line
        loc = tuple(detail["loc"])
        # Without the kind that pydantic puts into the path of a destination.
        key = loc[:2] + loc[3:] if len(loc) > 2 and loc[0] in KINDS else loc
        source = _source(key, file, written) if key else _DEFAULT
        place = _place(file) if source == _DEFAULT else source  # a missing key belongs there
        yield ": ".join(filter(None, (place, _dotted(key), _explain(detail, loc))))


def _explain(detail: Mapping[str, Any], key: tuple[int | str, ...]) -> str:
    kind = detail["type"]
    if kind == "extra_forbidden":
        return f"unknown key; {_known_keys(key)}"
    hint = _description(key)
    allowed = f" ({hint})" if hint else ""
    if kind == "missing":
        return f"is missing{allowed}"
    if kind == "union_tag_not_found":
        return 'kind is missing: write kind = "dimse" or kind = "dicomweb"'
    if kind == "union_tag_invalid":
        tag = detail["ctx"]["tag"]
        return f'kind {tag!r} is not known: write kind = "dimse" or kind = "dicomweb"'
    message = str(detail["msg"]).removeprefix("Value error, ").replace("Input should", "it should")
    if kind == "path_type":
        message = "it should be the path of a folder"
    value = detail["input"]
    plain = isinstance(value, (str, int, float, bool, Path))
    if not key or key[-1] in _NEVER_SHOWN or not plain:
        return f"{message}{allowed}"
    return f"{str(value)!r} will not do: {message}{allowed}"


def _known_keys(key: tuple[int | str, ...]) -> str:
    fields = sorted(_model_at(key[:-1]))
    close = difflib.get_close_matches(str(key[-1]), fields, n=1)
    meant = f"did you mean {close[0]!r}? " if close else ""
    return f"{meant}known here: {', '.join(fields)}"


def _model_at(key: tuple[int | str, ...]) -> dict[str, Any]:
    """The fields of the section at ``key``: name to field. Empty where ``key`` is no section."""
    fields: dict[str, Any] = dict(Settings.model_fields)
    for depth, part in enumerate(key):
        if depth == 2 and part in KINDS.get(key[0], ()):
            fields = dict(KINDS[key[0]][part].model_fields)
        elif isinstance(part, str):
            field = fields.get(part)
            models = tuple(_models(field.annotation)) if field is not None else ()
            fields = {name: info for model in models for name, info in model.model_fields.items()}
    return fields


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    elif get_origin(annotation) in (Annotated, Union, types.UnionType, tuple):
        for part in get_args(annotation):
            yield from _models(part)


def _description(key: tuple[int | str, ...]) -> str:
    names = tuple(part for part in key if isinstance(part, str))
    field = _model_at(names[:-1]).get(names[-1]) if names else None
    return "" if field is None or field.description is None else str(field.description)


def _source(key: tuple[int | str, ...], file: Path | None, written: Mapping[str, Any]) -> str:
    names = [str(part) for part in key]
    present = {name.upper() for name in os.environ}
    for length in range(len(names), 0, -1):
        variable = ENV_PREFIX + _DELIMITER.join(names[:length]).upper()
        if variable in present:
            return variable
    value: Any = written
    for part in key:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            return _DEFAULT
    return _place(file)


def _place(file: Path | None) -> str:
    return str(file) if file is not None else "settings"


def _dotted(key: tuple[int | str, ...]) -> str:
    text = ""
    for part in key:
        text += f"[{part + 1}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def _leaves(value: Any, key: tuple[int | str, ...] = ()) -> Iterator[tuple[int | str, ...]]:
    inner: list[tuple[int | str, Any]] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list) and value and isinstance(value[0], dict):
        inner = list(enumerate(value))
    if not inner:
        yield key
    for part, below in inner:
        yield from _leaves(below, (*key, part))


def _unreadable_variable(error: SourceError) -> str:
    found = re.search(r'field "(\w+)"', str(error))
    section = ENV_PREFIX + found.group(1).upper() if found else ENV_PREFIX
    name = " or ".join(sorted(n for n in os.environ if n.upper().startswith(section))) or section
    return f'{name}: is not JSON; write a list as ["A", "B"] and a section as {{"key": "value"}}'
