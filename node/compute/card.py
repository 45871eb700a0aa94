"""What a worker must have in common with the node, so that it finds what the node would find.

Both write a card of what they have. Its fingerprint is part of the name of the resource that a
worker offers and a job of the node asks for, so that the scheduler itself gives a job to no worker
with another card, however briefly that has been there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal, Self

Device = Literal["cpu", "gpu"]

_ROOT = Path(__file__).parents[2]
_CODE = ("models/**/*.py", "node/analysis/*.py", "node/evidence.py", "node/compute/job.py")
_MANIFEST = "manifest.json"
# What decodes and computes; the first that is installed of each.
_LIBRARIES = (
    ("tensorflow", "tensorflow-cpu"),
    ("keras",),
    ("numpy",),
    ("scipy",),
    ("pydicom",),
    ("pillow",),
    ("simplejpeg",),
    ("pyjpegls",),
    ("pylibjpeg-libjpeg",),
    ("pylibjpeg-openjpeg",),
    ("pylibjpeg-rle",),
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Card:
    """Versions, packs and kind of device of a worker, or those that a node wants.

    ``code`` is a digest of the code that reads clips: a version's number stays over many changes.
    ``libraries`` are names and versions of those that decode and compute. ``packs`` are in the
    order in which they are loaded, each as name, version and the digest of its manifest, which
    names the checksum of the weights.
    """

    echonode: str
    code: str
    libraries: tuple[tuple[str, str], ...]
    packs: tuple[tuple[str, str, str], ...]
    device: Device = "cpu"

    @property
    def fingerprint(self) -> str:
        """Sixteen characters that no other card has."""
        whole = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:16]

    @property
    def resource(self) -> str:
        """What a worker with this card offers, once for each of its places."""
        return f"echonode-{self.fingerprint}"

    def plain(self) -> dict[str, Any]:
        """The card as it travels."""
        return asdict(self)

    @classmethod
    def read(cls, told: Any) -> Self | None:
        """A card that came from elsewhere; None where it is none of this version's."""
        try:
            packs = tuple((str(name), str(of), str(digest)) for name, of, digest in told["packs"])
            libraries = tuple((str(name), str(of)) for name, of in told["libraries"])
            return cls(**{**told, "packs": packs, "libraries": libraries})
        except (KeyError, TypeError, ValueError):
            return None

    def differs(self, other: Card) -> str | None:
        """What is different at ``other``, in words; None where nothing is."""
        versions = {"echonode": self.echonode, "echonode's code": self.code, **dict(self.libraries)}
        there = {"echonode": other.echonode, "echonode's code": other.code, **dict(other.libraries)}
        words = [
            f"{name} is {there.get(name)} there, {versions.get(name)} here"
            for name in {**versions, **there}
            if there.get(name) != versions.get(name)
        ]
        words += _packs_differ(self.packs, other.packs)
        if other.device != self.device:
            words.append(
                f"it reads with a {other.device.upper()}, and [analysis] device is "
                f'"{self.device}": the last digits would differ'
            )
        return "; ".join(words) or None


def card_of(folders: Sequence[str | Path], device: Device = "cpu") -> Card:
    """The card of this installation with these packs.

    Raises
    ------
    OSError
        If the manifest of a pack cannot be read.
    """
    packs: dict[str, tuple[str, str, str]] = {}
    for folder in folders:
        text = (Path(folder) / _MANIFEST).read_bytes()
        told = json.loads(text)
        name = str(told.get("name"))
        # One that comes later replaces one of the same name, as in node.analysis.load_packs.
        packs[name] = (name, str(told.get("version")), hashlib.sha256(text).hexdigest())
    return Card(
        echonode=_version("echonode"),
        code=_code(),
        libraries=tuple((names[0], _version(*names)) for names in _LIBRARIES),
        packs=tuple(packs.values()),
        device=device,
    )


def _packs_differ(
    ours: Sequence[tuple[str, str, str]], theirs: Sequence[tuple[str, str, str]]
) -> list[str]:
    here = {name: (of, digest) for name, of, digest in ours}
    there = {name: (of, digest) for name, of, digest in theirs}
    words = [f"pack {name} is not loaded there" for name in here if name not in there]
    words += [f"pack {name} is loaded there and not here" for name in there if name not in here]
    words += [
        f"pack {name} is {_shown(*there[name])} there, {_shown(*here[name])} here"
        for name in here
        if name in there and there[name] != here[name]
    ]
    if not words and tuple(ours) != tuple(theirs):
        words.append("the packs are loaded in another order")
    return words


def _shown(of: str, digest: str) -> str:
    return f"{of} ({digest[:8]})"


def _version(*names: str) -> str:
    for name in names:
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "none"


@cache
def _code() -> str:
    found = hashlib.sha256()
    for pattern in _CODE:
        for source in sorted(_ROOT.glob(pattern)):
            found.update(f"{source.relative_to(_ROOT)}\n".encode())
            found.update(source.read_bytes())
    return found.hexdigest()[:12]
