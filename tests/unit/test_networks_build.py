"""Networks are built by name, and refuse settings that cannot work."""

from __future__ import annotations

import numpy as np
import pytest

from models.networks import NETWORKS, build_network
from models.packs import InputSpec


def test_an_unknown_network_is_named_beside_the_known_ones() -> None:
    with pytest.raises(KeyError, match=r"resnet.*there are .*unet"):
        build_network("resnet", InputSpec(rows=64, columns=64), {})


def test_the_registry_names_functions_that_exist() -> None:
    from importlib import import_module

    for where in NETWORKS.values():
        module, function = where.split(":")
        assert callable(getattr(import_module(module), function))


def test_the_unet_gives_a_logit_of_each_class_for_each_pixel() -> None:
    network = build_network(
        "unet", InputSpec(rows=64, columns=96), {"classes": 4, "widths": (4, 8, 8)}
    )
    logits = np.asarray(network(np.zeros((2, 64, 96, 1), np.float32)))
    assert logits.shape == (2, 64, 96, 4)
    assert np.isfinite(logits).all()


def test_several_members_give_the_mean_of_their_logits_and_hold_weights_in_turn() -> None:
    spec, settings = InputSpec(rows=32, columns=32), {"classes": 4, "widths": (4, 8)}
    singles = [build_network("unet", spec, settings) for _ in range(2)]
    both = build_network("unet", spec, {**settings, "members": 2})
    both.set_weights([weight for single in singles for weight in single.get_weights()])
    frames = np.random.default_rng(5).normal(size=(3, 32, 32, 1)).astype(np.float32)
    one, two = (np.asarray(single(frames, training=False)) for single in singles)
    assert np.abs(one - two).max() > 0.01
    np.testing.assert_allclose(np.asarray(both(frames, training=False)), (one + two) / 2, atol=1e-5)


def test_the_unet_refuses_an_input_that_its_levels_do_not_divide() -> None:
    with pytest.raises(ValueError, match=r"divisible by 8, not 60 x 96"):
        build_network("unet", InputSpec(rows=60, columns=96), {"classes": 4, "widths": (4, 8, 8)})


def test_inception_resnet_has_the_stages_of_the_paper() -> None:
    """Grid sizes and channels at 299 x 299 of the published layer list, at a tenth of them."""
    network = build_network(
        "inception_resnet_v1", InputSpec(rows=299, columns=299), {"outputs": 3, "width": 0.125}
    )
    shapes = {layer.output.shape[1:] for layer in network.layers}
    assert {(35, 35, 32), (17, 17, 112), (8, 8, 224), (3,)} <= shapes
    convolutions = [layer for layer in network.layers if layer.__class__.__name__ == "Conv2D"]
    # Stem 6; blocks 5 x 7, 10 x 5, 6 x 5; reductions 4 and 7.
    assert len(convolutions) == 6 + 5 * 7 + 4 + 10 * 5 + 7 + 6 * 5


@pytest.mark.parametrize(("rows", "width"), [(74, 1.0), (299, 0.0)])
def test_inception_resnet_refuses_what_leaves_nothing(rows: int, width: float) -> None:
    with pytest.raises(ValueError, match="at least 75 x 75"):
        build_network(
            "inception_resnet_v1",
            InputSpec(rows=rows, columns=rows),
            {"outputs": 1, "width": width},
        )


def test_a_setting_that_does_not_exist_is_refused() -> None:
    with pytest.raises(TypeError, match="colour"):
        build_network("unet", InputSpec(rows=64, columns=64), {"classes": 4, "colour": 1})
