"""A report on a terminal is short, in order, and complete in what matters."""

from __future__ import annotations

import pytest

from node.results import render_report
from tests.results_examples import read, source_header, study_report


def test_a_report_reads_in_the_order_in_which_a_reader_wants_it() -> None:
    first = study_report()
    lines = render_report(study_report(revision=2, predecessor=first.ref).data).splitlines()
    assert lines[0] == "Imaging Measurement Report - AI Echo SR (RESEARCH)"
    assert lines[1].startswith("Revision 2, 2026-03-0")
    assert lines[2] == f"Takes the place of {first.ref.sop_instance_uid}"
    summary = lines.index("  Study summary, lv 0.1.0")
    assert lines[summary + 1] == (
        "    Left ventricular ejection fraction single plane 4C (MOD): 58.2 % "
        "(95 % interval 50.1 to 66.2) [Method of Disks, Single Plane, Estimated]"
    )
    assert lines[-1].startswith("  Clip: Series 1 image 4: view not determined.")


def test_a_data_set_reads_like_its_bytes() -> None:
    made = study_report()
    assert render_report(read(made)) == render_report(made.data)


def test_a_score_is_shown_without_a_unit() -> None:
    assert "Score for left ventricular hypertrophy: 0.123\n" in render_report(study_report().data)


def test_what_is_no_report_is_refused() -> None:
    with pytest.raises(ValueError, match="no Structured Report"):
        render_report(source_header(1))
