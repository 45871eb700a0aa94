"""Model packs: a folder with a manifest, weights, licence and evidence.

A pack is data and nothing else. Its manifest names a network of :mod:`models.networks` and the
network's settings, whose weights are one safetensors file, which cannot carry code. Or it brings
a network of its own, a ``.keras`` file or a SavedModel; these can carry code, and so they are
read as data first and refused if they hold anything but arithmetic. Either way it loads by the
same road as a shipped one.
"""

from models.packs.agreement import Agreement, agree
from models.packs.errors import PackError
from models.packs.loading import Pack, load_pack, shipped_packs, write_manifest, write_pack
from models.packs.manifest import (
    Code,
    InputSpec,
    Join,
    KerasFile,
    Link,
    Manifest,
    NetworkSpec,
    OutputSpec,
    PackKind,
    SavedModelFolder,
    Signal,
    WaveformInput,
)

__all__ = [
    "Agreement",
    "Code",
    "InputSpec",
    "Join",
    "KerasFile",
    "Link",
    "Manifest",
    "NetworkSpec",
    "OutputSpec",
    "Pack",
    "PackError",
    "PackKind",
    "SavedModelFolder",
    "Signal",
    "WaveformInput",
    "agree",
    "load_pack",
    "shipped_packs",
    "write_manifest",
    "write_pack",
]
