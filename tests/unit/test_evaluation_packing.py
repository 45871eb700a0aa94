"""A pack is written with the evidence that its own errors give, and a bad one with bad evidence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from models import networks
from models.clip import Clip, ClipError, Sector
from models.data.dataset import Case
from models.evaluation import figures
from models.evaluation.figures import Score
from models.evaluation.reading import Answer, Said
from models.evaluation.report import add_section, evaluate_pack, write_report
from models.finding import Evidence
from models.packs import InputSpec, OutputSpec, Pack, PackError, PackKind, write_pack
from models.training.both_splits import NOT_BETTER, NOT_BETTER_SCORE, Both, told_of
from models.training.packing import NOT_TESTED, pack_with_evidence, renew_evidence
from models.training.stored import compare_stored

_SPEC = InputSpec(rows=75, columns=75, std=0.5, frames=6, interval_ms=100.0)
_SETTINGS = {"outputs": 3}
_SEEN = np.ones((75, 75), np.bool_)
_SIZES = {"train": 4, "held": 12, "valid": 10}


@dataclass(frozen=True, kw_only=True)
class Greys:
    """Clips whose ejection fraction is their grey, with an error of a few points."""

    evidence: Evidence = Evidence.PATIENTS
    name: str = "greys"
    title: str = "Grey clips"
    licence: str = "free"
    citation: str = ""
    caveats: tuple[str, ...] = ("Grey is no heart.",)
    fingerprint: str = "0" * 64
    outputs: tuple[str, ...] = ("ef", "lead")
    broken: frozenset[str] = field(default_factory=frozenset)

    def cases(self, split: str) -> Sequence[Case]:
        rng = np.random.default_rng(len(split))
        return tuple(
            self._case(f"{split}-{number}", float(grey), float(rng.normal(0.0, 3.0)))
            for number, grey in enumerate(rng.uniform(20, 80, _SIZES[split]))
        )

    def _case(self, name: str, grey: float, error: float) -> Case:
        truths = {"ef": grey + error, "lead": float(grey > 50)}
        return Case(
            patient=name,
            name=name,
            clip=partial(_clip, grey, broken=name in self.broken),
            truths={key: truths[key] for key in self.outputs},
        )


def _clip(grey: float, *, broken: bool) -> Clip:
    if broken:
        raise ClipError("the frames cannot be decoded")
    frames = np.full((8, 75, 75), round(grey * 2.5), np.uint8)
    whole = Sector(top=0, left=0, bottom=75, right=75, mask=_SEEN, source="pixels")
    return Clip.from_frames(frames, frame_time_ms=100.0, sector=whole)


def grey_network(spec: InputSpec, *, outputs: int) -> keras.Model:
    """Its numbers are the mean of what it sees."""
    inputs = keras.Input((spec.rows, spec.columns, 1))
    grey = keras.layers.GlobalAveragePooling2D()(inputs)
    return keras.Model(inputs, keras.layers.Dense(outputs, name="numbers")(grey))


@pytest.fixture(scope="module", autouse=True)
def _known_network() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        name = f"{__name__}:{grey_network.__name__}"
        patch.setattr(networks, "NETWORKS", {**networks.NETWORKS, "grey": name})
        yield


@pytest.fixture(scope="module")
def trained() -> keras.Model:
    model = networks.build_network("grey", _SPEC, _SETTINGS)
    model.get_layer("numbers").set_weights([np.ones((1, 3)), np.zeros(3)])
    return model


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory, trained: keras.Model) -> Pack:
    """A good regressor, packed with its evidence."""
    folder = tmp_path_factory.mktemp("packs") / "grey"
    return pack_with_evidence(
        folder, _manifest(), trained, dataset=Greys(), card="# grey\n", draws=100
    )


def _outputs(pack: Pack) -> dict[str, OutputSpec]:
    return {output.name: output for output in pack.manifest.outputs}


def _manifest(**more: Any) -> dict[str, Any]:
    score = {"kind": "score", "unit": "{score}", "evidence": "simulated", "tested_on": ""}
    return {
        "name": "grey",
        "version": "1.0.0",
        "kind": PackKind.REGRESSION,
        "title": "grey",
        "network": {"name": "grey", "settings": _SETTINGS},
        "input": _SPEC.model_dump(),
        "licence": "none",
        "trained_on": "nothing",
        "training_command": "none",
        "outputs": [
            {
                "name": "ef",
                "kind": "measurement",
                "unit": "%",
                "scale": 50.0,
                "evidence": "simulated",
                "tested_on": "",
                **more,
            },
            {"name": "lead", "scale": 10.0, "offset": -9.0, **score},
            {"name": "lvh", **score},
        ],
    }


def test_the_interval_comes_from_held_out_errors_and_holds_on_new_patients(told: Pack) -> None:
    ef = _outputs(told)["ef"]
    # Of twelve errors the smallest and the largest: within three spreads of 3 points.
    assert ef.low_error is not None
    assert ef.high_error is not None
    assert -9.0 < ef.low_error < 0.0 < ef.high_error < 9.0
    report = json.loads((told.folder / "evaluation.json").read_text())["reports"][0]
    assert report["measurements"][0]["interval"]["coverage"][0] >= 0.8


def test_the_threshold_lies_between_those_without_and_those_with(told: Pack) -> None:
    lead = _outputs(told)["lead"]
    report = json.loads((told.folder / "evaluation.json").read_text())["reports"][0]
    (score,) = report["scores"]
    assert lead.threshold == score["threshold"]
    assert score["auc"][0] == 1.0
    assert score["sensitivity"][0] >= 0.8
    assert score["specificity"][0] >= 0.8


def test_an_output_says_on_whom_it_was_tested_and_how_that_went(told: Pack) -> None:
    outputs = _outputs(told)
    assert outputs["ef"].evidence is Evidence.PATIENTS
    assert outputs["ef"].caution == ""
    figures = outputs["ef"].figures["greys"]
    assert "Grey clips, validation split, 10 patients" in outputs["ef"].tested_on
    assert f"{figures['mae'][0]:.1f}" in outputs["ef"].tested_on
    assert f"{figures['mae_of_predicting_the_mean']:.1f}" in outputs["ef"].tested_on
    assert "AUC 1.00" in outputs["lead"].tested_on


def test_an_output_without_a_truth_says_that_it_was_not_tested(told: Pack) -> None:
    lvh = _outputs(told)["lvh"]
    assert (lvh.evidence, lvh.caution) == (Evidence.SIMULATED, NOT_TESTED)
    report = json.loads((told.folder / "evaluation.json").read_text())["reports"][0]
    assert {one["output"]: one["reason"] for one in report["untested"]} == {
        "lvh": "the data set does not have its truth"
    }
    assert (
        "lvh: the data set does not have its truth" in (told.folder / "evaluation.md").read_text()
    )


def test_a_planted_bad_pack_gets_a_bad_report(tmp_path: Path, trained: keras.Model) -> None:
    wrong = _manifest(scale=-50.0, offset=100.0)  # the greyer, the lower
    pack = pack_with_evidence(
        tmp_path / "bad", wrong, trained, dataset=Greys(), card="", draws=100, plots=False
    )
    ef = _outputs(pack)["ef"]
    assert ef.caution.startswith(f"{NOT_BETTER}: R2 -")
    assert "on 12 patients held out of training" in ef.caution
    assert "on 10 patients of the test" in ef.caution
    assert NOT_BETTER.upper() in ef.tested_on
    figures = ef.figures["greys"]
    assert figures["r2"][0] < 0
    assert figures["mae"][0] > figures["mae_of_predicting_the_mean"]


def test_what_was_only_simulated_says_so(tmp_path: Path, trained: keras.Model) -> None:
    simulated = Greys(evidence=Evidence.SIMULATED, name="sim", title="Simulated greys")
    pack = pack_with_evidence(
        tmp_path / "sim", _manifest(), trained, dataset=simulated, card="", draws=20, plots=False
    )
    ef = _outputs(pack)["ef"]
    assert ef.evidence is Evidence.SIMULATED
    assert ef.tested_on.startswith("SIMULATED ONLY: Simulated greys")
    page = (pack.folder / "evaluation.md").read_text()
    rows = [line for line in page.splitlines() if line.startswith(("| Left", "| Pacemaker"))]
    assert len(rows) == 6
    assert all("SIMULATED" in row for row in rows)
    assert "nothing here was tested on patients" in page


def test_each_output_is_told_by_the_first_data_set_that_knows_it(
    tmp_path: Path, trained: keras.Model
) -> None:
    patients = Greys(outputs=("ef",))
    simulated = Greys(evidence=Evidence.SIMULATED, name="sim", title="Simulated greys")
    again = Greys(name="sim", licence="for research")
    pack = pack_with_evidence(
        tmp_path / "both",
        _manifest(),
        trained,
        dataset=(patients, simulated, again),
        card="",
        draws=20,
        plots=False,
    )
    outputs = _outputs(pack)
    assert outputs["ef"].evidence is Evidence.PATIENTS
    assert set(outputs["ef"].figures) == {"greys", "greys-held", "sim", "sim-2"}
    assert outputs["lead"].evidence is Evidence.SIMULATED
    assert outputs["lead"].threshold is not None


def _no_clip() -> Clip:
    raise AssertionError("figures need no clip")


def _lead_scores(seed: int, *, better: float) -> Score:
    """The figures of a score on forty patients, fifteen of them with a lead."""
    rng = np.random.default_rng(seed)
    spec = OutputSpec(
        name="lead", kind="score", unit="{score}", evidence="patients", tested_on="", threshold=0.5
    )
    answers = [
        Answer(
            case=Case(
                patient=str(k), name=str(k), clip=lambda: _clip(1, broken=True), truths=truth
            ),
            said={"lead": Said(value=float(rng.random() + better * truth["lead"]) / (1 + better))},
        )
        for k, truth in enumerate([{"lead": float(k < 15)} for k in range(40)])
    ]
    found = figures.score(spec, answers, draws=200)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("held", "test", "cautioned"), [(1.0, 1.0, False), (0.0, 1.0, True), (1.0, 0.0, True)]
)
def test_one_split_that_shows_nothing_is_enough_for_a_caution_with_the_figures_of_both(
    held: float, test: float, cautioned: bool
) -> None:
    two = _lead_scores(4, better=held), _lead_scores(5, better=test)
    both = Both(held=two[0], test=two[1], simulated=False)

    assert (both.caution != "") == cautioned
    told = told_of(both, "Somewhere", "a lead is a wire")
    assert (NOT_BETTER_SCORE.upper() in told) == cautioned
    assert "; a lead is a wire" in told
    assert told.rpartition(": ")[0] == "Somewhere, 15 of 40 with the finding"
    if cautioned:
        for one, where in zip(two, ("held out of training", "of the test"), strict=True):
            words = f"AUC {one.auc.value:.2f} ({one.auc.low:.2f} to {one.auc.high:.2f})"
            assert f"{words} on 40 patients {where}" in both.caution
    alone = Both(held=None, test=two[1], simulated=True)
    assert (alone.caution != "") == (test == 0.0)
    assert "held out" not in alone.caution


def test_a_measurement_whose_error_is_not_below_the_mean_s_is_cautioned(told: Pack) -> None:
    report = evaluate_pack(told, Greys(), draws=20)
    good = report.measurements[0]
    poor = replace(good, mae_of_predicting_the_mean=good.mae.value)

    assert Both(held=good, test=good, simulated=False).caution == ""
    caution = Both(held=poor, test=good, simulated=False).caution
    assert caution.startswith(NOT_BETTER)
    assert f"error {good.mae.value:.1f} points against {good.mae.value:.1f}" in caution


@pytest.mark.filterwarnings("ignore:overflow encountered in cast:RuntimeWarning")
def test_weights_that_do_not_fit_into_float16_are_refused(tmp_path: Path) -> None:
    swollen = networks.build_network("grey", _SPEC, _SETTINGS)
    swollen.get_layer("numbers").set_weights([np.full((1, 3), 1e6), np.zeros(3)])
    manifest = _manifest(scale=5e-5)  # the same fraction from numbers that are too large
    with pytest.raises(PackError, match=r"float16 ends at 65504; pack it with half"):
        pack_with_evidence(
            tmp_path / "swollen", manifest, swollen, dataset=Greys(), card="", draws=20, plots=False
        )


def test_the_stored_pack_is_held_against_the_network_in_memory(
    tmp_path: Path, trained: keras.Model
) -> None:
    pack = write_pack(tmp_path / "whole", _manifest(), trained, half=False)
    cases = Greys().cases("held")[:2]
    same = compare_stored(pack, trained, cases, split="held", as_type="float32")
    assert [one.largest for one in same.outputs] == [0.0, 0.0, 0.0]
    other = networks.build_network("grey", _SPEC, _SETTINGS)
    other.get_layer("numbers").set_weights([np.full((1, 3), 1.02), np.zeros(3)])
    with pytest.raises(PackError, match=r"says ef otherwise .* points, where 0\.48 are allowed"):
        compare_stored(pack, other, cases, split="held", as_type="float32")
    with pytest.raises(PackError, match="nothing to compare"):
        compare_stored(pack, trained, (), split="held", as_type="float32")


def test_what_float16_changes_stands_in_the_report(told: Pack) -> None:
    held = json.loads((told.folder / "evaluation.json").read_text())["sections"]["stored"]
    assert held["stored_as"] == "float16"
    assert held["clips"] == _SIZES["held"]
    assert held["raw"]["inputs"] == 4 * _SIZES["held"]
    ef = held["outputs"]["ef"]
    assert ef["unit"] == "%"
    assert 0.0 <= ef["largest_difference"] < ef["allowed"] == 0.475
    page = (told.folder / "evaluation.md").read_text()
    assert "| ef, points |" in page
    assert "## Better than knowing nothing?" in page


def test_a_broken_clip_is_counted_with_its_reason(told: Pack, tmp_path: Path) -> None:
    report = evaluate_pack(told, Greys(broken=frozenset({"valid-3"})), draws=20)
    assert report.unreadable == {"the frames cannot be decoded": 1}
    assert report.measurements[0].counts.patients == 9
    assert report.measurements[0].counts.refused == {"the frames cannot be decoded": 1}
    write_report(tmp_path, report, plots=False)
    assert "the frames cannot be decoded: ef 1, lead 1" in (tmp_path / "evaluation.md").read_text()


def test_the_folder_holds_the_whole_report_and_its_pictures(told: Pack) -> None:
    names = {path.name for path in told.folder.iterdir()}
    assert names == {
        "LICENSE",
        "MODEL_CARD.md",
        "evaluation-greys-ef.png",
        "evaluation-greys-lead.png",
        "evaluation.json",
        "evaluation.md",
        "manifest.json",
        "weights.safetensors",
    }
    page = (told.folder / "evaluation.md").read_text()
    assert "![Left ventricular ejection fraction](evaluation-greys-ef.png)" in page
    assert all(path.stat().st_size < 80_000 for path in told.folder.glob("*.png"))


def test_by_number_of_frames_needs_clips_of_several(told: Pack) -> None:
    report = evaluate_pack(told, Greys(), draws=20)
    by_frames = report.measurements[0].by_frames
    assert [one.frames for one in by_frames] == [1, 2, 3, 4, 5, 6]
    # Every frame of such a clip is the same, so more of them say no more.
    assert len({round(one.first.value, 9) for one in by_frames}) == 1
    assert by_frames[-1].first.value == pytest.approx(report.measurements[0].mae.value)


def test_renewed_evidence_of_the_same_pack_is_the_same(told: Pack) -> None:
    add_section(told.folder, "checks", title="Checks", lines=["another's"], data={"value": 3})
    before = {path.name: path.read_bytes() for path in told.folder.glob("*")}
    manifest = json.loads(before["manifest.json"])
    renew_evidence(told.folder, [Greys()], draws=100)
    after = {path.name: path.read_bytes() for path in told.folder.glob("*")}
    assert json.loads(after["manifest.json"]) == manifest
    one, two = (json.loads(each.pop("evaluation.json")) for each in (before, after))
    assert one == two
    assert {"stored", "both_splits", "checks"} == set(two["sections"])
    pages = [each.pop("evaluation.md").decode().splitlines() for each in (before, after)]
    assert sorted(pages[0]) == sorted(pages[1])  # sections may change places
    assert after == before
