"""Faults to put into results, one at a time: what a broken change of ours might do.

Each names the rule of the gate that must notice it, and the public judges that do as well.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate

from node.results import codes
from node.results.codes import Concept
from tests.results_examples import jpeg, put_bytes


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A fault. ``judges``: the public ones that notice it too."""

    name: str
    do: Callable[[Dataset], None]
    rule: str
    judges: frozenset[str] = frozenset()


def child(item: Dataset, concept: Concept) -> Dataset:
    """The first item below with this name."""
    return next(
        each
        for each in item.ContentSequence
        if each.ConceptNameCodeSequence[0].CodeValue == concept.value
    )


def groups(report: Dataset) -> list[Dataset]:
    """The measurement groups of a report."""
    return list(child(report, codes.IMAGING_MEASUREMENTS).ContentSequence)


def first_number(report: Dataset) -> Dataset:
    """The first measurement of the first group."""
    return next(item for item in groups(report)[0].ContentSequence if item.ValueType == "NUM")


def _without(item: Dataset, concept: Concept) -> None:
    item.ContentSequence = [
        each
        for each in item.ContentSequence
        if each.ConceptNameCodeSequence[0].CodeValue != concept.value
    ]


def _evidence_removed(report: Dataset) -> None:
    del report.CurrentRequestedProcedureEvidenceSequence


def _evidence_incomplete(report: Dataset) -> None:
    study = report.CurrentRequestedProcedureEvidenceSequence[0]
    del study.ReferencedSeriesSequence[0].ReferencedSOPSequence[0]


def _no_units(report: Dataset) -> None:
    del first_number(report).MeasuredValueSequence[0].MeasurementUnitsCodeSequence


def _wrong_relationship(report: Dataset) -> None:
    first_number(report).RelationshipType = "HAS PROPERTIES"


def _no_completion(report: Dataset) -> None:
    del report.CompletionFlag


def _point_in_space(report: Dataset) -> None:
    point = next(item for item in groups(report)[0].ContentSequence if item.ValueType == "SCOORD")
    point.ValueType = "SCOORD3D"
    point.GraphicData = [1.0, 2.0, 3.0]
    point.ReferencedFrameOfReferenceUID = "1.2.3"
    del point.ContentSequence


def _point_without_image(report: Dataset) -> None:
    point = next(item for item in groups(report)[0].ContentSequence if item.ValueType == "SCOORD")
    del point.ContentSequence


def _long_code_value(report: Dataset) -> None:
    first_number(report).ConceptNameCodeSequence[0].CodeValue = "12345678901234567"


def _long_meaning(report: Dataset) -> None:
    first_number(report).ConceptNameCodeSequence[0].CodeMeaning = "x" * 65


def _wrong_modality(report: Dataset) -> None:
    report.Modality = "US"


def _bad_uid(report: Dataset) -> None:
    report.SeriesInstanceUID = "1.02.three"


def _bad_date(report: Dataset) -> None:
    report.ContentDate = "4 March"


def _wrong_code(report: Dataset) -> None:
    first_number(report).ConceptNameCodeSequence[0].CodeValue = "99999-9"


def _wrong_meaning(report: Dataset) -> None:
    first_number(report).ConceptNameCodeSequence[0].CodeMeaning = "Left atrial volume"


def _no_tracking_uid(report: Dataset) -> None:
    _without(groups(report)[1], codes.TRACKING_UID)


def _no_tracking_identifier(report: Dataset) -> None:
    _without(groups(report)[1], codes.TRACKING_IDENTIFIER)


def _same_tracking_uid(report: Dataset) -> None:
    first, second = groups(report)[:2]
    child(second, codes.TRACKING_UID).UID = child(first, codes.TRACKING_UID).UID


def _no_procedure(report: Dataset) -> None:
    _without(report, codes.PROCEDURE_REPORTED)


def _no_coordinates(report: Dataset) -> None:
    group = groups(report)[1]
    group.ContentSequence = [item for item in group.ContentSequence if item.ValueType != "SCOORD"]


def _continuous(report: Dataset) -> None:
    groups(report)[0].ContinuityOfContent = "CONTINUOUS"


def _demographic(report: Dataset) -> None:
    name = first_number(report).ConceptNameCodeSequence[0]
    name.CodeValue, name.CodingSchemeDesignator, name.CodeMeaning = "121033", "DCM", "Subject Age"


def _six_measurements(report: Dataset) -> None:
    group = groups(report)[0]
    group.ContentSequence.extend([first_number(report)] * 5)


def _no_research_words(report: Dataset) -> None:
    for group in groups(report):
        _without(group, codes.COMMENT)


def _no_digest(report: Dataset) -> None:
    _without(groups(report)[1], codes.ALGORITHM_PARAMETERS)


def _verified(report: Dataset) -> None:
    report.VerificationFlag = "VERIFIED"


def _no_scheme(report: Dataset) -> None:
    del report.CodingSchemeIdentificationSequence


def _no_equipment(report: Dataset) -> None:
    del report.ContributingEquipmentSequence


def _no_serial(report: Dataset) -> None:
    del report.DeviceSerialNumber


def _long_number(report: Dataset) -> None:
    put_bytes(first_number(report).MeasuredValueSequence[0], "NumericValue", b"58.123456789012345")


_DCIODVFY = frozenset(("dciodvfy",))

REPORT_DAMAGES = (
    Damage(
        name="evidence sequence removed", do=_evidence_removed, rule="evidence", judges=_DCIODVFY
    ),
    Damage(
        name="one reference missing from the evidence", do=_evidence_incomplete, rule="evidence",
        judges=_DCIODVFY,
    ),
    Damage(
        name="number without units", do=_no_units, rule="units",
        judges=frozenset(("dciodvfy", "dsrdump")),
    ),
    Damage(
        name="wrong relationship", do=_wrong_relationship, rule="relationship",
        judges=frozenset(("pixelmed", "dsrdump")),
    ),
    Damage(name="completion flag removed", do=_no_completion, rule="flags", judges=_DCIODVFY),
    Damage(name="coordinates in space", do=_point_in_space, rule="relationship"),
    Damage(
        name="coordinates without an image", do=_point_without_image, rule="coordinates",
        judges=frozenset(("dciodvfy", "pixelmed")),
    ),
    Damage(name="code value too long", do=_long_code_value, rule="length", judges=_DCIODVFY),
    Damage(name="code meaning too long", do=_long_meaning, rule="length", judges=_DCIODVFY),
    Damage(name="wrong modality", do=_wrong_modality, rule="flags", judges=_DCIODVFY),
    Damage(name="bad UID", do=_bad_uid, rule="form", judges=_DCIODVFY),
    Damage(name="bad date", do=_bad_date, rule="form", judges=_DCIODVFY),
    Damage(name="number too long", do=_long_number, rule="length"),
    Damage(name="wrong code", do=_wrong_code, rule="code"),
    Damage(name="wrong meaning", do=_wrong_meaning, rule="code"),
    Damage(name="no tracking UID", do=_no_tracking_uid, rule="tracking"),
    Damage(name="no tracking identifier", do=_no_tracking_identifier, rule="tracking"),
    Damage(name="tracking UID used twice", do=_same_tracking_uid, rule="tracking"),
    Damage(name="no procedure reported", do=_no_procedure, rule="context"),
    Damage(name="group without coordinates", do=_no_coordinates, rule="coordinates"),
    Damage(name="continuous container", do=_continuous, rule="separate"),
    Damage(name="demographic code", do=_demographic, rule="demographics"),
    Damage(name="six measurements in a group", do=_six_measurements, rule="group"),
    Damage(name="group without research words", do=_no_research_words, rule="research"),
    Damage(name="group without the digest of its weights", do=_no_digest, rule="group"),
    Damage(name="called verified", do=_verified, rule="flags", judges=_DCIODVFY),
    Damage(name="private scheme not identified", do=_no_scheme, rule="scheme"),
    Damage(name="no contributing equipment", do=_no_equipment, rule="equipment"),
    Damage(name="no serial number", do=_no_serial, rule="required"),
)  # fmt: skip


def _delete(keyword: str) -> Callable[[Dataset], None]:
    def do(dataset: Dataset) -> None:
        delattr(dataset, keyword)

    return do


def _set(keyword: str, value: object) -> Callable[[Dataset], None]:
    def do(dataset: Dataset) -> None:
        setattr(dataset, keyword, value)

    return do


def _one_frame_short(dataset: Dataset) -> None:
    frames = [jpeg(seed=index) for index in range(int(dataset.NumberOfFrames) - 1)]
    dataset.PixelData = encapsulate(frames)


def _other_sampling(dataset: Dataset) -> None:
    frames = [jpeg(subsampling=0) for _ in range(int(dataset.NumberOfFrames))]
    dataset.PixelData = encapsulate(frames)


def _other_size(dataset: Dataset) -> None:
    frames = [jpeg(rows=40) for _ in range(int(dataset.NumberOfFrames))]
    dataset.PixelData = encapsulate(frames)


CAPTURE_DAMAGES = (
    Damage(
        name="no burned-in annotation", do=_delete("BurnedInAnnotation"), rule="image",
        judges=_DCIODVFY,
    ),
    Damage(
        name="no conversion type", do=_delete("ConversionType"), rule="image", judges=_DCIODVFY
    ),
    Damage(
        name="no frame increment pointer", do=_delete("FrameIncrementPointer"), rule="cine",
        judges=_DCIODVFY,
    ),
    Damage(name="no frame time", do=_delete("FrameTime"), rule="cine", judges=_DCIODVFY),
    Damage(
        name="JPEG called RGB", do=_set("PhotometricInterpretation", "RGB"), rule="image",
        judges=_DCIODVFY,
    ),
    Damage(
        name="called original", do=_set("ImageType", ["ORIGINAL", "PRIMARY"]), rule="image"
    ),
    Damage(name="no source image", do=_delete("SourceImageSequence"), rule="source"),
    Damage(name="called a CT", do=_set("Modality", "CT"), rule="modality"),
    Damage(
        name="no body part", do=_delete("BodyPartExamined"), rule="image", judges=_DCIODVFY
    ),
    Damage(
        name="description without research", do=_set("DerivationDescription", "A picture"),
        rule="research",
    ),
    Damage(
        name="series without research", do=_set("SeriesDescription", "Saliency"), rule="research"
    ),
    Damage(
        name="called lossless", do=_set("LossyImageCompression", "00"), rule="image",
    ),
    Damage(
        name="method without ratio", do=_delete("LossyImageCompressionRatio"), rule="compression",
    ),
    Damage(name="a frame missing", do=_one_frame_short, rule="pixels"),
    Damage(name="frames not 4:2:2", do=_other_sampling, rule="pixels"),
    Damage(name="frames of another size", do=_other_size, rule="pixels"),
)  # fmt: skip
