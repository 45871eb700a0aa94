"""Relevance over many recordings: three summaries, and a paper's findings held against them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from models.data.ecgs import EcgCase, open_ecgs
from models.ecg.explain.claims import Verdict, claims
from models.ecg.explain.methods import EcgMethod
from models.ecg.explain.summaries import (
    Outcome,
    OutputSummary,
    Recorded,
    Summaries,
    average_beat,
    mean_by_lead,
    summarise,
)
from models.ecg.explain.summaries_page import write_summaries
from models.ecg.reader import WaveformReader
from models.ecg.recording import LEADS
from models.explain.target import ExplainError
from models.finding import Evidence, Kind
from models.packs import Pack, load_pack, write_manifest
from node.cli.app import all_commands
from tests.unit.pack_makers import manifest, output

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")

RATE, SAMPLES = 100.0, 512
V5 = LEADS.index("V5")
SCORE = {"kind": "score", "threshold": 0.5}


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> Pack:
    """Its score rises with the highest voltage in V5: above 1 mV it says yes."""
    import keras
    from keras import layers

    folder = tmp_path_factory.mktemp("pack")
    given = keras.Input((SAMPLES, 12))
    x = layers.Activation("relu", name="last_block")(layers.Conv1D(1, 1, use_bias=False)(given))
    x = layers.Flatten()(layers.MaxPooling1D(SAMPLES)(x))
    network = keras.Model(given, layers.Dense(1)(x))
    kernel = np.zeros((1, 12, 1), np.float32)
    kernel[0, V5] = 1.0
    network.set_weights([kernel, np.full((1, 1), 4.0, np.float32), np.full(1, -4.0, np.float32)])
    network.save(folder / "model.keras")
    write_manifest(
        folder,
        manifest(
            name="known",
            kind="waveform",
            input={"samples": SAMPLES, "rate_hz": RATE},
            outputs=[output("lbbb", "{score}", **SCORE)],
        ),
    )
    return load_pack(folder)


@dataclass(frozen=True)
class _Few:
    """Simulated recordings whose truth is made to be what the test wants."""

    truths: Sequence[float]
    name: str = "few"
    title: str = "A few"
    evidence: Evidence = Evidence.SIMULATED
    licence: str = "free"
    citation: str = ""
    caveats: tuple[str, ...] = ()
    fingerprint: str = ""
    drawn: Sequence[EcgCase] = field(
        default_factory=lambda: open_ecgs(
            "simulated-ecg:records=6,seed=2,rate_hz=200,duration_s=5.12,noise=0"
        ).cases("valid")
    )

    def cases(self, split: str) -> list[EcgCase]:
        assert split == "valid"
        return [
            EcgCase(
                patient=case.patient, name=case.name, ecg=case.ecg, waves=case.waves,
                truths={"lbbb": truth},
            )
            for case, truth in zip(self.drawn, self.truths, strict=True)
        ]  # fmt: skip


def test_summaries_say_where_the_relevance_of_a_known_network_lies(
    pack: Pack, tmp_path: Path
) -> None:
    found = summarise(WaveformReader(pack), _Few((1, 1, 1, 0, 0, 0)), EcgMethod.LRP)
    (one,) = found.outputs
    assert len(one.records) == 6
    # All of the number comes from the highest place of V5, so the mean is in that lead alone.
    for record in one.records:
        assert np.count_nonzero(record.by_lead) == 1
        assert record.by_lead[V5] > 0
        assert (record.outcome in (Outcome.TRUE_POSITIVE, Outcome.FALSE_POSITIVE)) == (
            record.score >= 0.5
        )
    means = mean_by_lead(one.records)
    assert int(np.argmax([mean.value for mean in means])) == V5
    assert one.correlation.value > 0.8
    average = average_beat(one.records)
    assert average is not None
    beat, relevance = average
    assert beat.shape == relevance.shape == (12, round(1.2 * RATE))
    peak = int(relevance[V5].argmax())
    assert abs(peak - 0.4 * RATE) <= 0.06 * RATE  # at R
    assert not np.delete(relevance, V5, axis=0).any()

    files = write_summaries(found, tmp_path / "out")
    names = {file.name for file in files}
    assert {"ecg-summaries.md", "ecg-summaries.json", "mean-relevance.png"} <= names
    assert any(name.startswith("beat-lbbb") for name in names)
    figures = json.loads((tmp_path / "out" / "ecg-summaries.json").read_text())
    assert figures["outputs"][0]["recordings"] == 6
    assert figures["evidence"] == "simulated"
    page = (tmp_path / "out" / "ecg-summaries.md").read_text()
    assert "nothing here was tested on patients" in page
    assert "cannot be judged here" in page


def test_integrated_gradients_sum_to_the_log_odds_over_a_flat_line(pack: Pack) -> None:
    reader, few = WaveformReader(pack), _Few((1, 1, 1, 0, 0, 0))
    found = summarise(reader, few, EcgMethod.INTEGRATED_GRADIENTS, most=3)
    (one,) = found.outputs
    assert len(one.records) == 3
    for record, case in zip(one.records, few.cases("valid"), strict=False):
        odds = np.log(record.score / (1 - record.score))
        there = 12 * reader.inputs(case.ecg())[0].any(axis=-1).sum()  # without the padding
        assert record.mean * there == pytest.approx(odds + 4.0, rel=0.02)


def test_methods_that_do_not_sum_up_and_unknown_outputs_are_refused(pack: Pack) -> None:
    reader, few = WaveformReader(pack), _Few((1, 1, 1, 0, 0, 0))
    with pytest.raises(ExplainError, match="no parts that add up"):
        summarise(reader, few, EcgMethod.GRADIENT)
    with pytest.raises(ExplainError, match="no output 'rbbb'"):
        summarise(reader, few, EcgMethod.LRP, outputs=["rbbb"])


def _record(outcome: Outcome, mean: float, score: float, **more: object) -> Recorded:
    by_lead = more.pop("by_lead", np.full(12, mean))
    return Recorded(
        name="one", score=score, outcome=outcome, mean=mean, by_lead=np.asarray(by_lead),
        **more,  # type: ignore[arg-type]
    )  # fmt: skip


def _summaries(output_name: str, records: Sequence[Recorded]) -> Summaries:
    return Summaries(
        pack="known", version="1", weights_sha256="0" * 64, dataset="few", title="A few",
        evidence=Evidence.SIMULATED, split="valid", method=EcgMethod.LRP, leads=LEADS,
        rate_hz=RATE,
        outputs=(
            OutputSummary(
                output=output_name, kind=Kind.SCORE, threshold=0.5, unit="log odds",
                records=tuple(records),
            ),
        ),
    )  # fmt: skip


def _verdicts(output_name: str, records: Sequence[Recorded]) -> dict[str, Verdict]:
    return {
        one.claim.split(":")[0]: one.verdict for one in claims(_summaries(output_name, records))
    }


def test_findings_of_the_paper_hold_where_the_numbers_do() -> None:
    in_named = np.where(np.isin(LEADS, ("II", "V1")), 3.0, 0.5)
    noise = np.random.default_rng(0).normal(size=40) * 0.02
    records = [
        _record(Outcome.TRUE_POSITIVE, 1.0 + n, 0.9 + n, by_lead=in_named) for n in noise[:8]
    ]
    records += [_record(Outcome.FALSE_POSITIVE, 0.1 + n, 0.55 + n) for n in noise[8:14]]
    records += [_record(Outcome.TRUE_NEGATIVE, -0.5 + n, 0.1 + n, in_p=-2.0 + n)
                for n in noise[14:30]]  # fmt: skip
    verdicts = _verdicts("atrial_fibrillation", records)
    assert set(verdicts.values()) == {Verdict.HOLDS}
    assert len(verdicts) == 4


def test_findings_do_not_hold_where_the_numbers_say_so() -> None:
    elsewhere = np.where(np.isin(LEADS, ("aVL", "V5", "V6", "V4")), 3.0, 0.5)
    records = [_record(Outcome.TRUE_POSITIVE, 1.0, 0.9, by_lead=elsewhere) for _ in range(6)]
    records += [_record(Outcome.FALSE_NEGATIVE, 1.2, 0.2) for _ in range(6)]
    records += [_record(Outcome.TRUE_NEGATIVE, 1.1, 0.1, in_p=1.5) for _ in range(6)]
    verdicts = _verdicts("atrial_fibrillation", records)
    assert set(verdicts.values()) == {Verdict.HOLDS_NOT}


def test_too_few_recordings_judge_nothing() -> None:
    records = [_record(Outcome.TRUE_POSITIVE, 1.0, 0.9), _record(Outcome.TRUE_NEGATIVE, 0.0, 0.1)]
    for name in ("atrial_fibrillation", "lbbb", "rbbb"):
        assert set(_verdicts(name, records).values()) == {Verdict.NOT_JUDGED}


def test_concordant_t_waves_are_told_from_discordant_ones() -> None:
    concordant = np.arange(12) < 6
    in_t = np.where(concordant, -1.0, 2.0)
    records = [
        _record(Outcome.TRUE_POSITIVE, 1.0, 0.9, in_t=in_t, concordant=concordant) for _ in range(6)
    ]
    told = [one for one in claims(_summaries("lbbb", records)) if "concordant" in one.claim]
    assert [one.verdict for one in told] == [Verdict.HOLDS, Verdict.HOLDS]
    assert "-1 (-1 to -1)" in told[0].numbers
    assert "2 (2 to 2)" in told[0].numbers


def test_the_command_writes_and_says_what_it_found(pack: Pack, tmp_path: Path) -> None:
    arguments = [
        "ecg-summaries", str(pack.folder),
        "simulated-ecg:records=4,rate_hz=100,duration_s=6",
        "--out", str(tmp_path / "out"), "--json",
    ]  # fmt: skip
    done = CliRunner().invoke(all_commands(), arguments, catch_exceptions=False)
    assert done.exit_code == 0
    figures = json.loads(done.stdout)
    assert figures["method"] == "lrp"
    assert {claim["verdict"] for claim in figures["claims"]} <= {one.value for one in Verdict}
    assert all(Path(file).is_file() for file in figures["files"])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--method", "gradient"], "no method 'gradient' that sums up"),
        (["--output", "rbbb"], "has no output 'rbbb'"),
        (["--split", "some"], "no split 'some'"),
    ],
)
def test_the_command_says_what_is_wrong(
    pack: Pack, tmp_path: Path, more: list[str], words: str
) -> None:
    from node.cli.output import Problem

    arguments = ["ecg-summaries", str(pack.folder), "simulated-ecg:records=1,duration_s=6"]
    with pytest.raises(Problem, match=words):
        CliRunner().invoke(
            all_commands(), [*arguments, "--out", str(tmp_path), *more], catch_exceptions=False
        )
