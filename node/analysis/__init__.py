"""What a worker runs: the file of a recording in, its view or its findings and picture out.

A worker process calls :func:`load_packs` once and then :func:`name_view` and :func:`analyse` as
often as it is asked to. Both depend on the file and the packs alone, so that a recording whose
worker died simply runs again. What they return is frozen, picklable and small: pictures come as
JPEG frames. The node imports this package without TensorFlow; only the calls above need it.
"""

from node.analysis.clips import reason_to_skip
from node.analysis.cores import NO_REWRITING
from node.analysis.model import (
    ClipAnalysis,
    ClipView,
    EcgAnalysis,
    EcgRead,
    RecordingAnalysis,
    picture_settings,
)
from node.analysis.worker import analyse, load_packs, name_view

__all__ = [
    "NO_REWRITING",
    "ClipAnalysis",
    "ClipView",
    "EcgAnalysis",
    "EcgRead",
    "RecordingAnalysis",
    "analyse",
    "load_packs",
    "name_view",
    "picture_settings",
    "reason_to_skip",
]
