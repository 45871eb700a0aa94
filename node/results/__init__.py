"""Results for the archive: Structured Reports and secondary captures, made and checked."""

from node.results.objects import (
    ClipResult,
    EncodedObject,
    ObjectRef,
    ReportSettings,
    ResultError,
    is_own_object,
)
from node.results.report import build_report

__all__ = [
    "ClipResult",
    "EncodedObject",
    "ObjectRef",
    "ReportSettings",
    "ResultError",
    "build_report",
    "is_own_object",
]
