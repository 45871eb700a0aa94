"""Structured logs on stderr that name no patient.

A study is named by :func:`study_key`, a short hash of its UID. The DICOM libraries can write
attributes of a patient into their own messages (data sets at debug level, bad values in warnings
and tracebacks), so only their warnings and errors are let through, without the traceback.
"""

from __future__ import annotations

import hashlib
import logging
import sys
import warnings
from typing import TextIO

import structlog
from structlog.typing import Processor

from node.sections import LogSettings

_DICOM_LIBRARIES = ("pydicom", "pynetdicom", "highdicom")
_CHATTY = (
    "alembic",
    "apscheduler",
    "asyncio",
    "httpx",
    "httpcore",
    "PIL",
    "tensorflow",
    "absl",
    "h5py",
    "uvicorn",
)


def study_key(study_instance_uid: str) -> str:
    """Ten characters that stand for a study in logs and lists, and identify no one."""
    return hashlib.sha256(study_instance_uid.encode()).hexdigest()[:10]


def set_up_logging(settings: LogSettings, stream: TextIO | None = None) -> None:
    """Send structlog's and the standard library's logs to ``stream`` (default stderr).

    To be called once in every process, worker processes too: structlog alone would write to
    stdout, which belongs to the commands' results.
    """
    target = sys.stderr if stream is None else stream
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    handler = logging.StreamHandler(target)
    handler.addFilter(_without_patient_values)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_renderers(settings, target),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for name in (*_DICOM_LIBRARIES, *_CHATTY):
        logging.getLogger(name).setLevel(max(level, logging.WARNING))
    _keep_warnings_out_of_stderr()
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _renderers(settings: LogSettings, target: TextIO) -> list[Processor]:
    console = settings.format == "console" or (settings.format == "auto" and target.isatty())
    if console:
        return [
            structlog.dev.ConsoleRenderer(
                colors=target.isatty(),
                exception_formatter=structlog.dev.plain_traceback,  # never shows local variables
            )
        ]
    return [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


def _without_patient_values(record: logging.LogRecord) -> bool:
    if record.name.split(".")[0] in _DICOM_LIBRARIES and record.exc_info:
        kind = record.exc_info[0]
        record.msg = f"{record.getMessage()} ({kind.__name__ if kind else 'error'})"
        record.args = None
        record.exc_info = None
        record.exc_text = None
    return True


def _keep_warnings_out_of_stderr() -> None:
    # A warning of pydicom quotes the value it does not like.
    for library in _DICOM_LIBRARIES:
        warnings.filterwarnings("ignore", module=rf"{library}(\.|$)")
    logging.captureWarnings(True)
