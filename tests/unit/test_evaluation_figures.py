"""From answers to figures: whose they are, what is left out and why, and in which words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.clip import Clip
from models.data.dataset import Case
from models.evaluation import figures
from models.evaluation.overlap import overlap, surface_distances
from models.evaluation.reading import Answer, Said, traced_by_frames
from models.evaluation.report import (
    DatasetWords,
    Report,
    Untested,
    add_section,
    write_report,
)
from models.finding import Evidence, Finding, Kind, Method, PackRef
from models.packs import PackKind
from models.packs.manifest import OutputSpec
from models.readers import TracingReading
from models.views import View, ViewCall

_EF = OutputSpec(name="ef", kind="measurement", unit="%", evidence="patients", tested_on="")
_LEAD = OutputSpec(
    name="lead", kind="score", unit="{score}", evidence="simulated", tested_on="", threshold=0.5
)
_CLASSES = (View.A4C, View.A2C, View.OTHER)


def _case(patient: str, name: str = "", **more: Any) -> Case:
    def clip() -> Any:
        raise AssertionError("figures need no clip")

    return Case(patient=patient, name=name or patient, clip=clip, **more)


def _answer(patient: str, truth: float, value: float, **more: Any) -> Answer:
    name = more.pop("output", "ef")
    return Answer(
        case=_case(patient, truths={name: truth}),
        said={name: Said(value=value, low=value - 5, high=value + 5)},
        **more,
    )


def _report(**parts: Any) -> Report:
    words = DatasetWords(
        name="clips",
        title="Some clips",
        evidence=Evidence.PATIENTS,
        split="valid",
        patients=3,
        clips=3,
        fingerprint="0" * 64,
        licence="free",
        citation="",
        caveats=(),
    )
    empty: dict[str, Any] = {
        "pack": "tiny",
        "version": "1.0.0",
        "weights_sha256": "0" * 64,
        "kind": PackKind.REGRESSION,
        "dataset": words,
        "measurements": (),
        "scores": (),
        "views": None,
        "structures": (),
        "untested": (),
        "unreadable": {},
    }
    return Report(**{**empty, **parts})


def test_a_patient_s_value_is_the_mean_over_clips() -> None:
    answers = [_answer("a", 60, 50), _answer("a", 60, 66), _answer("b", 40, 41)]
    found = figures.measurement(_EF, answers, draws=20)
    assert found is not None
    assert (found.counts.patients, found.counts.examinations, found.counts.clips) == (2, 2, 3)
    assert found.mae.value == pytest.approx((2 + 1) / 2)
    assert found.bias.value == pytest.approx((-2 + 1) / 2)
    # The interval stands beside a single clip: 60 is not within 50 +- 5, nor within 66 +- 5.
    assert found.interval is not None
    assert found.interval.coverage.value == pytest.approx(1 / 3)
    assert found.interval.width == 10.0


def test_clips_of_a_patient_with_other_truths_are_other_examinations() -> None:
    answers = [_answer("a", 60, 61), _answer("a", 30, 33), _answer("b", 40, 41)]
    found = figures.measurement(_EF, answers, draws=20)
    assert found is not None
    assert (found.counts.patients, found.counts.examinations) == (2, 3)
    assert found.mae.value == pytest.approx((1 + 3 + 1) / 3)


def test_cases_without_a_truth_are_not_counted_and_refused_ones_are_with_the_reason() -> None:
    answers = [
        _answer("a", 60, 61),
        _answer("b", 50, 52),
        Answer(case=_case("c"), said={"ef": Said(value=10.0)}),
        Answer(case=_case("d", truths={"ef": 40.0}), refused={"ef": "a still"}),
        Answer(case=_case("e", truths={"ef": 40.0}), problem="cannot be decoded"),
    ]
    found = figures.measurement(_EF, answers, draws=20)
    assert found is not None
    assert found.counts.patients == 2
    assert found.mae.value == pytest.approx(1.5)
    assert found.counts.refused == {"a still": 1, "cannot be decoded": 1}
    assert figures.measurement(_EF, answers[2:], draws=20) is None


def test_the_farthest_off_come_first() -> None:
    found = figures.measurement(
        _EF,
        [_answer(name, 50, 50 + off) for name, off in zip("abc", (1, -9, 4), strict=True)],
        draws=20,
    )
    assert found is not None
    assert [one.name for one in found.worst] == ["b", "c", "a"]


def test_a_score_on_one_class_cannot_be_measured_and_does_not_warn(tmp_path: Path) -> None:
    answers = [_answer(str(k), 0.0, k / 10, output="lead") for k in range(8)]
    found = figures.score(_LEAD, answers, draws=20)
    assert found is not None
    assert not found.auc.measured
    assert not found.f1.measured
    assert not found.sensitivity.measured
    assert found.specificity.value == pytest.approx(5 / 8)
    write_report(tmp_path, _report(scores=(found,)))
    page = (tmp_path / "evaluation.md").read_text()
    assert "cannot be measured" in page
    held = json.loads((tmp_path / "evaluation.json").read_text())
    assert held["reports"][0]["scores"][0]["auc"] == [None, None, None]


def test_a_score_without_a_threshold_still_has_a_ranking() -> None:
    answers = [_answer(str(k), float(k > 4), k / 10, output="lead") for k in range(10)]
    found = figures.score(_LEAD.model_copy(update={"threshold": None}), answers, draws=20)
    assert found is not None
    assert found.auc.value == 1.0
    assert not found.f1.measured
    assert not found.sensitivity.measured


def _viewed(patient: str, truth: View | None, chances: Sequence[Sequence[float]]) -> Answer:
    each = np.array(chances)
    mean = each.mean(axis=0)
    best = int(mean.argmax())
    call = ViewCall(view=_CLASSES[best], score=float(mean[best]), certain=bool(mean[best] > 0.6))
    return Answer(case=_case(patient, view=truth), call=call, chances=each)


_VIEWED = (
    _viewed("a", View.A4C, [[0.9, 0.1, 0.0], [0.4, 0.6, 0.0]]),  # right, one frame wrong
    _viewed("b", View.A2C, [[0.7, 0.3, 0.0], [0.9, 0.1, 0.0]]),  # wrong and certain
    _viewed("c", View.OTHER, [[0.2, 0.3, 0.5]]),  # right, uncertain
    _viewed("d", None, [[0.2, 0.3, 0.5]]),  # nobody knows
)


def test_views_are_counted_by_clip_and_by_frame() -> None:
    found = figures.views(_CLASSES, Evidence.PATIENTS, _VIEWED, draws=50)
    assert found is not None
    assert found.counts.clips == 3
    assert found.accuracy.value == pytest.approx(2 / 3)
    assert found.accuracy_of_frames.value == pytest.approx(2 / 5)
    assert found.top_two.value == 1.0
    assert found.certain.value == pytest.approx(2 / 3)
    assert found.accuracy_when_certain.value == pytest.approx(1 / 2)
    assert found.confusion == ((1, 0, 0), (1, 0, 0), (0, 0, 1))
    assert found.confidence_wrong.median == pytest.approx(0.8)
    assert found.worst == ("b: a2c called a4c (0.80)",)
    (a4c,) = [one for one in found.by_view if one.view is View.A4C]
    assert (a4c.clips, a4c.sensitivity.value, a4c.ppv.value) == (1, 1.0, 0.5)
    assert (found.a4c_right.value, found.a4c_found.value) == (0.5, 1.0)
    assert a4c.auc.value == pytest.approx(0.5)  # b is taken for A4C more than a is


def test_views_of_one_class_have_no_auc_and_every_label_right() -> None:
    only = [replace(_VIEWED[0], case=_case(str(k), view=View.A4C)) for k in range(5)]
    found = figures.views(_CLASSES, Evidence.PATIENTS, only, draws=50)
    assert found is not None
    assert found.accuracy.value == 1.0
    assert not found.mean_auc.measured
    assert figures.views(_CLASSES, Evidence.PATIENTS, _VIEWED[3:], draws=50) is None


def test_votes_of_more_frames_are_the_mean_of_the_first_ones() -> None:
    frames = [[0.4, 0.6, 0.0], [0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.8, 0.2, 0.0], [0.5, 0.4, 0.1]]
    answers = [_viewed(str(k), View.A4C, frames) for k in range(3)]
    found = figures.views(_CLASSES, Evidence.PATIENTS, answers, draws=20)
    assert found is not None
    assert [one.first.value for one in found.by_frames] == [0.0, 1.0, 1.0, 1.0, 1.0]


def test_a_tracing_of_few_frames_gives_their_largest_and_smallest_volume() -> None:
    clip = Clip.from_frames(np.full((9, 40, 40), 90, np.uint8), frame_time_ms=50.0)
    volumes = np.array([80.0, 1, 100, 1, 60, 1, 50, 1, 70])  # every other frame is 100 ms on
    pack = PackRef(name="lv", version="1", weights_sha256="")
    findings = tuple(
        Finding(
            output=name,
            value=50.0,
            unit="",
            kind=Kind.MEASUREMENT,
            evidence=Evidence.PATIENTS,
            method=Method.SINGLE_PLANE_DISCS,
            pack=pack,
            frames=(0,),
        )
        for name in ("ef", "edv", "la_area")
    )
    reading = TracingReading(
        findings=findings,
        refusals=(),
        masks=np.zeros((9, 40, 40), np.uint8),
        frame_indices=tuple(range(9)),
        times_ms=np.arange(9) * 50.0,
        volumes_ml=volumes,
        volumes=volumes,
        areas=volumes,
        ed_frames=(2,),
        es_frames=(6,),
    )
    found = traced_by_frames(reading, clip)
    assert set(found) == {"ef", "edv"}
    assert found["edv"][0].tolist() == [80, 100, 100, 100, 100]
    assert found["ef"][0] == pytest.approx([0, 20, 40, 50, 50])
    assert np.all(found["ef"][1][:, -1] == 50)
    assert traced_by_frames(replace(reading, volumes=None), clip) == {}


def test_outlines_a_known_way_apart() -> None:
    one = np.zeros((40, 40), np.bool_)
    two = one.copy()
    one[10:20, 10:20] = True
    two[10:20, 14:24] = True
    mean, hausdorff = surface_distances(one, two, (1.0, 0.5))
    assert hausdorff == pytest.approx(2.0)  # four columns of half a millimetre
    assert 0.0 < mean < 2.0
    assert surface_distances(one, one, (1.0, 1.0)) == (0.0, 0.0)
    assert np.isnan(surface_distances(one, np.zeros_like(one), (1.0, 1.0))).all()


def test_tracings_are_averaged_by_patient_and_told_apart_by_size() -> None:
    classes = ("background", "cavity")
    small, large = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    small[5:10, 5:10], large[5:15, 5:15] = 1, 1
    half = large.copy()
    half[:, 10:] = 0
    right = overlap(small, small, (1.0, 1.0), classes)
    poor = overlap(half, large, (1.0, 1.0), classes)
    unscaled = overlap(small, small, (None, None), classes)
    answers = [
        Answer(case=_case("a"), traced=(right, poor)),
        Answer(case=_case("b"), traced=(unscaled,)),
    ]
    (cavity,) = figures.structures(answers, draws=20)
    assert (cavity.patients, cavity.frames) == (2, 3)
    bad = 2 * 50 / 150
    assert cavity.dice.value == pytest.approx(((1 + bad) / 2 + 1) / 2)
    assert cavity.dice_largest.value == pytest.approx((bad + 1) / 2)
    assert cavity.dice_smallest.value == 1.0
    assert cavity.dice_lowest == pytest.approx(bad)
    assert cavity.hausdorff_mm.measured  # of the patient with a scale
    assert figures.structures([_answer("a", 1, 1)], draws=20) == ()


def test_the_page_says_what_was_not_tested_and_what_is_no_test(tmp_path: Path) -> None:
    found = figures.measurement(_EF, [_answer("a", 60, 61), _answer("b", 50, 48)], draws=20)
    assert found is not None
    report = _report(measurements=(found,), untested=(Untested(output="age", reason="no truth"),))
    held = replace(report, dataset=replace(report.dataset, split="held"))
    write_report(tmp_path, [report, held], plots=False)
    page = (tmp_path / "evaluation.md").read_text()
    assert "- age: no truth" in page
    assert page.count("this is no test") == 1
    assert [one["dataset"]["split"] for one in _held(tmp_path)["reports"]] == ["valid", "held"]


def test_a_section_is_put_in_once_and_replaced(tmp_path: Path) -> None:
    write_report(tmp_path, _report(), plots=False)
    before = (tmp_path / "evaluation.md").read_text()
    for value in (1, 2):
        add_section(
            tmp_path, "checks", title="Checks", lines=[f"value {value}"], data={"value": value}
        )
        add_section(tmp_path, "more", title="More", lines=["and more"], data={})
    page = (tmp_path / "evaluation.md").read_text()
    assert page.startswith(before.rstrip("\n"))
    assert (page.count("## Checks"), page.count("## More")) == (1, 1)
    assert "value 2" in page
    assert "value 1" not in page
    assert _held(tmp_path)["sections"] == {"checks": {"value": 2}, "more": {}}


def test_pictures_are_drawn_alike_and_old_ones_go(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    answers = [
        _answer(str(k), truth, truth + error)
        for k, (truth, error) in enumerate(
            zip(rng.normal(50, 10, 30), rng.normal(0, 5, 30), strict=True)
        )
    ]
    found = figures.measurement(_EF, answers, draws=20)
    assert found is not None
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "evaluation-clips-old.png").write_bytes(b"")
        write_report(tmp_path / folder, _report(measurements=(found,)))
    drawn = [tmp_path / folder / "evaluation-clips-ef.png" for folder in ("one", "two")]
    assert drawn[0].read_bytes() == drawn[1].read_bytes()
    assert not (tmp_path / "one" / "evaluation-clips-old.png").exists()
    with Image.open(drawn[0]) as image:
        assert image.width == 960
        # What is drawn in colour: the points, and the intervals that missed.
        assert len(image.convert("RGB").getcolors(1 << 20) or []) > 20


def _held(folder: Path) -> dict[str, Any]:
    held: dict[str, Any] = json.loads((folder / "evaluation.json").read_text())
    return held
