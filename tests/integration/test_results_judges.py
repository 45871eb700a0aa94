"""Public validators and readers on our results: no complaint beyond the listed ones."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComprehensiveSRStorage

from models.ecg.simulator import draw_wanted, simulate_ecg
from models.ecg.simulator.dicom import EcgClass, to_dicom
from models.finding import Evidence
from models.views import View, ViewCall
from node.results import (
    ClipResult,
    EncodedObject,
    build_ecg_text_report,
    build_key_object,
    check_object,
)
from node.results.capture import single_frames
from node.results.text_report import build_text_report
from tests.ecg_results_examples import (
    ecg_capture_of,
    ecg_header,
    ecg_object,
    ecg_of,
    ecg_picture,
    ecg_report,
    study_ecgs,
)
from tests.results_examples import (
    A4C,
    CREATED_AT,
    ECHONET,
    LV,
    PERSON,
    SETTINGS,
    capture_of,
    marked_picture,
    network_findings,
    person_findings,
    picture,
    rewritten,
    score,
    source_header,
    study_capture,
    study_clips,
    study_page,
    study_report,
    tracing_findings,
)
from tests.results_faults import (
    CAPTURE_DAMAGES,
    DIVERGENCES,
    ECG_CAPTURE_DAMAGES,
    ECG_REPORT_DAMAGES,
    REPORT_DAMAGES,
    Damage,
    Divergence,
    fault_table,
)
from tests.results_judges import (
    Allowances,
    dcentvfy,
    dciodvfy,
    dsrdump,
    errors,
    pixelmed,
    read_allowances,
)
from tests.results_sources import HEADERS

_TABLE = Path(__file__).parent.parent / "judges" / "faults.md"


@pytest.fixture
def allowed() -> Allowances:
    return read_allowances()


def _one_clip(header: Dataset) -> ClipResult:
    return ClipResult(header=header, view=A4C, packs=(LV,), findings=tracing_findings())


def _every_view() -> list[ClipResult]:
    return [
        ClipResult(
            header=source_header(number),
            view=ViewCall(view=view, score=0.9, certain=True),
            not_analysed="no model measures this view",
        )
        for number, view in enumerate(View, start=1)
    ]


def _tells(clip: ClipResult) -> bool:
    """Whether its view is written otherwise than most: with a site, or as an image mode."""
    return clip.view is not None and clip.view.view in (View.IVC, View.PW)


def _comprehensive() -> EncodedObject:
    return study_report(settings=replace(SETTINGS, sop_class_uid=ComprehensiveSRStorage))


def _text_report() -> EncodedObject:
    return build_text_report(
        study_clips(), revision=1, predecessor=None, settings=SETTINGS, created_at=CREATED_AT
    )


def _ecg_reports() -> dict[str, EncodedObject]:
    first = ecg_report()
    return {
        "ecg": first,
        "ecg-revision": ecg_report(revision=2, predecessor=first.ref),
        "ecg-comprehensive": ecg_report(
            settings=replace(SETTINGS, sop_class_uid=ComprehensiveSRStorage)
        ),
        "ecg-without-picture": ecg_report(study_ecgs(pictured=False)),
        "ecg-text": build_ecg_text_report(
            study_ecgs(), revision=1, predecessor=None, settings=SETTINGS, created_at=CREATED_AT
        ),
    }


def _reports() -> dict[str, EncodedObject]:
    first = study_report()
    everything = ClipResult(
        header=source_header(1),
        view=A4C,
        findings=(*tracing_findings(), *network_findings(), *person_findings()),
        packs=(LV, ECHONET),
    )
    scores = ClipResult(
        header=source_header(2),
        view=A4C,
        findings=tuple(
            score(output, 0.7, evidence=Evidence.PATIENTS)
            for output in ("lvh", "la_dilation", "lead")
        ),
        packs=(ECHONET,),
    )
    return {
        "first": first,
        "revision": study_report(revision=2, predecessor=first.ref),
        "comprehensive": _comprehensive(),
        "everything": study_report(
            [everything, scores, *_every_view()[2:]],
            settings=replace(SETTINGS, demographic_estimates=PERSON, institution="Test Hospital"),
        ),
        # The same with few views, since PixelMed's time grows with the tree.
        "every-template": study_report(
            [everything, scores, *(each for each in _every_view()[2:] if _tells(each))],
            settings=replace(SETTINGS, demographic_estimates=PERSON),
        ),
        "several-clips": study_report([_one_clip(source_header(1)), _one_clip(source_header(2))]),
        "words-only": study_report(_every_view()),
        "text": _text_report(),
        **_ecg_reports(),
        **{name: study_report([_one_clip(HEADERS[name]())]) for name in _TELLING_HEADERS},
    }


# Of the sources in test_results_sources those that the allow-list speaks of.
_TELLING_HEADERS = ("Japanese", "Cyrillic", "nothing of patient and study")


@pytest.mark.parametrize("ecg_class", list(EcgClass))
def test_no_judge_complains_of_what_is_made_of_a_simulated_ecg(
    ecg_class: EcgClass, allowed: Allowances, tmp_path: Path
) -> None:
    simulated = simulate_ecg(draw_wanted(np.random.default_rng(3)), seed=3)
    ecg = to_dicom(simulated, study_uid="2.25.8", ecg_class=ecg_class)
    source = tmp_path / "source.dcm"
    ecg.save_as(source, enforce_file_format=True)
    capture = ecg_capture_of(ecg)
    made = _written({"sr": ecg_report([ecg_of(ecg, capture.ref)]), "sc": capture}, tmp_path)
    for path in made.values():
        assert allowed.unlisted("dciodvfy", dciodvfy(path)) == [], path.name
    if ecg_class is EcgClass.GENERAL_32:
        return  # newer than these releases of DCMTK and dcentvfy: they know no such object
    assert allowed.unlisted("dsrdump", dsrdump(made["sr"])) == []
    assert allowed.unlisted("dcentvfy", dcentvfy(source, *made.values())) == []


def _captures() -> dict[str, EncodedObject]:
    lossy = source_header(
        1,
        LossyImageCompression="01",
        LossyImageCompressionRatio="10",
        LossyImageCompressionMethod="ISO_10918_1",
    )
    return {
        "even": study_capture(),
        "uneven": capture_of(source_header(1), picture((0.0, 20.0, 50.0))),
        "single": capture_of(source_header(1), picture((0.0,))),
        "lossy-source": capture_of(lossy),
        "single-frame": single_frames(study_capture().data)[0],
        "marked": capture_of(source_header(1), marked_picture()),
        "marked-single-frame": single_frames(capture_of(lossy, marked_picture()).data)[0],
        "page": study_page(),
        "ecg-pages": ecg_capture_of(ecg_header(1)),
        "ecg-page": ecg_capture_of(ecg_header(1), ecg_picture(1)),
        "ecg-page-of-several": single_frames(ecg_capture_of(ecg_header(1)).data)[1],
        "ecg-key-object": build_key_object(
            (), ecgs=study_ecgs(), revision=1, settings=SETTINGS, created_at=CREATED_AT
        ),
        "key-object": build_key_object(
            study_clips(),
            [study_page().ref],
            revision=1,
            settings=SETTINGS,
            created_at=CREATED_AT,
        ),
    }


def _written(objects: Mapping[str, EncodedObject], folder: Path) -> dict[str, Path]:
    paths = {}
    for name, made in objects.items():
        assert check_object(made) == ()
        paths[name] = folder / f"{name}.dcm"
        paths[name].write_bytes(made.data)
    return paths


@pytest.fixture(scope="module")
def reports(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return _written(_reports(), tmp_path_factory.mktemp("sr"))


def test_dciodvfy_finds_no_fault(
    reports: Mapping[str, Path], allowed: Allowances, tmp_path: Path
) -> None:
    for path in (*reports.values(), *_written(_captures(), tmp_path).values()):
        said = dciodvfy(path)
        assert errors(said) == [], path.name
        assert allowed.unlisted("dciodvfy", said) == [], path.name
    assert allowed.unneeded("dciodvfy") == []


def test_dsrdump_reads_every_report(reports: Mapping[str, Path], allowed: Allowances) -> None:
    for name, path in reports.items():
        assert allowed.unlisted("dsrdump", dsrdump(path)) == [], name
    assert allowed.unneeded("dsrdump") == []


@pytest.mark.slow
def test_pixelmed_finds_the_templates_followed_but_for_the_faults_put_in(
    reports: Mapping[str, Path], allowed: Allowances, tmp_path: Path
) -> None:
    # One run for both, since it takes seconds: a line for each fault, and not one more.
    telling = [damage for damage in REPORT_DAMAGES if damage.pixelmed]
    report = dcmread(reports["every-template"])
    for damage in telling:
        damage.do(report)
    path = tmp_path / "faulty.dcm"
    report.save_as(path, enforce_file_format=True)

    said = allowed.unlisted("pixelmed", pixelmed(path))

    noticed = [damage.name for line in said for damage in telling if damage.pixelmed in line]
    assert sorted(noticed) == sorted(damage.name for damage in telling)
    assert len(said) == len(telling), said
    assert allowed.unlisted("pixelmed", pixelmed(reports["ecg"])) == []
    assert allowed.unneeded("pixelmed") == []


def _study(header: Dataset, folder: Path) -> list[Path]:
    """A source and its results, as files."""
    source = folder / "source.dcm"
    header.save_as(source, enforce_file_format=True)
    capture = capture_of(header)
    clip = replace(_one_clip(header), capture=capture.ref)
    return [source, *_written({"sr": study_report([clip]), "sc": capture}, folder).values()]


def _ecg_study(folder: Path) -> list[Path]:
    """A real ECG and its results, as files."""
    ecg = ecg_object()
    capture = ecg_capture_of(ecg)
    results = {"sr": ecg_report([ecg_of(ecg, capture.ref)]), "sc": capture}
    source = folder / "source.dcm"
    ecg.save_as(source, enforce_file_format=True)
    return [source, *_written(results, folder).values()]


def test_dcentvfy_finds_patient_and_study_the_same(allowed: Allowances, tmp_path: Path) -> None:
    performed = Dataset()
    performed.ReferencedSOPClassUID = "1.2.840.10008.3.1.2.3.1"
    performed.ReferencedSOPInstanceUID = "1.2.3"
    folder = tmp_path / "ecg"
    folder.mkdir()
    assert allowed.unlisted("dcentvfy", dcentvfy(*_ecg_study(folder))) == []
    headers = [HEADERS[name]() for name in ("everything", *_TELLING_HEADERS)]
    headers.append(source_header(1, ReferencedStudySequence=[performed]))
    for index, header in enumerate(headers):
        folder = tmp_path / str(index)
        folder.mkdir()
        assert allowed.unlisted("dcentvfy", dcentvfy(*_study(header, folder))) == []
    assert allowed.unneeded("dcentvfy") == []


# The judges see what they are said to see, and no more, or else the table of faults is a lie.


@pytest.fixture(scope="module")
def sound() -> dict[str, EncodedObject]:
    return {
        "report": study_report(),
        "comprehensive": _comprehensive(),
        "sc": study_capture(),
        "ecg report": ecg_report(),
        "ecg pages": ecg_capture_of(ecg_header(1)),
    }


_FAULTS = [
    *((damage, "comprehensive" if damage.comprehensive else "report") for damage in REPORT_DAMAGES),
    *((damage, "sc") for damage in CAPTURE_DAMAGES),
    *((damage, "ecg report") for damage in ECG_REPORT_DAMAGES),
    *((damage, "ecg pages") for damage in ECG_CAPTURE_DAMAGES),
]


@pytest.mark.parametrize(("damage", "victim"), _FAULTS, ids=[damage.name for damage, _ in _FAULTS])
def test_a_fault_is_noticed_by_those_who_are_said_to_notice_it(
    damage: Damage, victim: str, sound: Mapping[str, EncodedObject], tmp_path: Path
) -> None:
    path = tmp_path / "faulty.dcm"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom warns of the values put in wrong on purpose
        path.write_bytes(rewritten(sound[victim], damage.do))  # the gate: test_results_check
    judges = {"dciodvfy": dciodvfy}
    if victim not in ("sc", "ecg pages"):
        judges["dsrdump"] = dsrdump
    noticed = {name for name, judge in judges.items() if errors(judge(path))}
    assert noticed == damage.judges - {"pixelmed"}


@pytest.mark.parametrize("divergence", DIVERGENCES, ids=lambda each: each.keyword)
def test_another_patient_or_study_than_the_sources_is_noticed_by_dcentvfy(
    divergence: Divergence, sound: Mapping[str, EncodedObject], tmp_path: Path
) -> None:
    header = source_header(1)
    source = tmp_path / "source.dcm"
    header.save_as(source, enforce_file_format=True)
    report = tmp_path / "sr.dcm"
    report.write_bytes(
        rewritten(
            sound["report"],
            lambda dataset: setattr(dataset, divergence.keyword, divergence.value),
        )
    )
    assert any(f"Element=<{divergence.keyword}>" in line for line in dcentvfy(source, report))


def test_the_table_of_faults_is_the_one_that_is_tested() -> None:
    assert _TABLE.read_text() == fault_table()
