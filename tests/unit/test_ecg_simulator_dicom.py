"""Simulated ECGs as DICOM objects: valid, and read back as what they were."""

from __future__ import annotations

import io
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    AmbulatoryECGWaveformStorage,
    General32bitECGWaveformStorage,
    GeneralECGWaveformStorage,
    TwelveLeadECGWaveformStorage,
)

from models.ecg.reading import read_dicom_ecg
from models.ecg.recording import LEADS, Doubt
from models.ecg.simulator import EcgWanted, Rhythm, SimulatedEcg, simulate_ecg
from models.ecg.simulator.dicom import EcgClass, Scheme, to_bytes, to_dicom

STUDY = "1.2.826.0.1.3680043.8.498.1"
PLAIN = EcgWanted()


@cache
def made(wanted: EcgWanted = PLAIN, seed: int = 3) -> SimulatedEcg:
    """A recording that several tests write; nobody changes it."""
    return simulate_ecg(wanted, seed)


def written(dataset: Dataset) -> Dataset:
    """The object as it comes out of a file."""
    return pydicom.dcmread(io.BytesIO(to_bytes(dataset)))


@pytest.mark.skipif(not shutil.which("dciodvfy"), reason="dicom3tools is not installed")
@pytest.mark.parametrize("scheme", Scheme)
@pytest.mark.parametrize("ecg_class", [EcgClass.TWELVE_LEAD, EcgClass.GENERAL, EcgClass.AMBULATORY])
@pytest.mark.parametrize("rich", [False, True])
def test_dciodvfy_finds_nothing_wrong(
    tmp_path: Path, ecg_class: EcgClass, scheme: Scheme, rich: bool
) -> None:
    # dciodvfy does not know the 32-bit class yet.
    fibrillation = EcgWanted(rhythm=Rhythm.ATRIAL_FIBRILLATION, rate_hz=1000.0)
    for wanted in (PLAIN, fibrillation):
        dataset = to_dicom(
            made(wanted),
            study_uid=STUDY,
            ecg_class=ecg_class,
            scheme=scheme,
            with_median=rich and ecg_class is not EcgClass.AMBULATORY,
            with_annotations=rich,
        )
        path = tmp_path / "ecg.dcm"
        path.write_bytes(to_bytes(dataset))

        said = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, check=False)

        assert said.returncode == 0
        assert "Error" not in said.stderr
        assert "Warning" not in said.stderr


@pytest.mark.parametrize(
    ("ecg_class", "sop_class"),
    [
        (EcgClass.TWELVE_LEAD, TwelveLeadECGWaveformStorage),
        (EcgClass.GENERAL, GeneralECGWaveformStorage),
        (EcgClass.AMBULATORY, AmbulatoryECGWaveformStorage),
        (EcgClass.GENERAL_32, General32bitECGWaveformStorage),
    ],
)
@pytest.mark.parametrize("scheme", Scheme)
def test_every_class_and_scheme_is_read_back_as_it_was(
    ecg_class: EcgClass, sop_class: str, scheme: Scheme
) -> None:
    one = made()
    dataset = written(to_dicom(one, study_uid=STUDY, ecg_class=ecg_class, scheme=scheme))
    read = read_dicom_ecg(dataset)

    assert dataset.SOPClassUID == sop_class
    assert read.rhythm.rate_hz == one.ecg.rhythm.rate_hz
    # III and the augmented leads fall between two steps of the converter.
    assert np.allclose(
        read.rhythm.millivolts, one.ecg.rhythm.millivolts, atol=0.51 * one.cart.step_mv
    )
    assert not any(trouble.doubt is Doubt.IDENTITY for trouble in read.troubles)
    assert read.median is None


def test_pydicom_and_we_read_the_same_voltages() -> None:
    one = made()
    dataset = written(to_dicom(one, study_uid=STUDY))

    assert np.allclose(
        dataset.waveform_array(0).T / 1000, read_dicom_ecg(dataset).rhythm.millivolts, atol=1e-6
    )


def test_the_median_beat_is_a_derived_group_with_r_where_the_trigger_says() -> None:
    one = made()
    dataset = written(to_dicom(one, study_uid=STUDY, with_median=True))
    rhythm, beat = dataset.WaveformSequence
    read = read_dicom_ecg(dataset).median

    assert (rhythm.WaveformOriginality, beat.WaveformOriginality) == ("ORIGINAL", "DERIVED")
    assert beat.NumberOfWaveformSamples == 600
    assert read is not None
    assert read.duration_s == pytest.approx(1.2)
    size = np.linalg.norm(read.millivolts, axis=0)
    assert abs(int(size.argmax()) - (beat.TriggerSamplePosition - 1)) <= 10


@pytest.mark.parametrize("scheme", Scheme)
def test_annotations_say_what_is_true(scheme: Scheme) -> None:
    one = made()
    measured = read_dicom_ecg(
        written(to_dicom(one, study_uid=STUDY, scheme=scheme, with_annotations=True))
    ).measured

    assert measured.pr_ms == pytest.approx(one.truths["pr_interval"], abs=0.51)
    assert measured.qrs_ms == pytest.approx(one.truths["qrs_duration"], abs=0.51)
    assert measured.qt_ms == pytest.approx(one.truths["qt_interval"], abs=0.51)
    assert measured.rr_ms == pytest.approx(60000 / one.truths["heart_rate"], abs=0.51)
    assert measured.statements == ("SIMULATED ECG, OF NO PATIENT",)


def test_marks_count_samples_from_one() -> None:
    one = made()
    notes = to_dicom(one, study_uid=STUDY, with_annotations=True).WaveformAnnotationSequence
    complexes = [
        tuple(note.ReferencedSamplePositions)
        for note in notes
        if "ReferencedSamplePositions" in note
        and note.ConceptNameCodeSequence[0].CodeValue == "10:1600"
    ]

    assert complexes == [(beat.qrs[0] + 1, beat.qrs[1]) for beat in one.waves]


def test_without_pr_none_is_written() -> None:
    one = made(EcgWanted(rhythm=Rhythm.ATRIAL_FIBRILLATION))
    read = read_dicom_ecg(written(to_dicom(one, study_uid=STUDY, with_annotations=True)))

    assert read.measured.pr_ms is None
    assert read.measured.qrs_ms is not None


def test_nothing_of_whom_was_drawn_stands_in_the_patient() -> None:
    for male in (True, False):
        dataset = to_dicom(made(EcgWanted(male=male)), study_uid=STUDY)
        assert dataset.PatientSex == "O"
        assert str(dataset.PatientName) == "SIMULATED^PATIENT"


def test_the_same_recording_has_the_same_uids_and_bytes_and_another_has_others() -> None:
    one, again = (to_dicom(made(), study_uid=STUDY) for _ in range(2))
    other = to_dicom(made(seed=4), study_uid=STUDY)

    assert to_bytes(one) == to_bytes(again)
    assert one.SOPInstanceUID != other.SOPInstanceUID
    assert one.SeriesInstanceUID == other.SeriesInstanceUID


def test_filters_and_steps_are_those_of_the_cart() -> None:
    one = made()
    channel = to_dicom(one, study_uid=STUDY).WaveformSequence[0].ChannelDefinitionSequence[0]
    quiet = to_dicom(made(EcgWanted(noise=0.0)), study_uid=STUDY)

    assert float(channel.ChannelSensitivity) == pytest.approx(one.cart.step_mv * 1000)
    assert float(channel.FilterHighFrequency) == one.cart.highest_hz
    assert "FilterLowFrequency" not in quiet.WaveformSequence[0].ChannelDefinitionSequence[0]
    assert len(LEADS) == to_dicom(one, study_uid=STUDY).WaveformSequence[0].NumberOfWaveformChannels


@pytest.mark.parametrize(
    ("wanted", "options", "says"),
    [
        (EcgWanted(rate_hz=2000.0), {}, "2000 Hz cannot be written as 12-lead"),
        (EcgWanted(duration_s=40.0), {}, "at most 16384"),
        (PLAIN, {"ecg_class": EcgClass.AMBULATORY, "with_median": True}, "one group"),
    ],
)
def test_what_an_object_does_not_hold_is_refused(
    wanted: EcgWanted, options: dict[str, object], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        to_dicom(made(wanted), study_uid=STUDY, **options)  # type: ignore[arg-type]
