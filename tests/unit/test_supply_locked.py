"""Every package that setup.cfg asks for is locked, with a hash for each of its files."""

from __future__ import annotations

import configparser
import re
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
_ENTRY = re.compile(r"^([a-z0-9-]+)==([^ ]+)(?: ; ([^\\]+?))? \\\n((?:    --hash=.*\n)+)", re.M)
_HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}(?: \\)?")


def locked(name: str) -> dict[str, str]:
    """Each package of a lock with its version; fails where a line is no part of an entry."""
    text = (ROOT / name).read_text()
    assert _ENTRY.sub("", text) == "", f"{name} has lines without a version and hashes"
    for entry in _ENTRY.finditer(text):
        assert all(_HASH.fullmatch(line) for line in entry[4].splitlines()), entry[1]
    return {entry[1]: entry[2] for entry in _ENTRY.finditer(text)}


OBJECTS = "requirements-objects.lock"


@pytest.mark.parametrize("name", ["requirements.lock", OBJECTS, "requirements-dev.lock"])
def test_what_setup_cfg_asks_for_is_locked(name: str) -> None:
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    texts = [config["options"]["install_requires"]]
    if name == "requirements-dev.lock":
        texts += config["options.extras_require"].values()
    if name == OBJECTS:
        texts.append(config["options.extras_require"]["objects"])
    versions = locked(name)

    for line in "\n".join(texts).strip().splitlines():
        if not line:
            continue
        asked = Requirement(line)
        version = versions.get(canonicalize_name(asked.name))
        assert version is not None, f"{asked.name} is not locked: run make constraints"
        assert asked.specifier.contains(version, prereleases=True), line
    assert {"setuptools"} <= set(versions), "what builds echonode itself"


def test_all_locks_have_the_same_versions() -> None:
    small, large = locked("requirements.lock"), locked("requirements-dev.lock")
    objects = locked(OBJECTS)

    assert {name: large.get(name) for name in small} == small
    assert {name: large.get(name) for name in objects} == objects
    assert set(small) < set(objects), "the image has all of it and what an object store needs"
