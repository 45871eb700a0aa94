"""What the demonstration sends: an echo of a real cine and simulated clips, and a real ECG."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from pydicom import dcmread, examples
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset
from pynetdicom import AE
from pynetdicom.sop_class import Verification  # type: ignore[attr-defined]

from models.simulator import simulate
from models.simulator.dicom import to_dicom
from models.views import View

_SIMULATED = (View.PSLA, View.SAX_MID, View.A2C, View.PW)
_FRAMES = 24
_SUCCESS = 0x0000


class SendError(Exception):
    """The study could not be sent; the message says what did not work."""


@dataclass(frozen=True, kw_only=True)
class DemoStudy:
    """The objects, and what each is."""

    study_instance_uid: str
    objects: tuple[tuple[str, Dataset], ...]


def make_ecg() -> DemoStudy:
    """pydicom's bundled 12-lead ECG (a Mortara cart, 10 s at 1000 Hz), a study of its own."""
    real = dcmread(str(get_testdata_file("waveform_ecg.dcm")))
    return DemoStudy(study_instance_uid=str(real.StudyInstanceUID), objects=(("real ECG", real),))


def make_study() -> DemoStudy:
    """pydicom's bundled cine (SonoSite, 30 frames, JPEG, as it came) and simulated clips beside it.

    The simulated clips belong to the same patient and study.
    """
    real = dcmread(examples.get_path("ybr_color"))
    clips: list[tuple[str, Dataset]] = [("real cine", real)]
    for number, view in enumerate(_SIMULATED, start=1):
        still = view is View.PW
        clip = simulate(view, seed=number, frames=None if still else _FRAMES, colour_flow=False)
        simulated = to_dicom(
            clip,
            study_uid=str(real.StudyInstanceUID),
            patient_name=str(real.PatientName),
            patient_id=str(real.PatientID),
            accession_number=str(real.get("AccessionNumber") or ""),
            acquired=_acquired(real),
            instance_number=int(real.get("InstanceNumber") or 0) + number,
        )
        clips.append((f"simulated {view.value}", simulated))
    return DemoStudy(study_instance_uid=str(real.StudyInstanceUID), objects=tuple(clips))


def send_study(study: DemoStudy, *, host: str, port: int, ae_title: str) -> None:
    """Send it over one association, each object in the transfer syntax that it has.

    Raises
    ------
    SendError
        If the node does not answer, or does not take an object.
    """
    entity = AE("ECHOCART")
    entity.add_requested_context(Verification)
    for sop_class, syntax in dict.fromkeys(_kinds([dataset for _, dataset in study.objects])):
        entity.add_requested_context(sop_class, syntax)
    association = entity.associate(host, port, ae_title=ae_title)
    if not association.is_established:
        raise SendError(f"{ae_title} at {host}:{port} did not take the association")
    try:
        answer = association.send_c_echo()
        if answer.get("Status") != _SUCCESS:
            raise SendError(f"{ae_title} did not answer C-ECHO")
        for name, dataset in study.objects:
            status = association.send_c_store(dataset).get("Status")
            if status != _SUCCESS:
                shown = "no answer" if status is None else f"status 0x{status:04X}"
                raise SendError(f"{ae_title} did not take the {name}: {shown}")
    finally:
        association.release()


def _kinds(datasets: Sequence[Dataset]) -> list[tuple[str, str]]:
    return [
        (str(dataset.SOPClassUID), str(dataset.file_meta.TransferSyntaxUID)) for dataset in datasets
    ]


def _acquired(header: Dataset) -> datetime:
    text = f"{header.StudyDate}{str(header.get('StudyTime') or '120000')[:6]}"
    return datetime.strptime(text, "%Y%m%d%H%M%S")  # noqa: DTZ007 - DICOM local time
