"""The public validators and readers, and what they may say: `tests/judges/allowed.toml`."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.peers import require

ALLOWED = Path(__file__).parent / "judges" / "allowed.toml"
_PIXELMED_JAR = Path("/usr/share/java/pixelmed.jar")


@dataclass
class Allowances:
    """The listed complaints, and which of them were needed."""

    entries: Mapping[str, list[dict[str, str]]]
    needed: set[tuple[str, str]] = field(default_factory=set)

    def unlisted(self, judge: str, lines: Sequence[str]) -> list[str]:
        """The lines that no entry allows."""
        left = []
        for line in lines:
            matching = [
                entry["says"]
                for entry in self.entries[judge]
                if re.fullmatch(entry["says"].strip(), line.strip())
            ]
            self.needed.update((judge, says) for says in matching)
            if not matching:
                left.append(line)
        return left

    def unneeded(self, judge: str) -> list[str]:
        """The entries that no line needed."""
        return [
            entry["says"]
            for entry in self.entries[judge]
            if (judge, entry["says"]) not in self.needed
        ]


def read_allowances() -> Allowances:
    """The listed complaints."""
    return Allowances(tomllib.loads(ALLOWED.read_text()))


def errors(lines: Sequence[str]) -> list[str]:
    """What a judge calls an error, whatever the list allows."""
    return [line for line in lines if re.match(r"(Error|[EF]:)", line)]


def dciodvfy(path: Path) -> list[str]:
    """dicom3tools' validator: attributes, types, values, value multiplicities, relations."""
    return _run("dciodvfy", path).stderr.splitlines()


def dsrdump(path: Path) -> list[str]:
    """What DCMTK's reader of Structured Reports complains of."""
    said = _run("dsrdump", path).stderr.splitlines()
    return [line for line in said if re.match(r"[WEF]: ", line)]


def dcentvfy(*paths: Path) -> list[str]:
    """dicom3tools' comparison of what objects say of the same patient, study and series."""
    return _run("dcentvfy", *paths).stderr.splitlines()


def pixelmed(path: Path) -> list[str]:
    """PixelMed's validator of templates. It takes one file, and seconds for each."""
    java = require("java")
    if not _PIXELMED_JAR.exists():
        reason = f"no {_PIXELMED_JAR} (Debian package pixelmed-apps)"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
    # The packaged wrapper meets Java 17's limits on the size of an expression.
    # The first compiler only: a run is too short to win back what the second one costs.
    quick = ["-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"]
    limits = [f"-Djdk.xml.xpath{name}Limit=0" for name in ("TotalOp", "ExprOp", "ExprGrp")]
    done = subprocess.run(
        [java, *quick, *limits, "-cp", str(_PIXELMED_JAR), "com.pixelmed.validate.DicomSRValidator",
         str(path)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
    lines = [*done.stdout.splitlines(), *done.stderr.splitlines()]
    assert any("IOD validation complete" in line for line in lines), lines
    return lines


def _run(program: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [require(program), *map(str, paths)],
        capture_output=True, text=True, errors="replace", check=False,
    )  # fmt: skip
