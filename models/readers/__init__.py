"""Readers: a clip in, findings and refusals out, by a pack.

:class:`RegressionReader` is EchoNet's way: some frames, numbers for each, their mean.
:class:`TracingReader` traces every frame and measures the tracings. TensorFlow is imported when a
reader first runs its network.
"""

from models.readers.base import MOST_FRAMES, Reading
from models.readers.regression import RegressionReader, RegressionReading
from models.readers.tracing import TracingReader, TracingReading

__all__ = [
    "MOST_FRAMES",
    "Reading",
    "RegressionReader",
    "RegressionReading",
    "TracingReader",
    "TracingReading",
]
