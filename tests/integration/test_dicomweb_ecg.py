"""The DICOMweb door gives an ECG so that a viewer can draw it: OHIF asks for the samples alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from storage.database import Database
from tests.dicomweb_site import serving_dicomweb
from tests.ecg_results_examples import ecg_object

SAMPLES = "54001010"


@pytest.mark.parametrize("group", [0, 1])
def test_the_samples_of_a_group_come_alone_as_they_are_stored(
    tmp_path: Path, database: Database, group: int
) -> None:
    ecg = ecg_object()
    path = (
        f"/studies/{ecg.StudyInstanceUID}/series/{ecg.SeriesInstanceUID}"
        f"/instances/{ecg.SOPInstanceUID}"
    )
    with serving_dicomweb(tmp_path, database) as web:
        assert web.store(ecg).status_code == 200
        (model,) = web.get(f"{path}/metadata", "application/dicom+json").json()
        element = model["54000100"]["Value"][group][SAMPLES]
        assert element["vr"] in ("OB", "OW")
        given = web.client.get(
            element["BulkDataURI"], headers={"accept": "application/octet-stream"}
        )
        refused = web.get(f"{path}/rendered", "image/jpeg")

    assert given.status_code == 200
    assert given.headers["content-type"].startswith("application/octet-stream")
    assert given.content == ecg.WaveformSequence[group].WaveformData
    assert refused.status_code == 406
    assert "is no picture" in refused.text
