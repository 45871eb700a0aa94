"""Stand-ins for the models: answers at once, by what the object says of itself.

A still is no clip for a model; a clip is an apical four-chamber view with one finding and a
picture. ``SLOW_S`` seconds pass first where an analysis must take long enough to be killed in.
"""

from __future__ import annotations

import hashlib
import os
import time
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from typing import Any

from PIL import Image

from models.clip import Mode, read_header
from models.explain.panels import EncodedPicture
from models.finding import Evidence, Finding, Kind, Method, PackRef
from models.views import View, ViewCall
from node.analysis import ClipAnalysis, ClipView
from storage.files import local

PACK = PackRef(name="light", version="1", weights_sha256="ab" * 32)
SLOW = "ECHONODE_TESTS_SLOW_S"  #: how long a reading takes, in the environment of the node


def name_view(path: str) -> ClipView:
    """An apical four-chamber view, as many frames as the header says."""
    time.sleep(float(os.environ.get(SLOW, "0")))
    with local(path) as file:
        frames = int(read_header(file).get("NumberOfFrames", 1))
    return ClipView(
        view=ViewCall(view=View.A4C, score=0.99, certain=True),
        refused=None,
        mode=Mode.TWO_D,
        frame_count=frames,
        pack=PACK,
        reading_s={PACK.name: 0.01},
    )


def analyse(path: str, **_options: Any) -> ClipAnalysis:
    """An ejection fraction that depends on the pixels and on nothing else."""
    time.sleep(float(os.environ.get(SLOW, "0")))
    with local(path) as file:
        seen = hashlib.sha256(file.read_bytes()[-1024:]).digest()
    finding = Finding(
        output="ef", kind=Kind.MEASUREMENT, value=50.0 + seen[0] / 16, unit="%",
        low=40.0, high=70.0, pack=PACK, evidence=Evidence.PATIENTS,
        method=Method.SINGLE_PLANE_DISCS, frames=(1,),
    )  # fmt: skip
    return ClipAnalysis(
        findings=(finding,), picture=_picture(), packs_run=(PACK,), reading_s={PACK.name: 0.02}
    )


def prepare(*_arguments: object) -> None:
    """Nothing to load."""


class ThreadedWorkers(ThreadPoolExecutor):
    """Slots without processes, for tests that are about something else."""

    def __init__(self, count: int, **_options: Any) -> None:
        super().__init__(count, thread_name_prefix="light")

    def workers(self) -> tuple[()]:
        """There are none to show."""
        return ()

    def terminate(self) -> None:
        """Wait for nothing."""
        self.shutdown(wait=False, cancel_futures=True)


def _picture() -> EncodedPicture:
    buffer = BytesIO()
    Image.new("RGB", (64, 48), (90, 60, 30)).save(buffer, "JPEG", quality=90, subsampling=1)
    return EncodedPicture(
        jpeg_frames=(buffer.getvalue(),) * 2,
        rows=48,
        columns=64,
        frame_times_ms=(0.0, 33.3),
        source_frames=(0, 1),
        title="SmoothGrad",
    )
