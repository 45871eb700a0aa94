"""Results for the archive: Structured Reports and secondary captures, made and checked."""

from node.results.capture import EncodedPicture, build_capture
from node.results.check import Fault, check_object
from node.results.ecg_capture import build_ecg_capture
from node.results.ecg_report import build_ecg_report
from node.results.ecg_text_report import build_ecg_text_report
from node.results.evidence import TestedOn
from node.results.key_object import build_key_object
from node.results.objects import (
    ClipResult,
    EcgReading,
    EcgResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    is_own_object,
)
from node.results.page import build_page
from node.results.rendering import render_report
from node.results.report import build_report
from node.results.text_report import build_text_report

__all__ = [
    "ClipResult",
    "EcgReading",
    "EcgResult",
    "EncodedObject",
    "EncodedPicture",
    "Fault",
    "ObjectRef",
    "ReportSettings",
    "ResultError",
    "TestedOn",
    "build_capture",
    "build_ecg_capture",
    "build_ecg_report",
    "build_ecg_text_report",
    "build_key_object",
    "build_page",
    "build_report",
    "build_text_report",
    "check_object",
    "is_own_object",
    "render_report",
]
