"""Model packs: a folder with a manifest, weights, licence and evidence.

A pack is data and nothing else. Its manifest names a network of :mod:`models.networks` and the
network's settings; its weights are one safetensors file, which cannot carry code. So a pack from
outside loads by the same road as a shipped one.
"""

from models.packs.loading import Pack, PackError, load_pack, shipped_packs, write_pack
from models.packs.manifest import (
    InputSpec,
    Join,
    Link,
    Manifest,
    NetworkSpec,
    OutputSpec,
    PackKind,
)

__all__ = [
    "InputSpec",
    "Join",
    "Link",
    "Manifest",
    "NetworkSpec",
    "OutputSpec",
    "Pack",
    "PackError",
    "PackKind",
    "load_pack",
    "shipped_packs",
    "write_pack",
]
