"""What a worker makes of a clip, with packs whose networks are tiny and untrained."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom.examples
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.clip import Mode, read_clip
from models.explain import panels
from models.finding import Evidence, Finding, Kind, Method, PackRef
from models.packs import InputSpec, Pack, PackError, load_pack, shipped_packs, write_pack
from models.views import View
from node.analysis import ClipAnalysis, analyse, clips, load_packs, name_view, worker
from node.evidence import reportable, worth_running
from node.executor import WorkerProcesses, WorkerStartFailed

A4C_CINE = str(pydicom.examples.get_path("ybr_color"))

_COMMON = {
    "version": "0.0.1",
    "title": "for tests",
    "licence": "Apache-2.0",
    "trained_on": "nothing",
    "training_command": "none",
}


def _regressor(folder: Path, **evidence: Evidence) -> str:
    """A pack that says about 50 whatever it sees."""
    folder.mkdir()
    outputs = [
        {"name": name, "kind": "measurement", "unit": unit, "scale": 1.0, "offset": 50.0,
         "low_error": -10, "high_error": 10, "evidence": level, "tested_on": "nothing"}
        for (name, level), unit in zip(evidence.items(), ("%", "a", "%"), strict=False)
    ]  # fmt: skip
    manifest = {
        **_COMMON,
        "name": folder.name,
        "kind": "regression",
        # Any network that gives a row of numbers will do, and this one is built fast.
        "network": {
            "name": "view_cnn",
            "settings": {"classes": len(outputs), "widths": [4, 4], "dense": [4]},
        },
        "input": {"rows": 32, "columns": 32, "frames": 4, "interval_ms": 100.0},
        "outputs": outputs,
    }
    return _written(folder, manifest)


def _tracer(folder: Path) -> str:
    folder.mkdir()
    manifest = {
        **_COMMON,
        "name": folder.name,
        "kind": "tracing",
        "network": {"name": "unet", "settings": {"classes": 4, "widths": [4, 4]}},
        "input": {"rows": 32, "columns": 32},
        "classes": ["background", "cavity", "myocardium", "atrium"],
        "outputs": [
            {"name": "ef", "kind": "measurement", "unit": "%", "evidence": "patients",
             "tested_on": "nothing", "needs_motion": True}
        ],
    }  # fmt: skip
    return _written(folder, manifest)


def _view_namer(folder: Path) -> str:
    folder.mkdir()
    manifest = {
        **_COMMON,
        "name": folder.name,
        "kind": "view",
        "network": {
            "name": "view_cnn",
            "settings": {"classes": 16, "widths": [4, 4], "dense": [4]},
        },
        "input": {"rows": 60, "columns": 80},
        "classes": [view.value for view in View],
    }
    return _written(folder, manifest)


def _written(folder: Path, manifest: dict[str, Any]) -> str:
    import keras

    from models.networks import build_network

    keras.utils.set_random_seed(3)
    name, settings = manifest["network"]["name"], manifest["network"]["settings"]
    network = build_network(name, InputSpec(**manifest["input"]), settings)
    write_pack(folder, manifest, network)
    return str(folder)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("packs")
    return {
        "tested": _regressor(root / "tested", ef=Evidence.PATIENTS, age=Evidence.PATIENTS),
        "simulated": _regressor(root / "simulated", ef=Evidence.SIMULATED),
        "tracing": _tracer(root / "tracing"),
        "views": _view_namer(root / "views"),
    }


@pytest.fixture(scope="module")
def _loaded_once(folders: dict[str, str]) -> Iterator[object]:
    load_packs([folders["tracing"], folders["tested"]])
    packs, worker._packs = worker._packs, None
    yield packs
    worker._packs = None


@pytest.fixture
def loaded(_loaded_once: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker that has loaded a tracing pack and a regression pack."""
    monkeypatch.setattr(worker, "_packs", _loaded_once)


@pytest.mark.usefixtures("loaded")
def test_a_clip_gets_findings_refusals_and_a_picture_of_its_frames() -> None:
    clip = read_clip(Path(A4C_CINE))
    outcome = analyse(A4C_CINE)
    assert outcome.refused is None
    assert {finding.output for finding in outcome.findings} == {"ef", "age"}
    assert [refusal.output for refusal in outcome.refusals] == ["ef"]  # no heart in that tracing
    assert [pack.name for pack in outcome.packs_run] == ["tracing", "tested"]
    assert outcome.picture is not None
    assert outcome.picture.source_frames == tuple(range(clip.frame_count))
    assert outcome.picture.frame_times_ms == tuple(clip.time_axis.times_ms)
    assert len(outcome.picture.jpeg_frames) == clip.frame_count


@pytest.mark.usefixtures("loaded")
def test_the_same_file_gives_the_same_answer_and_crosses_the_process_edge() -> None:
    first, again = analyse(A4C_CINE), analyse(A4C_CINE)
    assert first == again
    assert pickle.loads(pickle.dumps(first)) == first  # noqa: S301


@pytest.mark.usefixtures("loaded")
def test_an_explained_finding_keeps_its_share_outside_the_sector_and_warns_above_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown: list[panels.Shown] = []
    drawn = panels.draw_clip
    monkeypatch.setattr(
        panels,
        "draw_clip",
        lambda frames, what, how: shown.append(what) or drawn(frames, what, how),
    )
    by_output = {finding.output: finding for finding in analyse(A4C_CINE).findings}
    share = by_output["ef"].outside_share
    assert share is not None
    assert 0.0 <= share < 1.0
    assert by_output["age"].outside_share is None  # nothing that is not shown is explained
    assert not any("outside the scanning sector" in line for line in shown[-1].cautions)
    monkeypatch.setattr(clips, "outside_shares", lambda maps, _sector: np.full(len(maps), 0.71))
    by_output = {finding.output: finding for finding in analyse(A4C_CINE).findings}
    assert by_output["ef"].outside_share == 0.71
    assert by_output["ef"].looked_outside
    assert any("outside the scanning sector" in line for line in shown[-1].cautions)


@pytest.mark.usefixtures("loaded")
def test_packs_that_are_not_named_do_not_run_and_the_others_say_the_same() -> None:
    every = analyse(A4C_CINE, explain=False)
    named = analyse(A4C_CINE, explain=False, only=["tested", "not there"])

    assert [pack.name for pack in named.packs_run] == ["tested"]
    assert named.findings == tuple(one for one in every.findings if one.pack.name == "tested")
    assert len(every.packs_run) == 2


@pytest.mark.usefixtures("loaded")
def test_nobody_draws_a_picture_that_was_not_asked_for() -> None:
    outcome = analyse(A4C_CINE, explain=False)
    assert outcome.findings
    assert outcome.picture is None


def test_a_picture_shows_what_only_saw_the_simulator_where_that_is_allowed(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_packs", None)
    load_packs([folders["simulated"]])
    assert analyse(A4C_CINE).picture is None
    assert analyse(A4C_CINE).findings  # kept, and withheld later
    assert analyse(A4C_CINE, allow_simulated=True).picture is not None


@pytest.mark.usefixtures("loaded")
def test_a_file_that_is_no_clip_is_refused_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"nothing of the kind")
    for path in (str(broken), str(tmp_path / "missing.dcm")):
        assert analyse(path).refused
        assert name_view(path).refused
        assert name_view(path).view is None


@pytest.mark.usefixtures("loaded")
@pytest.mark.parametrize("mode", [Mode.COLOUR, Mode.M_MODE, Mode.PW, Mode.CW])
def test_modes_that_the_models_do_not_read_are_refused(
    mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = read_clip(Path(A4C_CINE))
    object.__setattr__(clip, "mode", mode)
    monkeypatch.setattr(clips, "read_clip", lambda _path: clip)
    outcome = analyse(A4C_CINE)
    assert outcome == ClipAnalysis(refused=outcome.refused)
    assert "two-dimensional clips" in (outcome.refused or "")


@pytest.mark.usefixtures("loaded")
def test_without_a_pack_for_views_a_clip_is_refused_in_words() -> None:
    outcome = name_view(A4C_CINE)
    assert outcome.view is None
    assert "no pack that names views" in (outcome.refused or "")
    assert outcome.frame_count == 30


def test_a_clip_gets_a_view_with_the_pack_that_named_it(
    folders: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_packs", None)
    load_packs([folders["views"]])
    outcome = name_view(A4C_CINE)
    assert outcome.refused is None
    assert outcome.view is not None
    assert outcome.view.view in View
    assert outcome.pack is not None
    assert outcome.pack.name == "views"
    assert (outcome.mode, outcome.frame_count) == (Mode.TWO_D, 30)


def test_a_process_without_packs_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_packs", None)
    with pytest.raises(PackError, match="load_packs first"):
        analyse(A4C_CINE)


def _tensorflow_threads() -> int:
    import tensorflow as tf

    threads: int = tf.config.threading.get_intra_op_parallelism_threads()
    return threads


def test_workers_load_their_packs_and_analyse(folders: dict[str, str]) -> None:
    with WorkerProcesses(1, initializer=load_packs, initargs=((folders["tested"],), 64)) as pool:
        outcome = pool.submit(analyse, A4C_CINE).result(120)
        assert pool.submit(_tensorflow_threads).result(120) == 1  # of 64, each has its own share
    assert outcome.picture is not None
    assert {finding.output for finding in outcome.findings} == {"ef", "age"}


def test_a_pack_that_cannot_be_used_stops_the_workers_with_its_name(tmp_path: Path) -> None:
    missing = str(tmp_path / "no-such-pack")
    with (
        WorkerProcesses(1, initializer=load_packs, initargs=((missing,), 1)) as pool,
        pytest.raises(WorkerStartFailed, match="no-such-pack: no readable manifest"),
    ):
        pool.submit(analyse, A4C_CINE).result(120)


def _finding(output: str, evidence: Evidence) -> Finding:
    return Finding(
        output=output,
        kind=Kind.MEASUREMENT,
        value=50.0,
        unit="%",
        pack=PackRef(name="any", version="1", weights_sha256="0" * 64),
        evidence=evidence,
        method=Method.REGRESSION,
    )


def test_reportable_is_what_was_tested_on_patients() -> None:
    tested = _finding("ef", Evidence.PATIENTS)
    simulated = _finding("lead", Evidence.SIMULATED)
    assert reportable([tested, simulated], allow_simulated=False) == ((tested,), (simulated,))
    assert reportable([tested, simulated], allow_simulated=True) == ((tested, simulated), ())


@pytest.mark.parametrize("output", ["age", "sex", "weight", "height"])
@pytest.mark.parametrize("evidence", list(Evidence))
def test_a_patients_age_sex_and_size_are_never_reportable(output: str, evidence: Evidence) -> None:
    finding = _finding(output, evidence)
    assert reportable([finding], allow_simulated=True) == ((), (finding,))


def test_a_pack_of_which_nothing_may_be_said_is_not_run() -> None:
    packs = {folder.name: load_pack(folder) for folder in shipped_packs()}

    def run(**settings: Any) -> set[str]:
        return {pack.manifest.name for pack in worth_running(packs.values(), **settings)}

    without = run(allow_simulated=False)
    assert {"views", "lv", "echonet"} <= without
    assert "echonet-simulated" not in without
    assert run(allow_simulated=True) == set(packs)
    person = replace_outputs(packs["echonet-simulated"], {"age", "sex"})
    assert worth_running([person], allow_simulated=True) == ()
    assert worth_running([person], allow_simulated=True, allow_demographics=["age"]) == (person,)


def replace_outputs(pack: Pack, names: set[str]) -> Pack:
    """The same pack with these outputs and no other."""
    kept = tuple(output for output in pack.manifest.outputs if output.name in names)
    manifest = pack.manifest.model_copy(update={"outputs": kept})
    return replace(pack, manifest=manifest)
