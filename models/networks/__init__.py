"""Architectures and nothing else: from a name and settings to an untrained Keras model.

Networks use Keras layers and ``keras.ops`` only, so that the same pack trains and runs on any
Keras backend. Keras is imported when a network is built, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from models.packs.manifest import InputSpec

if TYPE_CHECKING:
    import keras

NETWORKS: Mapping[str, str] = {
    "inception_resnet_v1": "models.networks.inception_resnet_v1:inception_resnet_v1",
    "unet": "models.networks.unet:unet",
    "view_cnn": "models.networks.view_cnn:view_cnn",
}
"""Every network by the name that manifests use: its module and function."""


def build_network(name: str, spec: InputSpec, settings: Mapping[str, Any]) -> keras.Model:
    """Build a network with fresh weights.

    Each network is a function ``(spec: InputSpec, **settings) -> keras.Model`` that takes
    (batch, spec.rows, spec.columns, 1) float32.

    Raises
    ------
    KeyError
        If there is no network of this name.
    TypeError, ValueError
        If the settings do not suit it.
    """
    try:
        module, function = NETWORKS[name].split(":")
    except KeyError:
        raise KeyError(f"no network {name!r}; there are {', '.join(sorted(NETWORKS))}") from None
    build = getattr(import_module(module), function)
    return build(spec, **settings)
