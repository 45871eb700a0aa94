"""Logs: on stderr, as JSON where nobody watches, and without a patient."""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from node.sections import LogSettings
from node.watch import set_up_logging, study_key


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    with warnings.catch_warnings():
        yield io.StringIO()
    logging.captureWarnings(False)
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_is_json_with_its_words_and_level(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    set_up_logging(LogSettings(), stream)

    structlog.get_logger("node.intake").info("object-kept", study=study_key("1.2.3"), bytes=7)

    (line,) = lines(stream)
    assert (line["event"], line["level"], line["logger"]) == ("object-kept", "info", "node.intake")
    assert (line["study"], line["bytes"]) == (study_key("1.2.3"), 7)
    assert capsys.readouterr().out == ""


def test_a_study_key_is_short_steady_and_not_the_uid() -> None:
    uid = "1.2.840.113619.2.391.3279.1602742340.17"

    assert study_key(uid) == study_key(uid)
    assert study_key(uid) != study_key(uid + "1")
    assert len(study_key(uid)) == 10
    assert study_key(uid) not in uid


def test_levels_hold(stream: io.StringIO) -> None:
    set_up_logging(LogSettings(level="warning"), stream)

    structlog.get_logger("node").info("quiet")
    structlog.get_logger("node").warning("heard")

    assert [line["event"] for line in lines(stream)] == ["heard"]


def test_the_dicom_libraries_write_no_data_sets_even_at_debug(stream: io.StringIO) -> None:
    set_up_logging(LogSettings(level="debug"), stream)

    logging.getLogger("pynetdicom.dsutils").debug("(0010,0010) PN [DOE^JANE]")
    logging.getLogger("pydicom").info("PatientName: DOE^JANE")

    assert stream.getvalue() == ""


def test_a_traceback_of_the_dicom_libraries_is_cut(stream: io.StringIO) -> None:
    set_up_logging(LogSettings(), stream)
    try:
        int("DOE^JANE")
    except ValueError:
        logging.getLogger("pynetdicom.service-c").exception("handler failed")

    (line,) = lines(stream)
    assert line["event"] == "handler failed (ValueError)"
    assert "DOE" not in stream.getvalue()


def test_a_warning_of_pydicom_does_not_quote_its_value(
    stream: io.StringIO, capsys: pytest.CaptureFixture[str]
) -> None:
    from pydicom.dataset import Dataset

    set_up_logging(LogSettings(), stream)
    dataset = Dataset()
    dataset.PatientID = "DOE-JANE" * 20

    assert "DOE" not in stream.getvalue()
    assert "DOE" not in capsys.readouterr().err
