"""Simulated ECGs are what was asked for, and their truths are true of their samples."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from models.ecg.beats import delineate, r_peaks
from models.ecg.recording import LEADS
from models.ecg.simulator import (
    OUTPUTS,
    Conduction,
    EcgWanted,
    Rhythm,
    SimulatedEcg,
    draw_wanted,
    generate_inputs,
    simulate_ecg,
)
from models.packs.manifest import Signal, WaveformInput
from models.tasks import ECG_TASKS

QUIET = EcgWanted(noise=0.0)
AF = replace(QUIET, rhythm=Rhythm.ATRIAL_FIBRILLATION, heart_rate_bpm=85.0)
SEEDS = range(8)


@cache
def made(wanted: EcgWanted, seed: int) -> SimulatedEcg:
    """A recording that several tests look at; nobody changes it."""
    return simulate_ecg(wanted, seed)


@cache
def clinic() -> tuple[SimulatedEcg, ...]:
    rng = np.random.default_rng(4)
    return tuple(simulate_ecg(draw_wanted(rng, rate_hz=250), seed) for seed in range(160))


# --- The same, or another ---------------------------------------------------------------------


def test_the_same_seed_gives_the_same_recording_and_another_another() -> None:
    one, again, other = (simulate_ecg(EcgWanted(), seed) for seed in (5, 5, 6))

    assert np.array_equal(one.ecg.rhythm.millivolts, again.ecg.rhythm.millivolts)
    assert (one.truths, one.waves) == (again.truths, again.waves)
    assert not np.allclose(one.clean, other.clean, atol=0.05)


@pytest.mark.parametrize(
    ("rate_hz", "duration_s"), [(250.0, 7.0), (400.0, 10.24), (500.0, 10.0), (1000.0, 30.0)]
)
def test_any_rate_and_length(rate_hz: float, duration_s: float) -> None:
    one = simulate_ecg(EcgWanted(rate_hz=rate_hz, duration_s=duration_s), 1)
    strip = one.ecg.rhythm

    assert strip.millivolts.shape == (12, round(rate_hz * duration_s))
    assert strip.millivolts.dtype == np.float32
    assert strip.rate_hz == rate_hz
    assert np.isfinite(strip.millivolts).all()


def test_limb_leads_obey_einthoven_and_goldberger_with_all_their_noise() -> None:
    for one in clinic()[:20]:
        lead = one.ecg.rhythm.lead
        assert np.allclose(lead("III"), lead("II") - lead("I"), atol=1e-5)
        assert np.allclose(lead("aVR"), -(lead("I") + lead("II")) / 2, atol=1e-5)
        assert np.allclose(lead("aVL"), lead("I") - lead("II") / 2, atol=1e-5)
        assert np.allclose(lead("aVF"), lead("II") - lead("I") / 2, atol=1e-5)


def test_without_noise_the_recording_is_the_heart_alone() -> None:
    quiet, loud = made(QUIET, 2), made(replace(QUIET, noise=1.0), 2)

    assert np.array_equal(quiet.ecg.rhythm.millivolts, quiet.clean)
    assert np.array_equal(loud.clean, quiet.clean)
    assert np.std(loud.ecg.rhythm.millivolts - loud.clean) > 0.005


def test_more_noise_is_more() -> None:
    spread = [
        np.mean(
            [
                np.std(one.ecg.rhythm.millivolts - one.clean)
                for one in (made(replace(QUIET, noise=noise), seed) for seed in SEEDS)
            ]
        )
        for noise in (0.3, 1.0, 3.0)
    ]

    assert spread[0] < spread[1] < spread[2]


def test_samples_are_whole_steps_of_the_converter() -> None:
    one = made(EcgWanted(), 3)
    steps = one.ecg.rhythm.lead("V3") / one.cart.step_mv

    assert np.abs(steps - np.rint(steps)).max() < 0.01


def test_padding_is_zeros_at_both_ends_and_holds_no_beats() -> None:
    one = made(EcgWanted(padding_s=2.0, duration_s=12.0, rate_hz=500.0), 1)
    values = one.ecg.rhythm.millivolts

    assert not values[:, :1000].any()
    assert not values[:, -1000:].any()
    assert values[:, 1000:-1000].any(axis=1).all()
    assert all(beat.qrs[0] >= 1000 and beat.qrs[1] <= 5000 for beat in one.waves)


# --- Intervals and windows --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "option", "value"),
    [
        ("heart_rate", "heart_rate_bpm", 52.0),
        ("heart_rate", "heart_rate_bpm", 121.0),
        ("pr_interval", "pr_ms", 120.0),
        ("pr_interval", "pr_ms", 280.0),
        ("qrs_duration", "qrs_ms", 72.0),
        ("qt_interval", "qt_ms", 455.0),
    ],
)
def test_what_was_asked_for_is_true(name: str, option: str, value: float) -> None:
    # Between the first beat and the last the mean rate differs a little from that of all.
    share = 0.06 if name == "heart_rate" else 0.02
    for seed in SEEDS:
        one = simulate_ecg(EcgWanted(noise=0.0, **{option: value}), seed)  # type: ignore[arg-type]
        assert one.truths[name] == pytest.approx(value, rel=share)


def test_an_independent_look_at_the_samples_finds_the_same_intervals() -> None:
    apart: dict[str, list[float]] = {"pr_interval": [], "qrs_duration": [], "qt_interval": []}
    for seed in range(12):
        one = simulate_ecg(replace(QUIET, pr_ms=150.0 + 5 * seed, qrs_ms=80.0 + 2 * seed), seed)
        ms = 1000 / one.ecg.rhythm.rate_hz
        for beat in delineate(one.ecg.rhythm, one.r_peaks)[1:-1]:
            apart["qrs_duration"].append((beat.qrs[1] - beat.qrs[0]) * ms - 80.0 - 2 * seed)
            if beat.p:
                apart["pr_interval"].append((beat.qrs[0] - beat.p[0]) * ms - 150.0 - 5 * seed)
            if beat.t:
                qt = one.truths["qt_interval"]
                apart["qt_interval"].append((beat.t[1] - beat.qrs[0]) * ms - qt)

    assert abs(np.median(apart["pr_interval"])) < 10
    assert abs(np.median(apart["qrs_duration"])) < 8
    assert abs(np.median(apart["qt_interval"])) < 12


def test_windows_hold_the_waves_and_the_rest_is_quiet() -> None:
    for seed in SEEDS:
        one = made(replace(QUIET, heart_rate_bpm=60.0), seed)
        height = np.abs(one.clean).max(axis=0)
        for beat in one.waves[1:-1]:
            assert beat.p is not None
            assert beat.t is not None
            inside = height[slice(*beat.qrs)]
            between = height[beat.p[1] + 2 : beat.qrs[0] - 2]
            assert inside.max() > 0.2
            assert between.max() < 0.03
            assert height[slice(*beat.p)].max() > between.max()
            assert height[slice(*beat.t)].max() > between.max()


def test_r_peaks_lie_in_their_qrs_and_a_detector_finds_them() -> None:
    near = []
    for one in clinic()[:40]:
        found = r_peaks(one.ecg.rhythm)
        near += [np.abs(found - peak).min() <= 0.08 * 250 for peak in one.r_peaks]
        for peak, beat in zip(one.r_peaks, one.waves, strict=True):
            assert beat.qrs[0] <= peak <= beat.qrs[1]
    assert np.mean(near) > 0.98


def test_amplitudes_are_those_of_v5_without_noise() -> None:
    for seed in SEEDS:
        one = made(replace(QUIET, heart_rate_bpm=62.0, rate_hz=1000.0), seed)
        v5 = one.clean[LEADS.index("V5")]
        base = [v5[beat.qrs[0] - 6 : beat.qrs[0]].mean() for beat in one.waves]
        j = [v5[beat.qrs[1]] - line for beat, line in zip(one.waves, base, strict=True)]
        r = [v5[slice(*beat.qrs)].max() - line for beat, line in zip(one.waves, base, strict=True)]
        t = [v5[slice(*(beat.t or beat.qrs))] for beat in one.waves if beat.t]
        farthest = [part[np.abs(part).argmax()] for part in t]

        assert one.truths["j_amplitude"] == pytest.approx(np.mean(j), abs=0.02)
        assert one.truths["r_amplitude"] == pytest.approx(np.mean(r), rel=0.05, abs=0.02)
        assert one.truths["t_amplitude"] == pytest.approx(np.mean(farthest), rel=0.1, abs=0.03)


def test_qt_shortens_with_the_rate() -> None:
    slow, fast = (
        np.mean(
            [
                simulate_ecg(replace(QUIET, heart_rate_bpm=rate), seed).truths["qt_interval"]
                for seed in SEEDS
            ]
        )
        for rate in (50.0, 120.0)
    )

    assert slow - fast > 80


# --- Rhythms ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "yes"),
    [
        (QUIET, set()),
        (replace(QUIET, pr_ms=240.0), {"first_degree_av_block"}),
        (replace(QUIET, pr_ms=196.0), set()),
        (replace(QUIET, heart_rate_bpm=48.0), {"sinus_bradycardia"}),
        (replace(QUIET, heart_rate_bpm=130.0), {"sinus_tachycardia"}),
        (replace(QUIET, conduction=Conduction.RBBB), {"rbbb"}),
        (replace(QUIET, conduction=Conduction.LBBB), {"lbbb"}),
        (replace(QUIET, conduction=Conduction.INCOMPLETE_RBBB), set()),
        (replace(QUIET, conduction=Conduction.DELAYED, qrs_ms=130.0), set()),
        (AF, {"atrial_fibrillation"}),
        (replace(AF, heart_rate_bpm=140.0), {"atrial_fibrillation"}),
        (replace(AF, heart_rate_bpm=45.0), {"atrial_fibrillation"}),
        (replace(AF, conduction=Conduction.RBBB), {"atrial_fibrillation", "rbbb"}),
        (
            replace(QUIET, pr_ms=250.0, heart_rate_bpm=50.0, conduction=Conduction.LBBB),
            {"first_degree_av_block", "sinus_bradycardia", "lbbb"},
        ),
        (replace(QUIET, rhythm=Rhythm.JUNCTIONAL, heart_rate_bpm=45.0), set()),
        (replace(QUIET, rhythm=Rhythm.VENTRICULAR, heart_rate_bpm=160.0), set()),
    ],
)
def test_classes(wanted: EcgWanted, yes: set[str]) -> None:
    scores = {"sex", *(name for name, task in ECG_TASKS.items() if task.unit == "{score}")}
    truths = made(wanted, 1).truths

    assert {name for name in scores - {"sex"} if truths[name] == 1.0} == yes


def test_fibrillation_has_no_p_no_pr_and_no_regularity() -> None:
    for seed in SEEDS:
        one, sinus = made(AF, seed), made(replace(QUIET, heart_rate_bpm=85.0), seed)

        assert all(beat.p is None for beat in one.waves)
        assert "pr_interval" not in one.truths
        spread = [np.std(np.diff(x.r_peaks)) / np.mean(np.diff(x.r_peaks)) for x in (one, sinus)]
        assert spread[0] > 0.08 > spread[1]


def test_fibrillation_waves_are_as_high_as_asked_for() -> None:
    fine, coarse = (made(replace(AF, fibrillation_mv=size), 2) for size in (0.01, 0.15))
    ratio = np.std(coarse.clean - fine.clean, axis=1)

    assert ratio[LEADS.index("V1")] > 0.05
    assert np.array_equal(fine.r_peaks, coarse.r_peaks)


def test_flutter_is_neither_yes_nor_no_for_fibrillation() -> None:
    one = made(replace(QUIET, rhythm=Rhythm.ATRIAL_FLUTTER), 1)

    assert "atrial_fibrillation" not in one.truths
    assert "pr_interval" not in one.truths


def test_beats_of_the_ventricles_own_are_wide_alike_and_have_no_usual_intervals() -> None:
    one = made(replace(QUIET, rhythm=Rhythm.VENTRICULAR, heart_rate_bpm=150.0), 1)
    width = {round(1000 * (beat.qrs[1] - beat.qrs[0]) / 500, -1) for beat in one.waves}

    assert min(width) >= 120
    assert len(width) == 1
    assert all(beat.p is None for beat in one.waves)
    assert not {"pr_interval", "qrs_duration", "r_amplitude"} & set(one.truths)


def test_p_waves_can_be_taken_away_and_nothing_else_changes() -> None:
    with_p, without = made(QUIET, 4), made(replace(QUIET, p_visible=False), 4)
    changed = np.abs(with_p.clean - without.clean).max(axis=0)

    assert all(beat.p is None for beat in without.waves)
    assert not {"pr_interval", "sinus_bradycardia"} & set(without.truths)
    assert without.truths["atrial_fibrillation"] == 0.0
    assert changed.max() > 0.03
    for beat in with_p.waves:
        assert changed[slice(*beat.qrs)].max() < 0.02


def test_premature_beats_come_early_and_those_of_the_ventricles_are_wide() -> None:
    one = made(replace(QUIET, premature_ventricular=0.3, duration_s=30.0), 3)
    wide = one.origins == 2
    width = np.array([beat.qrs[1] - beat.qrs[0] for beat in one.waves])
    before = np.diff(one.r_peaks, prepend=one.r_peaks[0])

    assert 2 <= wide.sum() <= len(wide) / 2
    assert width[wide].min() > width[~wide].max()
    assert np.median(before[wide][before[wide] > 0]) < 0.9 * np.median(before[~wide])
    assert one.truths["qrs_duration"] < 120


# --- Shapes -----------------------------------------------------------------------------------


def test_rbbb_ends_to_the_right_and_forward() -> None:
    for seed in SEEDS:
        one = made(replace(QUIET, conduction=Conduction.RBBB, qrs_ms=140.0), seed)
        late = slice(round(0.6 * 70), 70)  # of the QRS, at 500 Hz
        ends = {
            name: np.mean([row[beat.qrs[0] :][late].mean() for beat in one.waves])
            for name, row in zip(LEADS, one.clean, strict=True)
        }

        assert ends["V1"] > 0.05
        assert ends["V6"] < 0
        assert one.truths["qrs_duration"] >= 119.9


def test_lbbb_goes_to_the_left_and_back_and_t_against_it_unless_asked() -> None:
    for seed in SEEDS:
        wanted = replace(QUIET, conduction=Conduction.LBBB, heart_rate_bpm=60.0)
        for concordant in (False, True):
            one = made(replace(wanted, concordant_t=concordant), seed)
            area = {
                name: np.mean([row[slice(*beat.qrs)].sum() for beat in one.waves])
                for name, row in zip(LEADS, one.clean, strict=True)
            }
            beat = one.waves[1]
            assert beat.t is not None
            after = {
                name: row[slice(*beat.t)].sum() for name, row in zip(LEADS, one.clean, strict=True)
            }

            assert area["V1"] < 0 < area["V6"]
            assert bool(after["V1"] * area["V1"] > 0) is concordant


def test_men_and_women_differ_with_overlap() -> None:
    men, women = (
        [simulate_ecg(replace(QUIET, male=male), seed).truths for seed in range(60)]
        for male in (True, False)
    )

    def mean(truths: Sequence[Mapping[str, float]], name: str) -> float:
        return float(np.mean([one[name] for one in truths]))

    assert mean(men, "sex") == 1.0
    assert mean(women, "sex") == 0.0
    assert mean(men, "qt_interval") < mean(women, "qt_interval")
    assert mean(men, "t_amplitude") > mean(women, "t_amplitude")
    assert mean(men, "r_amplitude") > mean(women, "r_amplitude")
    lowest = min(one["r_amplitude"] for one in men)
    assert lowest < mean(women, "r_amplitude")


# --- A clinic's worth -------------------------------------------------------------------------


def test_each_class_has_its_share_and_a_third_has_none() -> None:
    rng = np.random.default_rng(0)
    count = 4000
    found: Counter[str] = Counter()
    for _ in range(count):
        wanted = draw_wanted(rng)
        rate, sinus = wanted.heart_rate_bpm or 0, wanted.rhythm is Rhythm.SINUS
        has = {
            "af": wanted.rhythm is Rhythm.ATRIAL_FIBRILLATION,
            "rbbb": wanted.conduction is Conduction.RBBB,
            "lbbb": wanted.conduction is Conduction.LBBB,
            "slow": sinus and rate < 60,
            "fast": sinus and rate > 100,
            "long": sinus and (wanted.pr_ms or 0) > 200,
        }
        found.update(name for name, there in has.items() if there)
        found["none"] += not any(has.values())

    shares = {name: number / count for name, number in found.items()}
    assert 0.28 < shares.pop("none") < 0.42
    assert all(0.08 <= share <= 0.18 for share in shares.values()), shares


def test_what_is_drawn_can_be_simulated_and_is_plausible() -> None:
    for one in clinic():
        for name, value in one.truths.items():
            task = ECG_TASKS[name]
            assert task.low <= value <= task.high, (one.wanted, name, value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"heart_rate_bpm": 400.0}, "heart_rate_bpm of 400"),
        ({"pr_ms": 20.0}, "pr_ms"),
        ({"conduction": Conduction.LBBB, "qrs_ms": 100.0}, "give 120 to 220 ms"),
        ({"qrs_ms": 130.0}, "conduction normal"),
        ({"qrs_ms": 110.0, "qt_ms": 210.0}, "no T wave"),
        ({"padding_s": 4.5}, "padding"),
        ({"rhythm": Rhythm.VENTRICULAR, "conduction": Conduction.RBBB}, "leave it normal"),
        ({"rate_hz": 10.0}, "Hz"),
    ],
)
def test_what_cannot_be_is_refused_in_words(options: dict[str, object], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        EcgWanted(**options)  # type: ignore[arg-type]


# --- As networks take them --------------------------------------------------------------------


def test_inputs_and_truths_for_training() -> None:
    spec = WaveformInput(samples=1024, rate_hz=200.0, leads=LEADS)
    inputs, truths = generate_inputs(3, 12, spec)
    again, _ = generate_inputs(3, 4, spec)

    assert inputs.shape == (12, 1024, 12)
    assert truths.shape == (12, len(OUTPUTS))
    assert tuple(ECG_TASKS) == OUTPUTS
    assert np.isfinite(inputs).all()
    assert np.array_equal(inputs[:4], again)
    assert not np.array_equal(inputs[:4], generate_inputs(4, 4, spec)[0])
    known = truths[:, OUTPUTS.index("rbbb")]
    assert set(known) <= {0.0, 1.0}


def test_median_beats_for_training() -> None:
    spec = WaveformInput(samples=600, rate_hz=500.0, leads=("I", "II", "V5"), signal=Signal.MEDIAN)
    inputs, truths = generate_inputs(1, 4, spec)

    assert inputs.shape == (4, 600, 3)
    for beat, truth in zip(inputs, truths, strict=True):
        r = truth[OUTPUTS.index("r_amplitude")]
        assert beat[150:280, 2].max() == pytest.approx(r, rel=0.25, abs=0.15)
