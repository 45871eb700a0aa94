"""Networks of ECGs are those of the papers, and run settled as they were trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

keras = pytest.importorskip("keras")
import tensorflow as tf  # noqa: E402  Keras chooses its backend first.

from models.ecg.recording import INDEPENDENT  # noqa: E402
from models.networks import LAST_BLOCK, build_network  # noqa: E402
from models.networks.folding import folded, settled  # noqa: E402
from models.packs import InputSpec, WaveformInput  # noqa: E402
from models.packs.prepared import PreparedGraphs  # noqa: E402

_RIBEIRO = WaveformInput(samples=4096, rate_hz=400.0)
_RHYTHM = WaveformInput(samples=5000, rate_hz=500.0, leads=INDEPENDENT)
_SMALL = WaveformInput(samples=256, rate_hz=100.0, leads=("I", "II"))


def _stirred(network: keras.Model) -> keras.Model:
    """Statistics as training leaves them: none is zero or one."""
    rng = np.random.default_rng(7)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            for variable in layer.weights:
                variable.assign(rng.uniform(0.5, 1.5, variable.shape).astype(np.float32))
    return network


def _signals(spec: WaveformInput = _SMALL, count: int = 3) -> NDArray[np.float32]:
    shape = (count, spec.samples, len(spec.leads))
    return np.random.default_rng(3).normal(size=shape).astype(np.float32)


def test_ribeiros_network_has_the_published_units() -> None:
    """Samples and filters after each unit; Nature Communications 11:1760, Fig. 3."""
    network = build_network("ribeiro", _RIBEIRO, {})
    sums = [layer.output.shape[1:] for layer in network.layers if "add" in layer.name]
    assert sums == [(1024, 128), (256, 196), (64, 256), (16, 320)]
    assert network.output_shape == (None, 6)
    assert network.count_params() == pytest.approx(6.4e6, rel=0.01)


def test_the_ecgradcam_network_has_the_published_number_of_weights() -> None:
    """1.65 million; Scientific Reports 11:10949."""
    network = build_network("ecgradcam", _RHYTHM, {"outputs": 1})
    assert network.count_params() == pytest.approx(1.65e6, rel=0.002)
    kernels = [layer.kernel_size for layer in network.layers if hasattr(layer, "kernel_size")]
    assert kernels == [(8,), (3,), *[(50,)] * 16]


@pytest.mark.parametrize("name", ["ribeiro", "ecgradcam"])
def test_the_last_block_is_the_last_activation_that_keeps_the_moments(name: str) -> None:
    network = build_network(name, _SMALL, {"outputs": 2, "width": 0.125})
    block = network.get_layer(LAST_BLOCK)
    assert len(block.output.shape) == 3
    after = network.layers[network.layers.index(block) + 1 :]
    assert all("conv" not in layer.name for layer in after)
    assert np.asarray(block.output.shape[1:]).min() > 0


@pytest.mark.parametrize("name", ["ribeiro", "ecgradcam"])
def test_a_width_scales_the_filters_and_none_may_be_left_without(name: str) -> None:
    half, full = (
        build_network(name, _SMALL, {"outputs": 2, "width": width}).count_params()
        for width in (0.25, 0.5)
    )
    assert 3.0 < full / half < 4.5
    with pytest.raises(ValueError, match="leaves no filter"):
        build_network(name, _SMALL, {"outputs": 2, "width": 0.001})


def test_a_signal_that_cannot_be_divided_is_refused() -> None:
    spec = WaveformInput(samples=5000, rate_hz=500.0)
    with pytest.raises(ValueError, match=r"multiple of 256, not 5000"):
        build_network("ribeiro", spec, {})


@pytest.mark.parametrize(("name", "spec"), [("unet", _SMALL), ("ribeiro", "frames")])
def test_a_network_refuses_the_other_kind_of_input(name: str, spec: WaveformInput | str) -> None:
    given = InputSpec(rows=32, columns=32) if isinstance(spec, str) else spec
    with pytest.raises(ValueError, match=r"(frames of a clip|samples of an ECG), and the input is"):
        build_network(name, given, {})


@pytest.mark.parametrize("name", ["ribeiro", "ecgradcam"])
def test_a_network_says_the_same_with_its_normalisation_folded(name: str) -> None:
    network = _stirred(build_network(name, _SMALL, {"outputs": 2, "width": 0.125}))
    wanted = network(_signals(), training=False)

    left = [
        layer
        for layer in folded(network).layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]

    # Behind each of Ribeiro's sums stands one, which has no convolution before it.
    assert len(left) == (4 if name == "ribeiro" else 0)
    run = tf.function(settled(network))
    np.testing.assert_allclose(run(tf.constant(_signals())), wanted, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", ["ribeiro", "ecgradcam"])
def test_a_network_is_kept_as_it_runs(name: str, tmp_path: Path) -> None:
    network = _stirred(build_network(name, _SMALL, {"outputs": 2, "width": 0.125}))
    graphs = PreparedGraphs(folder=tmp_path, name=name, made_of="this")
    shape = (None, *network.input_shape[1:])

    made = graphs.function("forward", lambda: settled(network), shape)

    assert list(tmp_path.glob("*.graph"))

    def never() -> Callable[..., Any]:
        raise AssertionError("it was made anew")

    kept = graphs.function("forward", never, shape)
    np.testing.assert_array_equal(kept(tf.constant(_signals())), made(tf.constant(_signals())))
