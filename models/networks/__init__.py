"""Architectures and nothing else: from a name and settings to an untrained Keras model.

Networks use Keras layers and ``keras.ops`` only, so that the same pack trains and runs on any
Keras backend. Keras is imported when a network is built, not before.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from models.packs.manifest import InputSpec, WaveformInput

if TYPE_CHECKING:
    import keras

NETWORKS: Mapping[str, str] = {
    "ecgradcam": "models.networks.ecgradcam:ecgradcam",
    "inception_resnet_v1": "models.networks.inception_resnet_v1:inception_resnet_v1",
    "ribeiro": "models.networks.ribeiro:ribeiro",
    "unet": "models.networks.unet:unet",
    "view_cnn": "models.networks.view_cnn:view_cnn",
}
"""Every network by the name that manifests use: its module and function."""


LAST_BLOCK = "last_block"
"""In networks of ECGs, the layer whose activations Grad-CAM weighs: the last residual unit's."""

OF_ECGS = ("ecgradcam", "ribeiro")
"""Those that see samples of an ECG; the others see frames of a clip."""


def build_network(
    name: str, spec: InputSpec | WaveformInput, settings: Mapping[str, Any]
) -> keras.Model:
    """Build a network with fresh weights.

    Each network is a function ``(spec, **settings) -> keras.Model``. One of clips takes
    (batch, spec.rows, spec.columns, 1) float32, one of ECGs (batch, spec.samples, leads).

    Raises
    ------
    KeyError
        If there is no network of this name.
    TypeError, ValueError
        If the settings, or the kind of input, do not suit it.
    """
    try:
        module, function = NETWORKS[name].split(":")
    except KeyError:
        raise KeyError(f"no network {name!r}; there are {', '.join(sorted(NETWORKS))}") from None
    if isinstance(spec, WaveformInput) != (name in OF_ECGS):
        seen = "samples of an ECG" if name in OF_ECGS else "frames of a clip"
        raise ValueError(f"{name} sees {seen}, and the input is of another kind")
    build = getattr(import_module(module), function)
    return build(spec, **settings)
