"""Print the exact versions that constraints.txt pins: what setup.cfg asks for, as installed here.

Run by ``make constraints`` with the interpreter of a working ``.venv``.
"""

from __future__ import annotations

import configparser
import sys
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

_HEADER = "# The versions that echonode is tested with. Made by `make constraints`."


def _asked_for(setup_cfg: Path) -> Iterator[Requirement]:
    config = configparser.ConfigParser()
    config.read(setup_cfg)
    texts = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    for text in texts:
        for line in text.strip().splitlines():
            yield Requirement(line)


def _installed(asked_for: list[Requirement]) -> dict[str, str]:
    """Every package that these need, however deep, with its installed version."""
    versions: dict[str, str] = {}
    seen: set[tuple[str, frozenset[str]]] = set()
    waiting = asked_for
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen or not _applies(requirement, {""}):
            continue
        seen.add(key)
        distribution = metadata.distribution(requirement.name)
        versions[name] = distribution.version
        needed = [Requirement(text) for text in distribution.requires or ()]
        extras = {"", *requirement.extras}
        for need in needed:
            if _applies(need, extras):
                need.marker = None  # the extra that it stood for is settled here
                waiting.append(need)
    return versions


def _applies(requirement: Requirement, extras: set[str]) -> bool:
    marker = requirement.marker
    return marker is None or any(marker.evaluate({"extra": extra}) for extra in extras)


def main() -> None:
    """Print the file."""
    versions = _installed(list(_asked_for(Path("setup.cfg"))))
    lines = [_HEADER, *(f"{name}=={version}" for name, version in sorted(versions.items()))]
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
