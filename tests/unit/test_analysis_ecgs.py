"""What a worker makes of an ECG, with packs whose networks are tiny and untrained."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pydicom.examples
import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.ecg.explain import paper
from models.ecg.recording import Ecg
from models.explain.panels import EncodedPicture, PictureSettings
from models.packs import Signal
from node.analysis import EcgAnalysis, analyse, ecgs, load_packs, worker
from node.compute.job import pack_call, read_here
from node.executor import unpacked
from storage.states import RecordingKind
from tests.ecg_packs import INTERVALS, REAL_ECG, SCORES, beat_pack, flat_ecg, rhythm_pack

ECG = str(REAL_ECG)
CLIP = str(pydicom.examples.get_path("ybr_color"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("packs")
    return {
        "rhythm": rhythm_pack(root / "rhythm"),
        "beat": beat_pack(root / "beat"),
        "simulated": rhythm_pack(root / "simulated", evidence="simulated"),
    }


@pytest.fixture(scope="module")
def _loaded_once(folders: dict[str, Path]) -> Iterator[object]:
    load_packs([folders["rhythm"], folders["beat"]])
    packs, worker._packs = worker._packs, None
    yield packs
    worker._packs = None


@pytest.fixture
def loaded(_loaded_once: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a worker that has loaded a pack for the rhythm and one for the median beat."""
    monkeypatch.setattr(worker, "_packs", _loaded_once)


def read(**options: object) -> EcgAnalysis:
    outcome = analyse(ECG, kind=RecordingKind.ECG, **options)  # type: ignore[arg-type]
    assert isinstance(outcome, EcgAnalysis)
    return outcome


@pytest.mark.usefixtures("loaded")
def test_an_ecg_gets_findings_with_stretches_and_a_page_for_each() -> None:
    outcome = read()
    assert outcome.refused is None
    assert [finding.output for finding in outcome.findings] == [*SCORES, *INTERVALS]
    assert [pack.name for pack in outcome.packs_run] == ["rhythm", "beat"]
    for finding in outcome.findings:
        assert finding.spans_ms
        lasts_ms = 10_000 if finding.output in SCORES else 1_200
        assert all(0 <= begin < end <= lasts_ms for begin, end in finding.spans_ms)
    assert outcome.picture is not None
    scores = {one.output: one.score for one in outcome.findings}
    assert outcome.pages == (*sorted(SCORES, key=lambda name: -(scores[name] or 0)), *INTERVALS)
    assert len(outcome.picture.jpeg_frames) == len(outcome.pages)
    assert set(outcome.reading_s) == {"rhythm", "beat"}


@pytest.mark.usefixtures("loaded")
def test_it_is_said_which_stretch_and_channels_each_pack_read() -> None:
    rhythm, beat = read(explain=False).reads
    assert (rhythm.signal, rhythm.group) == (Signal.RHYTHM, 1)
    assert rhythm.channels == tuple(range(1, 13))
    assert (rhythm.begin_ms, rhythm.end_ms) == (0.0, 10_000.0)  # 10.24 s are padded
    assert (beat.signal, beat.group) == (Signal.MEDIAN, 2)  # the cart's own
    assert beat.channels == (1, 2, 11)
    assert (beat.begin_ms, beat.end_ms) == (0.0, 1_200.0)


@pytest.mark.usefixtures("loaded")
def test_a_median_beat_that_was_made_here_stands_in_no_object(tmp_path: Path) -> None:
    ecg = flat_ecg()
    ecg.WaveformSequence = [pydicom.dcmread(REAL_ECG).WaveformSequence[0]]
    ecg.save_as(tmp_path / "rhythm-alone.dcm")
    outcome = analyse(str(tmp_path / "rhythm-alone.dcm"), explain=False)
    assert isinstance(outcome, EcgAnalysis)
    beat = outcome.reads[1]
    assert (beat.group, beat.channels) == (0, ())


@pytest.mark.usefixtures("loaded")
def test_the_same_ecg_gives_the_same_answer_and_crosses_the_process_edge() -> None:
    first, again = read(), read()
    assert first == again
    assert pickle.loads(pickle.dumps(first)) == first  # noqa: S301


@pytest.mark.usefixtures("loaded")
def test_a_cluster_reads_the_same_from_the_bytes_that_travel_with_the_job() -> None:
    call = pack_call(analyse, (), {"kind": RecordingKind.ECG, "explain": False})
    told = unpacked(read_here(call, REAL_ECG.read_bytes(), None))
    assert told == (True, read(explain=False))


@pytest.mark.usefixtures("loaded")
def test_what_a_file_is_says_the_file_where_nobody_else_does() -> None:
    assert isinstance(analyse(ECG, explain=False), EcgAnalysis)
    assert not isinstance(analyse(CLIP, explain=False), EcgAnalysis)


@pytest.mark.usefixtures("loaded")
def test_packs_that_are_not_named_do_not_run() -> None:
    outcome = read(explain=False, only=["beat"])
    assert [pack.name for pack in outcome.packs_run] == ["beat"]
    assert outcome.picture is None
    assert not any(finding.spans_ms for finding in outcome.findings)
    assert "no pack that is in use here" in (read(only=["lv"]).refused or "")


def test_a_picture_shows_what_only_saw_the_simulator_where_that_is_allowed(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_packs", None)
    load_packs([folders["simulated"]])
    kept_back = read()
    assert kept_back.findings  # kept, and withheld later
    assert kept_back.picture is None
    assert kept_back.pages == ()
    assert len(read(allow_simulated=True).pages) == len(SCORES)


@pytest.mark.usefixtures("loaded")
def test_the_highest_scores_are_explained_first_and_no_more_outputs_than_six(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ecgs, "MOST_MAPS", 2)
    outcome = read()
    scores = {one.output: one.score for one in outcome.findings}
    assert outcome.pages == tuple(sorted(SCORES, key=lambda name: -(scores[name] or 0)))


@pytest.mark.usefixtures("loaded")
def test_pages_say_what_explains_them_and_in_which_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[paper.EcgShown] = []
    encode = paper.encode_pages

    def kept(ecg: Ecg, pages: Sequence[paper.EcgShown], how: PictureSettings) -> EncodedPicture:
        shown.extend(pages)
        return encode(ecg, pages, how)

    monkeypatch.setattr(ecgs, "encode_pages", kept)
    read()
    assert [page.unit for page in shown] == ["", "", "/min", "ms"]
    assert all("Integrated gradients" in page.method for page in shown)
    assert [page.beat is None for page in shown] == [True, True, False, False]
    for page in shown:
        assert page.relevance is not None
        assert np.isfinite(page.relevance).all()
        assert np.abs(page.relevance).max() > 0


@pytest.mark.usefixtures("loaded")
def test_an_ecg_of_which_nothing_may_be_concluded_is_refused_with_the_reason(
    tmp_path: Path,
) -> None:
    flat = tmp_path / "flat.dcm"
    flat_ecg().save_as(flat)
    outcome = analyse(str(flat))
    assert isinstance(outcome, EcgAnalysis)
    assert outcome.refused
    assert outcome == EcgAnalysis(refused=outcome.refused, troubles=outcome.troubles)


@pytest.mark.usefixtures("loaded")
def test_a_file_that_is_no_ecg_is_refused_with_the_reason(tmp_path: Path) -> None:
    broken = tmp_path / "broken.dcm"
    broken.write_bytes(b"nothing of the kind")
    for path in (str(broken), CLIP):
        outcome = analyse(path, kind=RecordingKind.ECG)
        assert outcome == EcgAnalysis(refused=outcome.refused)
        assert outcome.refused


def test_a_worker_builds_no_network_for_ecgs_before_the_first_one(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker, "_packs", None)
    load_packs([folders["rhythm"], folders["beat"]])
    packs = worker._loaded().ecgs
    assert all("network" not in vars(reader.pack) for reader in packs.readers)
    read(explain=False)
    assert all("network" in vars(reader.pack) for reader in packs.readers)
