"""Faults to put into results, one at a time: what a broken change of ours might do.

Each names the rule of the gate that must notice it, and the public judges that do as well:
dciodvfy and dsrdump exactly, PixelMed (seconds for a file) where the list says what it writes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.tag import Tag

from node.results import codes
from node.results.codes import Concept
from tests.results_examples import jpeg, put_bytes


@dataclass(frozen=True, kw_only=True)
class Damage:
    """A fault. ``judges``: the public ones that notice it too. ``pixelmed``: what it says then.

    ``comprehensive``: the fault is one in a Comprehensive SR, which knows less.
    """

    name: str
    do: Callable[[Dataset], None]
    rule: str
    judges: frozenset[str] = frozenset()
    pixelmed: str = ""
    comprehensive: bool = False


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


def codes_item(concept: Concept) -> Dataset:
    """A code sequence item."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator = concept.value, concept.scheme
    item.CodeMeaning = concept.meaning
    return item


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
    # Of the second number: PixelMed gets several faults in one file, each in a place of its own.
    numbers = [item for item in groups(report)[0].ContentSequence if item.ValueType == "NUM"]
    del numbers[1].MeasuredValueSequence[0].MeasurementUnitsCodeSequence


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


def _no_meaning(report: Dataset) -> None:
    del first_number(report).ConceptNameCodeSequence[0].CodeMeaning


def _two_names(report: Dataset) -> None:
    first_number(report).ConceptNameCodeSequence.append(codes_item(codes.LVEF))


def _evidence_without_series(report: Dataset) -> None:
    del report.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0][
        "SeriesInstanceUID"
    ]


def _evidence_of_another_study(report: Dataset) -> None:
    report.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = "1.2.3"


def _unnamed_alphabet(report: Dataset) -> None:
    report.pop("SpecificCharacterSet", None)
    put_bytes(child(groups(report)[0], codes.COMMENT), "TextValue", "Maße in µm".encode())


def _unknown_template(report: Dataset) -> None:
    report.ContentTemplateSequence[0].TemplateIdentifier = "5200"


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


def _delete(keyword: str) -> Callable[[Dataset], None]:
    def do(dataset: Dataset) -> None:
        delattr(dataset, keyword)

    return do


def _set(keyword: str, value: object) -> Callable[[Dataset], None]:
    def do(dataset: Dataset) -> None:
        setattr(dataset, keyword, value)

    return do


def _put(keyword: str, value: bytes) -> Callable[[Dataset], None]:
    def do(dataset: Dataset) -> None:
        put_bytes(dataset, keyword, value)

    return do


def _put_as(keyword: str, vr: str, value: bytes) -> Callable[[Dataset], None]:
    """The value under another value representation."""

    def do(dataset: Dataset) -> None:
        tag = Tag(keyword)
        dataset[tag] = RawDataElement(tag, vr, len(value), value, 0, False, True)

    return do


_DCIODVFY = frozenset(("dciodvfy",))
_BOTH = frozenset(("dciodvfy", "dsrdump"))

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
        judges=_BOTH,
    ),
    Damage(
        name="wrong relationship", do=_wrong_relationship, rule="relationship",
        judges=frozenset(("pixelmed", "dsrdump")),
        pixelmed="illegal relationship HAS PROPERTIES",
    ),
    Damage(name="completion flag removed", do=_no_completion, rule="flags", judges=_DCIODVFY),
    Damage(name="coordinates in space", do=_point_in_space, rule="relationship"),
    Damage(
        name="coordinates in space in a Comprehensive SR", do=_point_in_space, rule="relationship",
        judges=_BOTH, comprehensive=True,
    ),
    Damage(
        name="coordinates without an image", do=_point_without_image, rule="coordinates",
        judges=frozenset(("dciodvfy", "pixelmed")),
        pixelmed="[Row 10c] SCOORD */[Row 10d] IMAGE",
    ),
    Damage(name="code value too long", do=_long_code_value, rule="length", judges=_DCIODVFY),
    Damage(name="code meaning too long", do=_long_meaning, rule="length", judges=_DCIODVFY),
    Damage(name="wrong modality", do=_wrong_modality, rule="flags", judges=_BOTH),
    Damage(name="bad UID", do=_bad_uid, rule="form", judges=_DCIODVFY),
    Damage(name="bad date", do=_bad_date, rule="form", judges=_DCIODVFY),
    Damage(name="number too long", do=_long_number, rule="length", judges=_BOTH),
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
    Damage(name="no study ID", do=_delete("StudyID"), rule="required", judges=_DCIODVFY),
    Damage(
        name="no performed procedure codes", do=_delete("PerformedProcedureCodeSequence"),
        rule="required", judges=_DCIODVFY,
    ),
    Damage(name="bad time", do=_put("ContentTime", b"25:00"), rule="form", judges=_DCIODVFY),
    Damage(
        name="wrong value representation", do=_put_as("SeriesNumber", "LO", b"901 "),
        rule="representation", judges=_DCIODVFY,
    ),
    Damage(
        name="two values where one belongs", do=_put("SeriesNumber", b"901\\902"),
        rule="multiplicity", judges=_DCIODVFY,
    ),
    Damage(
        name="control character", do=_put("SeriesDescription", b"AI (RESEARCH)\x07"),
        rule="characters", judges=_DCIODVFY,
    ),
    Damage(
        name="letters without a character set", do=_unnamed_alphabet, rule="characters",
        judges=_BOTH,
    ),
    Damage(name="code without a meaning", do=_no_meaning, rule="items", judges=_BOTH),
    Damage(name="two concept names", do=_two_names, rule="items", judges=_DCIODVFY),
    Damage(
        name="evidence without its series", do=_evidence_without_series, rule="items",
        judges=_DCIODVFY,
    ),
    Damage(name="evidence of another study", do=_evidence_of_another_study, rule="evidence"),
    Damage(name="another template", do=_unknown_template, rule="template"),
)  # fmt: skip


def _one_frame_short(dataset: Dataset) -> None:
    frames = [jpeg(seed=index) for index in range(int(dataset.NumberOfFrames) - 1)]
    dataset.PixelData = encapsulate(frames)


def _other_sampling(dataset: Dataset) -> None:
    frames = [jpeg(subsampling=0) for _ in range(int(dataset.NumberOfFrames))]
    dataset.PixelData = encapsulate(frames)


def _other_size(dataset: Dataset) -> None:
    frames = [jpeg(rows=40) for _ in range(int(dataset.NumberOfFrames))]
    dataset.PixelData = encapsulate(frames)


def _source_without_uid(dataset: Dataset) -> None:
    del dataset.SourceImageSequence[0].ReferencedSOPInstanceUID


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
    Damage(
        name="no samples per pixel", do=_delete("SamplesPerPixel"), rule="required",
        judges=_DCIODVFY,
    ),
    Damage(
        name="source without its UID", do=_source_without_uid, rule="items", judges=_DCIODVFY
    ),
    Damage(name="no number of frames", do=_delete("NumberOfFrames"), rule="required",
        judges=_DCIODVFY,
    ),
)  # fmt: skip


def _of_type(group: Dataset, value_type: str) -> Dataset:
    found: Dataset = next(item for item in group.ContentSequence if item.ValueType == value_type)
    return found


def _stretch(report: Dataset) -> Dataset:
    """What was read for the first group."""
    return _of_type(groups(report)[0], "TCOORD")


def _stretch_of_nothing(report: Dataset) -> None:
    del _stretch(report).ContentSequence


def _stretch_backwards(report: Dataset) -> None:
    _stretch(report).ReferencedTimeOffsets = ["10.0", "0.0"]


def _stretch_without_end(report: Dataset) -> None:
    _stretch(report).ReferencedTimeOffsets = ["0.0"]


def _stretch_called_a_point(report: Dataset) -> None:
    _stretch(report).TemporalRangeType = "POINT"


def _waveform(report: Dataset) -> Dataset:
    reference: Dataset = _stretch(report).ContentSequence[0].ReferencedSOPSequence[0]
    return reference


def _odd_channels(report: Dataset) -> None:
    _waveform(report).ReferencedWaveformChannels = [1, 1, 1]


def _channel_from_zero(report: Dataset) -> None:
    _waveform(report).ReferencedWaveformChannels = [1, 0]


def _picture_as_waveform(report: Dataset) -> None:
    point = _of_type(groups(report)[0], "SCOORD")
    picture = point.ContentSequence[0].ReferencedSOPSequence[0]
    _waveform(report).ReferencedSOPClassUID = picture.ReferencedSOPClassUID
    _waveform(report).ReferencedSOPInstanceUID = picture.ReferencedSOPInstanceUID


def _waveform_as_image(report: Dataset) -> None:
    waveform = _stretch(report).ContentSequence[0]
    waveform.ValueType = "IMAGE"
    del waveform.ReferencedSOPSequence[0].ReferencedWaveformChannels


def _without_points(report: Dataset) -> None:
    for group in groups(report):
        group.ContentSequence = [
            item for item in group.ContentSequence if item.ValueType != "SCOORD"
        ]


def _sourceless(report: Dataset) -> None:
    _without_points(report)
    for group in groups(report):
        group.ContentSequence = [
            item for item in group.ContentSequence if item.ValueType != "TCOORD"
        ]


def _echo_procedure(report: Dataset) -> None:
    procedure = child(report, codes.PROCEDURE_REPORTED)
    procedure.ConceptCodeSequence = [codes_item(codes.TRANSTHORACIC_ECHO)]


ECG_REPORT_DAMAGES = (
    Damage(
        name="stretch without a waveform", do=_stretch_of_nothing, rule="coordinates",
        judges=_DCIODVFY,
    ),
    Damage(name="stretch that ends before it begins", do=_stretch_backwards, rule="coordinates"),
    Damage(name="stretch without an end", do=_stretch_without_end, rule="coordinates"),
    Damage(name="stretch called a point", do=_stretch_called_a_point, rule="coordinates"),
    Damage(name="channels not in pairs", do=_odd_channels, rule="coordinates"),
    Damage(name="channel 0", do=_channel_from_zero, rule="coordinates"),
    Damage(
        name="picture called a waveform", do=_picture_as_waveform, rule="value",
        judges=frozenset(("dsrdump",)),
    ),
    Damage(
        name="waveform called an image", do=_waveform_as_image, rule="relationship",
        judges=frozenset(("dsrdump",)),
    ),
    Damage(name="groups without points on the picture", do=_without_points, rule="coordinates"),
    Damage(name="groups without what was read", do=_sourceless, rule="coordinates"),
    Damage(name="ECG called an echocardiogram", do=_echo_procedure, rule="context"),
)  # fmt: skip


def _waveform_as_source_image(dataset: Dataset) -> None:
    (item,) = dataset.SourceInstanceSequence
    item.PurposeOfReferenceCodeSequence = [codes_item(codes.SOURCE_IMAGE)]
    dataset.SourceImageSequence = [item]
    del dataset.SourceInstanceSequence


ECG_CAPTURE_DAMAGES = (
    Damage(
        name="no page numbers", do=_delete("PageNumberVector"), rule="cine", judges=_DCIODVFY
    ),
    Damage(
        name="pages numbered from 0", do=_set("PageNumberVector", [0, 1, 2]), rule="cine"
    ),
    Damage(name="pages that play", do=_set("CineRate", 25), rule="cine"),
    Damage(name="no source ECG", do=_delete("SourceInstanceSequence"), rule="source"),
    Damage(name="ECG called a source image", do=_waveform_as_source_image, rule="source"),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Divergence:
    """A report that says something else of patient or study than its source."""

    keyword: str
    value: str


DIVERGENCES = (
    Divergence(keyword="PatientName", value="Another^Name"),
    Divergence(keyword="PatientBirthDate", value="19000101"),
    Divergence(keyword="PatientSex", value="O"),
    Divergence(keyword="StudyDate", value="19990101"),
    Divergence(keyword="StudyDescription", value="Another"),
    Divergence(keyword="AccessionNumber", value="ANOTHER"),
    Divergence(keyword="PatientSize", value="1.23"),
    Divergence(keyword="PatientWeight", value="45"),
)
"""What only a comparison with the source can notice: dcentvfy, and our own tests of copying.

Another Patient ID is another patient to dcentvfy, with which there is nothing to compare.
"""


def fault_table() -> str:
    """The faults and who notices them, as Markdown: `tests/judges/faults.md`."""
    lines = [
        "# Who notices which fault",
        "",
        "Each fault is put into a sound result; the gate of the node (`node/results/check.py`) and",
        "the public judges then read it. A test holds this table to what they notice. Write it",
        "anew with `python -m tests.results_faults`. dsrdump and PixelMed read reports only.",
        "",
    ]
    for title, damages in (
        ("Structured Reports", REPORT_DAMAGES),
        ("Structured Reports of ECGs", ECG_REPORT_DAMAGES),
        ("Secondary captures", CAPTURE_DAMAGES),
        ("Secondary captures of ECGs", ECG_CAPTURE_DAMAGES),
    ):
        judges = {
            REPORT_DAMAGES: ("dciodvfy", "dsrdump", "pixelmed"),
            ECG_REPORT_DAMAGES: ("dciodvfy", "dsrdump"),
        }.get(damages, ("dciodvfy",))
        lines += [
            f"## {title}",
            "",
            f"| fault | the gate's rule | {' | '.join(judges)} |",
            f"| --- | --- | {' | '.join('---' for _ in judges)} |",
            *(
                f"| {damage.name} | {damage.rule} | "
                f"{' | '.join('yes' if judge in damage.judges else '-' for judge in judges)} |"
                for damage in damages
            ),
            "",
        ]
    lines += [
        "## Another patient or study than the source's",
        "",
        "The gate cannot see the source; dcentvfy compares, and a test compares the bytes of every",
        "attribute of patient and study. Noticed by dcentvfy:",
        f"{', '.join(each.keyword for each in DIVERGENCES)}.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    (Path(__file__).parent / "judges" / "faults.md").write_text(fault_table())
