"""Readers give a clip's findings with interval, evidence and frames, or the reason why not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models import readers
from models.clip import Clip, PixelSpacing, read_clip
from models.data.cines import Heart
from models.finding import Evidence, Finding, Method
from models.networks import build_network
from models.packs import InputSpec, Pack, PackError, load_pack, write_pack
from models.readers import RegressionReader, TracingReader
from models.readers import tracing as tracing_reader

_PACKS = Path(readers.__file__).parents[1] / "packs"


def _manifest(kind: str, network: str, settings: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "version": "1.0.0",
        "kind": kind,
        "title": "tiny",
        "network": {"name": network, "settings": settings},
        "licence": "none",
        "trained_on": "nothing",
        "training_command": "none",
        **more,
    }


def _output(name: str, unit: str, **more: Any) -> dict[str, Any]:
    fields = {"kind": "measurement", "evidence": "simulated", "tested_on": "nothing"}
    return {"name": name, "unit": unit, **fields, **more}


@pytest.fixture(scope="module")
def regression(tmp_path_factory: pytest.TempPathFactory) -> RegressionReader:
    """Its first output is the brightness of the frame, its second 40, the third a score."""
    settings = {"outputs": 4, "width": 0.03}
    spec = InputSpec(rows=75, columns=75, frames=20, interval_ms=100.0)
    network = build_network("inception_resnet_v1", spec, settings)
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    network.get_layer("numbers").bias.assign([50.0, 0.2, -1.0, 200.0])
    outputs = [
        _output("ef", "%", low_error=-60.0, high_error=8.0, needs_motion=True),
        _output("edv", "mL", scale=10.0, pixel_power=3),
        _output("lvh", "{score}", kind="score", threshold=0.5),
        _output("esv", "mL", offset=900.0),
    ]
    manifest = _manifest("regression", "inception_resnet_v1", settings, outputs=outputs)
    folder = tmp_path_factory.mktemp("packs") / "tiny"
    return RegressionReader(write_pack(folder, {**manifest, "input": spec.model_dump()}, network))


@pytest.fixture(scope="module")
def lv() -> TracingReader:
    return TracingReader(load_pack(_PACKS / "lv"))


def _clip(frames: int = 60, *, spacing_mm: float | None = 2.0, frame_time_ms: float = 40.0) -> Clip:
    greys = np.random.default_rng(0).integers(1, 255, (frames, 150, 150)).astype(np.uint8)
    return Clip.from_frames(greys, frame_time_ms=frame_time_ms, spacing_mm=spacing_mm)


def _named(findings: tuple[Finding, ...]) -> dict[str, Finding]:
    return {finding.output: finding for finding in findings}


def test_a_regression_reads_twenty_frames_a_tenth_of_a_second_apart(
    regression: RegressionReader,
) -> None:
    reading = regression.read(_clip(60))
    assert reading.frames[:4] == (0, 2, 5, 7)
    assert len(reading.frames) == 20
    assert all(len(values) == 20 for values in reading.per_frame.values())


def test_a_finding_carries_value_interval_unit_evidence_and_frames(
    regression: RegressionReader,
) -> None:
    found = _named(regression.read(_clip()).findings)["ef"]
    assert found.value == pytest.approx(50.0)
    assert (found.low, found.high) == (0.0, pytest.approx(58.0))  # never below what can be
    assert found.unit == "%"
    assert found.method is Method.REGRESSION
    assert found.evidence is Evidence.SIMULATED
    assert found.pack == regression.pack.ref
    assert set(found.frames) <= set(range(60))


def test_a_score_comes_with_its_threshold(regression: RegressionReader) -> None:
    found = _named(regression.read(_clip()).findings)["lvh"]
    assert found.score == pytest.approx(1 / (1 + np.e))
    assert found.threshold == 0.5
    assert found.method is Method.CLASSIFICATION


def test_a_score_that_is_no_better_than_chance_gives_no_verdict(
    regression: RegressionReader,
) -> None:
    pack = regression.pack
    outputs = tuple(
        output.model_copy(update={"caution": "not shown to be better than chance"})
        for output in pack.manifest.outputs
    )
    manifest = pack.manifest.model_copy(update={"outputs": outputs})
    doubted = RegressionReader(replace(pack, manifest=manifest))

    plain, said = (_named(one.read(_clip()).findings)["lvh"] for one in (regression, doubted))

    assert said.score == plain.score
    assert plain.threshold is not None
    assert said.threshold is None


def test_a_volume_grows_with_the_cube_of_the_pixel(regression: RegressionReader) -> None:
    # 150 pixels become 75: a network pixel is two of the clip's, 4 mm, and 2 * 4 ** 3 = 128 mL.
    small, large = (
        _named(regression.read(_clip(spacing_mm=side)).findings)["edv"].value for side in (2.0, 2.5)
    )
    assert small == pytest.approx(128.0, rel=0.03)
    assert large == pytest.approx(128.0 * 1.25**3, rel=0.03)


def test_without_a_scale_a_volume_is_refused_and_the_ratio_stays(
    regression: RegressionReader,
) -> None:
    reading = regression.read(_clip(spacing_mm=None))
    refused = {refusal.output: refusal.reason for refusal in reading.refusals}
    assert refused["edv"] == "none was given"
    assert "ef" in _named(reading.findings)
    assert np.isnan(reading.per_frame["edv"]).all()


def test_a_value_that_cannot_be_is_refused(regression: RegressionReader) -> None:
    refused = {one.output: one.reason for one in regression.read(_clip()).refusals}
    assert refused["esv"] == "1.1e+03 mL is outside the plausible range of 3 to 450 mL"


def test_a_still_gives_no_ejection_fraction(regression: RegressionReader) -> None:
    reading = regression.read(_clip(1))
    refused = {one.output: one.reason for one in reading.refusals}
    assert "a still shows one moment" in refused["ef"]
    assert "lvh" in _named(reading.findings)


def test_a_clip_of_two_frames_is_read_whole(regression: RegressionReader) -> None:
    assert regression.read(_clip(2)).frames == (0, 1)
    assert regression.read(_clip(9)).frames == (0, 2, 4, 6, 8)


def test_an_untrained_tracing_is_refused_with_the_reason(tmp_path: Path) -> None:
    spec = InputSpec(rows=32, columns=32)
    settings = {"classes": 4, "widths": [4, 4]}
    manifest = _manifest("tracing", "unet", settings, input=spec.model_dump())
    manifest["outputs"] = [_output("ef", "%", needs_motion=True), _output("la_area", "cm2")]
    network = build_network("unet", spec, settings)
    network.set_weights([np.zeros_like(weight) for weight in network.get_weights()])
    pack = write_pack(tmp_path / "p", manifest, network)
    reading = TracingReader(pack).read(_clip(12))
    assert not reading.findings
    assert {refusal.output for refusal in reading.refusals} == {"ef", "la_area"}
    assert all("no left-ventricular cavity" in refusal.reason for refusal in reading.refusals)
    assert reading.masks.shape == (12, 150, 150)
    assert reading.volumes_ml is None


def test_a_long_clip_is_thinned_over_its_first_ten_seconds() -> None:
    times = np.arange(4000) * 5.0
    frames = tracing_reader._thinned(times)
    assert len(frames) == readers.MOST_FRAMES
    assert frames[0] == 0
    assert times[frames[-1]] == 10_000.0
    assert tracing_reader._thinned(np.arange(60) * 33.3) == tuple(range(60))


def test_a_reader_takes_only_packs_of_its_kind_and_preprocessing(
    regression: RegressionReader,
) -> None:
    with pytest.raises(PackError, match="TracingReader reads 'tracing'"):
        TracingReader(regression.pack)
    manifest = regression.pack.manifest
    later = Pack(
        folder=regression.pack.folder, manifest=manifest.model_copy(update={"preprocessing": 99})
    )
    with pytest.raises(PackError, match="preprocessing version 99"):
        RegressionReader(later)
    outputs = (manifest.outputs[0].model_copy(update={"name": "mood"}),)
    unknown = Pack(
        folder=regression.pack.folder, manifest=manifest.model_copy(update={"outputs": outputs})
    )
    with pytest.raises(PackError, match=r"'mood' is not in models\.tasks"):
        RegressionReader(unknown)


def test_the_shipped_tracing_measures_a_patients_cine(lv: TracingReader, shared_data: Path) -> None:
    from models.data.camus import read_camus

    patient = read_camus(shared_data / "camus_a4c", "valid")[0]
    times = np.arange(24) * 50.0
    frames = np.stack([one.grey for one in Heart(patient).cine(times, heart_rate_bpm=75)])
    side_mm = (patient.ed.row_mm * patient.ed.column_mm) ** 0.5
    clip = Clip.from_frames(frames, frame_time_ms=50.0, spacing_mm=side_mm)
    reading = lv.read(clip)
    found = _named(reading.findings)
    assert found["ef"].value == pytest.approx(patient.ef_percent, abs=12)
    assert found["edv"].value == pytest.approx(patient.edv_ml, rel=0.25)
    assert found["edv"].low < found["edv"].value < found["edv"].high
    assert found["ef"].evidence is Evidence.PATIENTS
    assert found["ef"].method is Method.SINGLE_PLANE_DISCS
    assert found["ef"].frames == (reading.ed_frames[0], reading.es_frames[0])
    assert abs(times[reading.es_frames[0]] - 0.33 * 800) <= 110
    assert reading.masks.shape == (24, *clip.sector.mask.shape)
    assert reading.volumes_ml is not None


def test_the_same_clip_without_a_scale_keeps_its_fraction(
    lv: TracingReader, shared_data: Path
) -> None:
    from dataclasses import replace

    from models.data.camus import read_camus

    patient = read_camus(shared_data / "camus_a4c", "valid")[1]
    frames = np.stack([patient.ed.grey, patient.es.grey])
    scaled = Clip.from_frames(frames, frame_time_ms=1000, spacing_mm=0.6)
    unknown = replace(
        scaled,
        spacing=PixelSpacing(row_mm=0.6, column_mm=0.6, trusted=False, reason="regions disagree"),
    )
    one, two = lv.read(scaled), lv.read(unknown)
    assert _named(one.findings)["ef"].value == pytest.approx(_named(two.findings)["ef"].value)
    assert {refusal.output: refusal.reason for refusal in two.refusals} == {
        "edv": "regions disagree",
        "esv": "regions disagree",
        "la_area": "regions disagree",
        "la_volume": "regions disagree",
    }
    assert two.volumes_ml is None
    assert two.volumes is not None


def test_both_shipped_packs_read_the_bundled_cine_of_another_maker(lv: TracingReader) -> None:
    import pydicom.examples

    clip = read_clip(Path(pydicom.examples.get_path("ybr_color")))
    traced = _named(lv.read(clip).findings)
    assert 30 < traced["ef"].value < 80
    read = _named(RegressionReader(load_pack(_PACKS / "echonet")).read(clip).findings)
    assert 20 < read["ef"].value < 80
