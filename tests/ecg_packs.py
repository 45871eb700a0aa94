"""Packs that read ECGs, with networks that are tiny and untrained, and the ECGs to read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import dcmread
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from models.packs import WaveformInput, write_pack

REAL_ECG = Path(str(get_testdata_file("waveform_ecg.dcm")))
"""pydicom's own: a Mortara ELI 250, ten seconds of rhythm and the cart's median beat."""

SCORES = ("atrial_fibrillation", "sinus_tachycardia")
INTERVALS = {"heart_rate": ("/min", 70.0), "qrs_duration": ("ms", 90.0)}


def rhythm_pack(folder: Path, *, evidence: str = "patients") -> Path:
    """A pack that scores two rhythms on the recording as it was taken."""
    outputs = [
        {"name": name, "kind": "score", "unit": "{score}", "threshold": 0.01, "evidence": evidence,
         "tested_on": "nothing"}
        for name in SCORES
    ]  # fmt: skip
    spec = {"samples": 1024, "rate_hz": 100.0}
    return _written(folder, outputs, spec)


def beat_pack(folder: Path, *, evidence: str = "patients") -> Path:
    """A pack that says about 70 a minute and 90 ms whatever median beat it sees."""
    outputs = [
        {"name": name, "kind": "measurement", "unit": unit, "scale": 1.0, "offset": usual,
         "low_error": -9, "high_error": 9, "evidence": evidence, "tested_on": "nothing"}
        for name, (unit, usual) in INTERVALS.items()
    ]  # fmt: skip
    spec = {"samples": 256, "rate_hz": 200.0, "leads": ["I", "II", "V5"], "signal": "median"}
    return _written(folder, outputs, spec)


def real_ecg(**attributes: Any) -> Dataset:
    """pydicom's ECG with other attributes."""
    dataset = dcmread(REAL_ECG)
    for keyword, value in attributes.items():
        setattr(dataset, keyword, value)
        if keyword == "SOPInstanceUID":
            dataset.file_meta.MediaStorageSOPInstanceUID = value
    return dataset


def flat_ecg(**attributes: Any) -> Dataset:
    """The same with every electrode off: nothing may be concluded from it."""
    dataset = real_ecg(**attributes)
    for group in dataset.WaveformSequence:
        group.WaveformData = bytes(len(group.WaveformData))
    return dataset


def _written(folder: Path, outputs: list[dict[str, Any]], spec: dict[str, Any]) -> Path:
    import keras

    from models.networks import build_network

    folder.mkdir(parents=True)
    keras.utils.set_random_seed(5)
    settings = {"outputs": len(outputs), "width": 0.0625}
    network = build_network("ribeiro", WaveformInput(**spec), settings)
    head = network.layers[-1]
    # As nature has it, but small: a number near zero, which scale and offset turn into the usual.
    head.set_weights([0.05 * np.sign(each) for each in head.get_weights()])
    manifest = {
        "name": folder.name,
        "version": "0.0.1",
        "title": "for tests",
        "kind": "waveform",
        "licence": "Apache-2.0",
        "trained_on": "nothing",
        "training_command": "none",
        "network": {"name": "ribeiro", "settings": settings},
        "input": spec,
        "outputs": outputs,
    }
    write_pack(folder, manifest, network)
    return folder
