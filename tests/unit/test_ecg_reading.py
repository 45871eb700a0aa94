"""ECGs out of DICOM objects, WFDB records and tables: millivolts in a fixed order, or why not."""

from __future__ import annotations

import builtins
import contextlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from pydicom import Dataset, dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import FileMetaDataset
from pydicom.uid import (
    AmbulatoryECGWaveformStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    General32bitECGWaveformStorage,
    GeneralECGWaveformStorage,
    TwelveLeadECGWaveformStorage,
    UltrasoundImageStorage,
    generate_uid,
)

from models.ecg.leads import OF_I_AND_II, lead_of_code, lead_of_words
from models.ecg.reading import is_ecg_file, read_dicom_ecg, read_ecg
from models.ecg.recording import INDEPENDENT, LEADS, Doubt, EcgError, Strip

Floats = NDArray[np.float64]

NUMBERS = dict(zip(LEADS, (1, 2, 61, 62, 63, 64, 3, 4, 5, 6, 7, 8), strict=True))


def heart(rate_hz: float = 500.0, seconds: float = 10.0) -> Floats:
    """(12, samples) mV: beats of one shape, the limb leads in keeping with each other."""
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    phase = (times % 0.8) - 0.4
    course = sum(
        height * np.exp(-0.5 * np.square((phase - at) / width))
        for height, at, width in ((0.12, -0.17, 0.02), (1.0, 0.0, 0.012), (0.3, 0.25, 0.04))
    )
    later = np.roll(course, round(0.006 * rate_hz))
    one, two = 0.6 * course, 0.5 * course + 0.4 * later
    limbs = [a * one + b * two for a, b in (OF_I_AND_II[name] for name in LEADS[:6])]
    chest = [(0.3 * at - 0.5) * course + 0.2 * later for at in range(6)]
    return np.asarray([*limbs, *chest])


def code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def channel(
    name: str,
    *,
    scheme: str = "MDC",
    step: float = 0.005,
    unit: str | None = "mV",
    baseline: float = 0.0,
) -> Dataset:
    item = Dataset()
    value = {"MDC": f"2:{NUMBERS[name]}", "SCPECG": f"5.6.3-9-{NUMBERS[name]}"}.get(scheme, "x")
    item.ChannelSourceSequence = [code(value, scheme, f"Lead {name}")]
    item.ChannelSensitivity = step
    item.ChannelSensitivityCorrectionFactor = 1
    item.ChannelBaseline = baseline
    item.ChannelSampleSkew = 0
    if unit:
        item.ChannelSensitivityUnitsSequence = [code(unit, "UCUM", unit)]
    return item


def group(
    rows: Floats,
    names: Sequence[str] = LEADS,
    *,
    rate_hz: float = 500.0,
    kind: str = "SS",
    label: str = "RHYTHM",
    original: bool = True,
    offset_ms: float = 0.0,
    scheme: str = "MDC",
    step: float = 0.005,
    unit: str | None = "mV",
) -> Dataset:
    """A multiplex group of these rows, in steps of ``step`` of the unit."""
    dtype = {"SB": "i1", "UB": "u1", "SS": "<i2", "US": "<u2", "SL": "<i4", "UL": "<u4"}[kind]
    middle = 2 ** (8 * np.dtype(dtype).itemsize - 1) if kind[0] == "U" else 0
    item = Dataset()
    item.WaveformOriginality = "ORIGINAL" if original else "DERIVED"
    item.MultiplexGroupLabel = label
    item.MultiplexGroupTimeOffset = offset_ms
    item.NumberOfWaveformChannels = len(names)
    item.NumberOfWaveformSamples = rows.shape[1]
    item.SamplingFrequency = rate_hz
    item.WaveformBitsAllocated = 8 * np.dtype(dtype).itemsize
    item.WaveformSampleInterpretation = kind
    item.ChannelDefinitionSequence = [
        channel(name, scheme=scheme, step=step, unit=unit, baseline=-middle * step)
        for name in names
    ]
    steps = np.rint(rows / step) + middle
    item.WaveformData = steps.astype(dtype).T.tobytes()
    if len(item.WaveformData) % 2:
        item.WaveformData += b"\0"
    return item


def ecg_object(*groups: Dataset, sop_class: str = TwelveLeadECGWaveformStorage) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, generate_uid()
    dataset.Modality = "ECG"
    dataset.WaveformSequence = list(groups)
    return dataset


def write(dataset: Dataset, path: Path) -> Path:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def doubts(troubles: Sequence[object]) -> set[Doubt]:
    return {getattr(trouble, "doubt") for trouble in troubles}  # noqa: B009


@pytest.fixture(scope="module")
def real_path() -> Path:
    path = get_testdata_file("waveform_ecg.dcm", download=False)
    assert isinstance(path, str)
    return Path(path)


# The real one


def test_a_real_carts_recording_is_read_whole(real_path: Path) -> None:
    ecg = read_ecg(real_path)
    assert ecg.rhythm.rate_hz == 1000.0
    assert ecg.rhythm.millivolts.shape == (12, 10000)
    assert ecg.rhythm.channels == tuple(range(1, 13))
    assert ecg.median is not None
    assert ecg.median.millivolts.shape == (12, 1200)
    assert ecg.median.group == 2
    raw = dcmread(real_path).waveform_array(0)
    np.testing.assert_allclose(ecg.rhythm.millivolts.T, raw / 1000, atol=1e-6)
    measured = ecg.measured
    assert (measured.rr_ms, measured.pr_ms, measured.qrs_ms, measured.qt_ms) == (982, 161, 75, 368)
    assert measured.statements == ("RITMO SINUSALE", "ECG NORMALE")
    assert ecg.troubles == ()
    assert ecg.unusable is None
    assert is_ecg_file(real_path)


# Objects


@pytest.mark.parametrize(
    "sop_class",
    [
        TwelveLeadECGWaveformStorage,
        GeneralECGWaveformStorage,
        AmbulatoryECGWaveformStorage,
        General32bitECGWaveformStorage,
    ],
)
@pytest.mark.parametrize("scheme", ["MDC", "SCPECG"])
def test_every_class_and_either_scheme_is_read(tmp_path: Path, sop_class: str, scheme: str) -> None:
    kind = "SL" if sop_class == General32bitECGWaveformStorage else "SS"
    path = write(
        ecg_object(group(heart(), scheme=scheme, kind=kind), sop_class=sop_class), tmp_path / "x"
    )
    assert is_ecg_file(path)
    ecg = read_ecg(path)
    np.testing.assert_allclose(ecg.rhythm.millivolts, heart(), atol=0.0026)
    assert ecg.troubles == ()


@pytest.mark.parametrize("kind", ["SB", "UB", "SS", "US", "SL", "UL"])
def test_samples_of_every_kind_become_the_same_millivolts(tmp_path: Path, kind: str) -> None:
    path = write(ecg_object(group(heart(), kind=kind, step=0.02)), tmp_path / "x.dcm")
    np.testing.assert_allclose(read_ecg(path).rhythm.millivolts, heart(), atol=0.0101)


def test_samples_of_a_big_endian_object_are_turned(tmp_path: Path) -> None:
    dataset = ecg_object(group(heart()))
    item = dataset.WaveformSequence[0]
    item.WaveformData = np.frombuffer(item.WaveformData, "<i2").astype(">i2").tobytes()
    item.WaveformPaddingValue = np.asarray([-32768], ">i2").tobytes()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    np.testing.assert_allclose(read_ecg(tmp_path / "x.dcm").rhythm.millivolts, heart(), atol=0.0026)
    again = dcmread(tmp_path / "x.dcm")
    np.testing.assert_allclose(read_dicom_ecg(again).rhythm.millivolts, heart(), atol=0.0026)


@pytest.mark.parametrize(
    ("unit", "per_mv"), [("uV", 1000.0), ("mV", 1.0), ("V", 0.001), ("microvolt", 1000.0)]
)
def test_the_unit_counts(unit: str, per_mv: float) -> None:
    ecg = read_dicom_ecg(ecg_object(group(heart() * per_mv, step=0.005 * per_mv, unit=unit)))
    np.testing.assert_allclose(ecg.rhythm.millivolts, heart(), atol=0.0026)


def test_correction_factor_and_baseline_count() -> None:
    one = group(heart())
    one.ChannelDefinitionSequence[0].ChannelSensitivityCorrectionFactor = 1.5
    one.ChannelDefinitionSequence[7].ChannelBaseline = 0.25
    row = read_dicom_ecg(ecg_object(one)).rhythm
    np.testing.assert_allclose(row.lead("I"), 1.5 * heart()[0], atol=0.004)
    np.testing.assert_allclose(row.lead("V2"), heart()[7] + 0.25, atol=0.0026)


@pytest.mark.parametrize("unit", [None, "mm[Hg]"])
def test_without_a_voltage_unit_the_voltages_are_doubted(unit: str | None) -> None:
    ecg = read_dicom_ecg(ecg_object(group(heart() * 1000, step=5.0, unit=unit)))
    said = [trouble for trouble in ecg.troubles if trouble.doubt is Doubt.SCALE]
    assert len(said) == 1
    assert said[0].leads == LEADS
    assert "(003A,0211)" in said[0].words
    np.testing.assert_allclose(ecg.rhythm.millivolts, heart(), atol=0.0026)


def test_without_a_sensitivity_the_voltages_are_doubted() -> None:
    one = group(heart())
    del one.ChannelDefinitionSequence[3].ChannelSensitivity
    ecg = read_dicom_ecg(ecg_object(one))
    assert ("aVR",) in [t.leads for t in ecg.troubles if "(003A,0210)" in t.words]


def test_a_unit_that_is_wrong_by_a_thousand_ends_it() -> None:
    ecg = read_dicom_ecg(ecg_object(group(heart(), step=0.005, unit="V")))
    assert ecg.unusable is not None
    assert "sensitivity or unit is wrong" in ecg.unusable


def test_padding_is_a_gap() -> None:
    rows = heart()
    one = group(rows)
    steps = np.frombuffer(one.WaveformData, "<i2").reshape(-1, 12).copy()
    steps[100:110, 6] = -32768
    one.WaveformData = steps.tobytes()
    one.WaveformPaddingValue = np.asarray([-32768], "<i2").tobytes()
    strip = read_dicom_ecg(ecg_object(one)).rhythm
    assert np.isnan(strip.lead("V1")[100:110]).all()
    assert np.isnan(strip.millivolts).sum() == 10


def test_channels_sampled_one_after_another_are_moved_into_place() -> None:
    one = group(heart())
    one.ChannelDefinitionSequence[8].ChannelSampleSkew = 3
    one.ChannelDefinitionSequence[9].ChannelSampleSkew = 0.3
    strip = read_dicom_ecg(ecg_object(one)).rhythm
    assert np.isnan(strip.lead("V3")[:3]).all()
    np.testing.assert_allclose(strip.lead("V3")[3:], heart()[8][:-3], atol=0.0026)
    np.testing.assert_allclose(strip.lead("V4"), heart()[9], atol=0.0026)


def test_leads_in_another_order_find_their_places() -> None:
    names = ("V6", "aVF", "I", "V1", "II", "III", "aVR", "aVL", "V2", "V3", "V4", "V5")
    rows = np.stack([heart()[LEADS.index(name)] for name in names])
    strip = read_dicom_ecg(ecg_object(group(rows, names))).rhythm
    np.testing.assert_allclose(strip.millivolts, heart(), atol=0.0026)
    assert strip.channels == tuple(names.index(name) + 1 for name in LEADS)


@pytest.mark.parametrize("limbs", [("I", "II"), ("I", "III"), ("aVR", "aVF"), ("II", "aVL")])
def test_any_two_limb_leads_give_the_others(limbs: tuple[str, str]) -> None:
    names = (*limbs, *INDEPENDENT[2:])
    rows = np.stack([heart()[LEADS.index(name)] for name in names])
    strip = read_dicom_ecg(ecg_object(group(rows, names))).rhythm
    np.testing.assert_allclose(strip.millivolts, heart(), atol=0.01)
    assert set(strip.derived) == set(LEADS) - set(names)
    assert strip.channels[LEADS.index("V1")] == 3
    assert all(strip.channels[LEADS.index(name)] == 0 for name in strip.derived)


@pytest.mark.parametrize(
    ("value", "lead"),
    [
        ("2:1", ("I", 1)),
        ("2:61", ("III", 1)),
        ("2:8", ("V6", 1)),
        ("2:65", ("aVR", -1)),
        ("5.6.3-9-62", ("aVR", 1)),
        ("5.6.3-9-5", ("V3", 1)),
        ("131136", ("aVF", 1)),
        ("MDC_ECG_LEAD_AVL", ("aVL", 1)),
        ("MDC_ECG_LEAD_V2", ("V2", 1)),
        ("2:10", None),
        ("5.6.3-9-0", None),
        ("11", None),
        ("", None),
    ],
)
def test_codes_of_leads(value: str, lead: tuple[str, int] | None) -> None:
    assert lead_of_code(value) == lead


@pytest.mark.parametrize(
    ("words", "lead"),
    [
        ("Lead I (Einthoven)", "I"),
        ("LEAD II", "II"),
        ("aVR, augmented voltage, right", "aVR"),
        ("avf", "aVF"),
        ("ECG V3", "V3"),
        ("iii", "III"),
        ("V3R", None),
        ("V10", None),
        ("IV", None),
        ("Respiration", None),
        ("", None),
    ],
)
def test_words_for_leads(words: str, lead: str | None) -> None:
    assert lead_of_words(words) == lead


def test_where_no_code_is_known_words_and_labels_tell() -> None:
    one = group(heart(), scheme="99CART")
    for item, name in zip(one.ChannelDefinitionSequence, LEADS, strict=True):
        if name == "V4":
            del item.ChannelSourceSequence
            item.ChannelLabel = "V4"
    strip = read_dicom_ecg(ecg_object(one)).rhythm
    np.testing.assert_allclose(strip.millivolts, heart(), atol=0.0026)


def test_an_upside_down_avr_is_turned() -> None:
    rows = heart()
    rows[3] *= -1
    one = group(rows)
    one.ChannelDefinitionSequence[3].ChannelSourceSequence[0].CodeValue = "2:65"
    ecg = read_dicom_ecg(ecg_object(one))
    np.testing.assert_allclose(ecg.rhythm.millivolts, heart(), atol=0.0026)
    assert ecg.troubles == ()


def test_a_lead_named_twice_is_told() -> None:
    one = group(heart())
    one.ChannelDefinitionSequence[11].ChannelSourceSequence = [code("2:7", "MDC", "Lead V5")]
    ecg = read_dicom_ecg(ecg_object(one))
    assert any(t.doubt is Doubt.IDENTITY and t.leads == ("V5",) for t in ecg.troubles)
    assert any(t.doubt is Doubt.MISSING and t.leads == ("V6",) for t in ecg.troubles)
    np.testing.assert_allclose(ecg.rhythm.lead("V5"), heart()[10], atol=0.0026)


# Groups


def test_the_rhythm_is_the_original_group_wherever_it_stands() -> None:
    beat = group(heart(seconds=1.2), label="MEDIAN BEAT", original=False)
    ecg = read_dicom_ecg(ecg_object(beat, group(heart())))
    assert ecg.rhythm.group == 2
    assert ecg.rhythm.duration_s == 10.0
    assert ecg.median is not None
    assert ecg.median.group == 1


def test_without_a_median_beat_there_is_none() -> None:
    assert read_dicom_ecg(ecg_object(group(heart()))).median is None


def test_groups_of_some_leads_each_at_once_are_put_together() -> None:
    rows = heart()
    parts = [group(rows[:6], LEADS[:6]), group(rows[6:], LEADS[6:])]
    ecg = read_dicom_ecg(ecg_object(*parts))
    np.testing.assert_allclose(ecg.rhythm.millivolts, heart(), atol=0.0026)
    assert ecg.rhythm.group == 1
    assert ecg.rhythm.channels == (1, 2, 3, 4, 5, 6, 0, 0, 0, 0, 0, 0)
    assert ecg.troubles == ()


def test_leads_recorded_one_after_another_stay_where_they_were_and_end_it() -> None:
    rows, length = heart(), 1250
    parts = [
        group(
            rows[3 * at : 3 * at + 3, at * length : (at + 1) * length], LEADS[3 * at : 3 * at + 3]
        )
        for at in range(4)
    ]
    for at, part in enumerate(parts):
        part.MultiplexGroupTimeOffset = 2500 * at
    ecg = read_dicom_ecg(ecg_object(*parts))
    strip = ecg.rhythm
    assert strip.millivolts.shape == (12, 5000)
    np.testing.assert_allclose(strip.lead("V2")[2500:3750], heart()[7, 2500:3750], atol=0.0026)
    assert np.isnan(strip.lead("V2")[:2500]).all()
    assert ecg.unusable is not None
    assert "not recorded at the same time" in ecg.unusable


def test_a_group_at_another_rate_is_left_out_and_said() -> None:
    rows = heart()
    ecg = read_dicom_ecg(
        ecg_object(group(rows[:8], LEADS[:8]), group(heart(250.0)[8:], LEADS[8:], rate_hz=250.0))
    )
    said = [t for t in ecg.troubles if "group 2" in t.words]
    assert said[0].leads == ("V3", "V4", "V5", "V6")
    assert np.isnan(ecg.rhythm.lead("V3")).all()


def test_of_two_whole_groups_the_longer_is_read() -> None:
    ecg = read_dicom_ecg(ecg_object(group(heart(seconds=5.0)), group(heart(seconds=8.0))))
    assert (ecg.rhythm.group, ecg.rhythm.duration_s) == (2, 8.0)


# Broken objects


Break = Callable[[Dataset], None]


def cut_data(item: Dataset) -> None:
    item.WaveformData = item.WaveformData[:1000]


def no_data(item: Dataset) -> None:
    del item.WaveformData


def no_rate(item: Dataset) -> None:
    item.SamplingFrequency = 0


def no_channels(item: Dataset) -> None:
    item.NumberOfWaveformChannels = 0


def no_samples(item: Dataset) -> None:
    item.NumberOfWaveformSamples = 0


def many_samples(item: Dataset) -> None:
    item.NumberOfWaveformSamples = 2**32 - 1


def fewer_definitions(item: Dataset) -> None:
    item.ChannelDefinitionSequence = item.ChannelDefinitionSequence[:9]


def speech(item: Dataset) -> None:
    item.WaveformSampleInterpretation = "MB"
    item.WaveformBitsAllocated = 8


def other_bits(item: Dataset) -> None:
    item.WaveformBitsAllocated = 24


def no_interpretation(item: Dataset) -> None:
    del item.WaveformSampleInterpretation


def no_names(item: Dataset) -> None:
    for definition in item.ChannelDefinitionSequence:
        definition.ChannelSourceSequence = [code("2:0", "MDC", "unknown")]


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (cut_data, r"\(5400,1010\) holds 1000 bytes where .* take 120000"),
        (no_data, r"\(5400,1010\) holds 0 bytes"),
        (no_rate, r"\(003A,001A\) is 0"),
        (no_channels, r"\(003A,0005\) is 0"),
        (no_samples, r"\(003A,0010\) is 0"),
        (many_samples, r"\(003A,0010\) is 4294967295"),
        (fewer_definitions, r"\(003A,0200\) describes 9"),
        (speech, r"\(5400,1006\) is MB, mu-law"),
        (other_bits, r"\(5400,1004\) 24"),
        (no_interpretation, r"\(5400,1006\) is missing"),
        (no_names, r"\(003A,0208\)"),
    ],
)
def test_what_cannot_be_read_is_said_with_its_tag(break_it: Break, words: str) -> None:
    one = group(heart())
    break_it(one)
    with pytest.raises(EcgError, match=words):
        read_dicom_ecg(ecg_object(one))


def test_an_object_without_waveforms_or_of_another_class_is_no_ecg(tmp_path: Path) -> None:
    with pytest.raises(EcgError, match=r"\(5400,0100\)"):
        read_dicom_ecg(ecg_object())
    other = ecg_object(group(heart()), sop_class=UltrasoundImageStorage)
    with pytest.raises(EcgError, match=r"\(0008,0016\)"):
        read_dicom_ecg(other)
    assert not is_ecg_file(write(other, tmp_path / "us.dcm"))


@pytest.mark.parametrize("length", [0, 100, 200, 3000, 60_000, 119_000])
def test_a_file_that_ends_too_early_is_an_error_and_no_crash(tmp_path: Path, length: int) -> None:
    whole = write(ecg_object(group(heart())), tmp_path / "whole.dcm").read_bytes()
    path = tmp_path / "cut.dcm"
    path.write_bytes(whole[:length])
    with pytest.raises(EcgError):
        read_ecg(path)


def test_bytes_that_were_flipped_are_read_or_refused(tmp_path: Path, real_path: Path) -> None:
    rng = np.random.default_rng(1)
    whole = np.frombuffer(real_path.read_bytes(), np.uint8)
    headers = np.flatnonzero(np.arange(len(whole)) < 6000)
    path = tmp_path / "flipped.dcm"
    for _ in range(40):
        bent = whole.copy()
        bent[rng.choice(headers, 20)] = rng.integers(0, 256, 20)
        path.write_bytes(bent.tobytes())
        with contextlib.suppress(EcgError):
            read_ecg(path)


def test_a_recording_longer_than_headers_may_be_is_read(tmp_path: Path) -> None:
    path = write(ecg_object(group(heart(seconds=240.0))), tmp_path / "long.dcm")
    assert path.stat().st_size > 2 * 1024**2
    assert read_ecg(path).rhythm.duration_s == 240.0


# WFDB


def write_wfdb(folder: Path, name: str, rows: Floats, names: Sequence[str], unit: str) -> Path:
    """A record as PhysioNet's format has it, by hand: format 16, one file."""
    per_unit = {"mV": 1000, "uV": 1}[unit]
    (folder / f"{name}.dat").write_bytes(np.rint(rows.T * per_unit).astype("<i2").tobytes())
    lines = [f"{name} {len(names)} 500 {rows.shape[1]}"]
    lines += [f"{name}.dat 16 {per_unit}(0)/{unit} 16 0 0 0 0 {lead}" for lead in names]
    path = folder / f"{name}.hea"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_wfdb_record_is_read(tmp_path: Path) -> None:
    pytest.importorskip("wfdb", reason="the extra ecg-files is not installed")
    path = write_wfdb(tmp_path, "a1", heart(), [name.lower() for name in LEADS], "mV")
    assert is_ecg_file(path)
    assert not is_ecg_file(path.with_suffix(".dat"))
    for place in (path, path.with_suffix(".dat")):
        strip = read_ecg(place).rhythm
        assert strip.rate_hz == 500.0
        np.testing.assert_allclose(strip.millivolts, heart(), atol=0.0006)


def test_a_wfdb_record_in_microvolts_with_other_signals_is_read(tmp_path: Path) -> None:
    pytest.importorskip("wfdb", reason="the extra ecg-files is not installed")
    rows = np.vstack([heart()[[0, 1, 6]] * 1000, np.zeros((1, 5000))])
    strip = read_ecg(write_wfdb(tmp_path, "a2", rows, ["I", "II", "V1", "RESP"], "uV")).rhythm
    np.testing.assert_allclose(strip.lead("V1"), heart()[6], atol=0.0006)
    np.testing.assert_allclose(strip.lead("aVF"), heart()[5], atol=0.002)
    assert np.isnan(strip.lead("V2")).all()


def test_wfdb_errors_name_the_file_and_the_next_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wfdb", reason="the extra ecg-files is not installed")
    path = write_wfdb(tmp_path, "a3", heart(), LEADS, "mV")
    path.with_suffix(".dat").write_bytes(b"\0" * 100)
    with pytest.raises(EcgError, match=r"a3\.hea cannot be read"):
        read_ecg(path)
    path.write_text(path.read_text().replace("a3.dat", "../secret.dat"))
    with pytest.raises(EcgError, match=r"a3\.hea cannot be read"):
        read_ecg(path)  # nothing outside the folder is opened
    with pytest.raises(EcgError, match=r"a4\.hea is missing"):
        read_ecg(tmp_path / "a4.hea")

    kept = builtins.__import__

    def without(name: str, *rest: object, **more: object) -> object:
        if name == "wfdb":
            raise ImportError(name)
        return kept(name, *rest, **more)  # type: ignore[arg-type]

    monkeypatch.delitem(sys.modules, "wfdb", raising=False)
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(EcgError, match=r"pip install echonode\[ecg-files\]"):
        read_ecg(path)


def test_the_real_records_are_read_and_fit_together(shared_data: Path) -> None:
    pytest.importorskip("wfdb", reason="the extra ecg-files is not installed")
    headers = sorted((shared_data / "ecg12").glob("*.hea"))
    if not headers:
        pytest.skip(f"no WFDB records in {shared_data / 'ecg12'}")
    for header in headers:
        ecg = read_ecg(header)
        assert ecg.rhythm.rate_hz == 500.0
        assert not any(trouble.doubt is Doubt.IDENTITY for trouble in ecg.troubles), header.name
        assert worst_misfit(ecg.rhythm) < 0.004
        assert ecg.unusable is None


def worst_misfit(strip: Strip) -> float:
    """mV by which a limb lead differs from what I and II make of it."""
    one, two = strip.lead("I").astype(float), strip.lead("II").astype(float)
    return max(
        float(np.abs(strip.lead(name) - (a * one + b * two)).max())
        for name, (a, b) in OF_I_AND_II.items()
    )


# Tables


def write_table(path: Path, names: Sequence[str], columns: Floats, *before: str) -> Path:
    lines = [*before, ",".join(names)]
    lines += [",".join(f"{value:.4f}" for value in sample) for sample in columns.T]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_table_with_its_rate_before_it_is_read(tmp_path: Path) -> None:
    names = ["v1", "AVF", "ii", "I", "V2", "V3", "V4", "V5", "V6"]
    rows = np.stack([heart()[[n.upper() for n in LEADS].index(name.upper())] for name in names])
    path = write_table(tmp_path / "x.csv", names, rows * 1000, "# rate_hz=500", "# unit=uV")
    assert is_ecg_file(path)
    strip = read_ecg(path).rhythm
    np.testing.assert_allclose(strip.millivolts, heart(), atol=0.001)
    assert set(strip.derived) == {"III", "aVR", "aVL"}


@pytest.mark.parametrize(("name", "per_s"), [("time_s", 1), ("time_ms", 1000), ("Time [ms]", 1000)])
def test_a_column_of_times_gives_the_rate(tmp_path: Path, name: str, per_s: float) -> None:
    times = np.arange(1800) / 360.0 * per_s
    rows = np.vstack([times, heart(360.0, 5.0)])
    strip = read_ecg(write_table(tmp_path / "x.csv", [name, *LEADS], rows)).rhythm
    assert strip.rate_hz == pytest.approx(360.0, rel=1e-3)
    np.testing.assert_allclose(strip.millivolts, heart(360.0, 5.0), atol=0.001)


def test_a_table_of_a_german_spreadsheet_with_units_and_gaps_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    lines = ["# rate_hz = 250", "I [uV];II [uV];V1 (mV)"]
    lines += [f"{at},5;{2 * at},0;{'' if at == 7 else '0,25'}" for at in range(2000)]
    path.write_text("\n".join(lines))
    strip = read_ecg(path).rhythm
    assert strip.lead("I")[10] == pytest.approx(0.0105)
    assert strip.lead("V1")[0] == pytest.approx(0.25)
    assert np.isnan(strip.lead("V1")[7])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "no line with the names"),
        ("# rate_hz=500\nI,II\n", "no samples"),
        ("I,II\n0,0\n1,1\n", "how quickly"),
        ("# rate_hz=fast\nI,II\n0,0\n", "no number"),
        ("# rate_hz=0\nI,II\n0,0\n", "samples a second"),
        ("# rate_hz=500\nA,B\n0,0\n", "none of the twelve leads"),
        ("# rate_hz=500\nI,I\n0,0\n", "lead I twice"),
        ("# rate_hz=500\nI,II\n0,0\n0\n", "line 4 of x.csv has 1 fields"),
        ("# rate_hz=500\nI,II\n0,zero\n", "line 3 of x.csv holds a field"),
        ("# rate_hz=500\n# unit=mmHg\nI,II\n0,0\n", "mmHg, which is no voltage"),
        ("time,I,II\n0,0,0\n1,0,0\n", "time_s or time_ms"),
        ("time_s,I,II\n0,0,0\n1,0,0\n5,0,0\n", "even steps"),
    ],
)
def test_what_is_wrong_with_a_table_is_said(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(EcgError, match=words):
        read_ecg(path)


def test_a_table_of_something_else_is_no_ecg(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("patient,age,sex\n1,2,3\n")
    assert not is_ecg_file(path)
    path.write_bytes(b"\xff\xfe\x00I,II\n")
    with pytest.raises(EcgError, match="UTF-8"):
        read_ecg(path)


def test_a_file_of_another_kind_is_refused_with_what_to_give(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("hello")
    assert not is_ecg_file(path)
    with pytest.raises(EcgError, match="WFDB header"):
        read_ecg(path)
    with pytest.raises(EcgError):
        read_ecg(tmp_path / "nowhere.dcm")
