"""Which file has the settings, and what it says before anything is checked.

Apart from :mod:`node.settings`, so that a command which only needs to find the data folder starts
without the machinery that checks every key.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

DEFAULT_FILE = Path("echonode.toml")
DEFAULT_DATA_DIR = Path("var/echonode")
ENV_PREFIX = "ECHONODE_"
FILE_VARIABLE = f"{ENV_PREFIX}CONFIG"  #: names the file, which the command line reads


class SettingsError(Exception):
    """Settings cannot be used. ``problems`` has one line for each wrong key or value."""

    def __init__(self, problems: tuple[str, ...]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


def settings_file(path: Path | None = None) -> Path | None:
    """The file that settings are read from, or None where there is none to read.

    Parameters
    ----------
    path
        What was asked for. None: ``echonode.toml`` in the working folder, if it is there.
    """
    if path is not None:
        return path
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def read_settings_file(file: Path) -> dict[str, Any]:
    """What the file says.

    Raises
    ------
    SettingsError
        If it cannot be read or is not TOML.
    """
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(
            (f"{file}: cannot be read: {error.strerror}; name another with --config FILE",)
        ) from error
    except UnicodeDecodeError as error:
        raise SettingsError((f"{file}: is not UTF-8 text, as TOML must be",)) from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsError((f"{file}: is not TOML: {error}",)) from error


def beside(path: str, base: Path) -> Path:
    """A path of the file: meant from the file's folder."""
    return base / Path(path).expanduser()


def data_folder(path: Path | None = None) -> Path:
    """The ``data_dir`` of the settings, as :func:`node.settings.load_settings` would have it.

    Other keys are not looked at.

    Raises
    ------
    SettingsError
        If the file cannot be read, or has something else there than a path.
    """
    for name, value in os.environ.items():
        if name.upper() == f"{ENV_PREFIX}DATA_DIR":
            return Path(value).expanduser().absolute()
    file = settings_file(path)
    written = read_settings_file(file).get("data_dir") if file is not None else None
    if written is None:
        return DEFAULT_DATA_DIR.absolute()
    if file is None or not isinstance(written, str):
        raise SettingsError((f"{file}: data_dir: it should be the path of a folder",))
    return beside(written, file.parent.resolve()).absolute()
