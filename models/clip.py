"""A DICOM object, read as an ultrasound clip: the frames wanted, grey, and nothing but the sector.

``read_clip`` reads what a model may look at, ``read_header`` what stands before the pixels, and
``find_sector`` finds the picture on a screen. Everything outside the sector is zero in what a
:class:`Clip` gives out: names, numbers, traces and bars never reach a model or a drawing.

How a frame becomes grey is told in :mod:`models._pixels`, the sector in :mod:`models._sector`,
times in :mod:`models._timing`, mode and scale in :mod:`models._regions`. Published models are
asked most of all for exactly this; so none of it depends on chance or on the order of calls.

Not read: MPEG-2, MPEG-4, HEVC and JPEG XL, float pixels, and 1, 12 (packed) and 32 bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    JPEG2000,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLSNearLossless,
    UltrasoundMultiFrameImageStorage,
    generate_uid,
)

from models._header import ClipError, number, open_object, text
from models._limits import MOST_CLIP_BYTES
from models._pixels import THIN, FrameReader, Probe
from models._regions import (
    Mode,
    PixelSpacing,
    Region,
    judge_spacing,
    main_region,
    pictures,
    read_regions,
    stated_mode,
)
from models._sector import Sector, find_sector, probe_indices, sector_in_box, whole_box
from models._timing import TimeAxis, time_axis

__all__ = [
    "Clip",
    "ClipError",
    "Mode",
    "PixelSpacing",
    "Sector",
    "TimeAxis",
    "bytes_beside_pixels",
    "find_sector",
    "read_clip",
    "read_header",
]

_LOSSY: Final = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000)
_FLOW_SHARE: Final = 0.004  # of the sector: less colour is a marker or a caliper
_TINT_SHARE: Final = 0.5  # of what is lit: more of one hue is a tint


class _Frames(Protocol):
    """Where a clip's whole grey frames come from."""

    def greys(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Clip:
    """One object's ultrasound frames and what is known of them.

    ``header`` is what :func:`read_header` gives. ``panels`` is the number of 2D pictures side
    by side; of several the largest is the sector. ``frame_count`` is 1 for a still.
    """

    header: Dataset
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str
    rows: int
    columns: int
    frame_count: int
    mode: Mode
    time_axis: TimeAxis
    sector: Sector
    panels: int
    spacing: PixelSpacing
    heart_rate_bpm: float | None
    lossy: bool
    _frames: _Frames = field(repr=False)

    def frames(self, indices: Sequence[int] | None = None) -> NDArray[np.uint8]:
        """Frames as grey, cropped to the sector's box and zero outside its mask.

        Args:
            indices: zero-based source frames, in any order; None for all.

        Returns:
            Shape ``(n, sector rows, sector columns)``; only these frames are decoded.

        Raises:
            ClipError: a frame cannot be decoded, or so many would take more than 2 GiB.
            IndexError: there is no such frame.
        """
        wanted = range(self.frame_count) if indices is None else [int(i) for i in indices]
        for index in wanted:
            if not 0 <= index < self.frame_count:
                raise IndexError(f"frame {index} of a clip of {self.frame_count} frames")
        sector = self.sector
        shape = (len(wanted), *sector.mask.shape)
        if int(np.prod(shape, dtype=np.int64)) > MOST_CLIP_BYTES:
            raise ClipError(f"{len(wanted)} frames take more than 2 GiB: ask for fewer")
        out = np.zeros(shape, np.uint8)
        box = np.s_[sector.top : sector.bottom, sector.left : sector.right]
        for place, grey in enumerate(self._frames.greys(wanted)):
            np.copyto(out[place], grey[box], where=sector.mask)
        return out

    @classmethod
    def from_frames(
        cls,
        frames: NDArray[np.uint8],
        *,
        frame_time_ms: float = 1000.0 / 30.0,
        spacing_mm: float | None = None,
        mode: Mode = Mode.TWO_D,
        heart_rate_bpm: float | None = None,
        sector: Sector | None = None,
    ) -> Clip:
        """A clip of grey frames that never were a file: simulated, or read from pictures.

        Args:
            frames: ``(n, rows, columns)``, 8-bit grey. Not copied.
            frame_time_ms: from a frame to the next.
            spacing_mm: side of a pixel; None where it is not known.
            mode: how it was scanned.
            heart_rate_bpm: beats a minute, where known.
            sector: the picture's place; found from the pixels where None.

        Raises:
            ValueError: the frames have another shape or type.
        """
        if frames.ndim != 3 or frames.dtype != np.uint8 or not frames.size:
            raise ValueError(f"frames are {frames.dtype} of shape {frames.shape}: uint8, 3D wanted")
        count, rows, columns = frames.shape
        header = _invented_header(frames, frame_time_ms)
        return cls(
            header=header,
            sop_class_uid=header.SOPClassUID,
            sop_instance_uid=header.SOPInstanceUID,
            series_instance_uid=header.SeriesInstanceUID,
            study_instance_uid=header.StudyInstanceUID,
            transfer_syntax_uid=ExplicitVRLittleEndian,
            rows=rows,
            columns=columns,
            frame_count=count,
            mode=mode,
            time_axis=time_axis(header, count),
            sector=sector or find_sector(frames),
            panels=1,
            spacing=PixelSpacing(
                row_mm=spacing_mm,
                column_mm=spacing_mm,
                trusted=spacing_mm is not None,
                reason="given with the frames" if spacing_mm else "none was given",
            ),
            heart_rate_bpm=heart_rate_bpm,
            lossy=False,
            _frames=_HeldFrames(frames),
        )


def read_header(source: Path | bytes | BinaryIO) -> Dataset:
    """Everything before the pixels: all standard attributes that can be read, no private ones.

    ``file_meta`` is there. A walk over what is returned neither raises nor warns.

    Memory is taken for the header alone, however large the file: values of absurd size are left
    out (:mod:`models._limits`).

    Raises:
        ClipError: this is not a DICOM object, or it is broken beyond reading.
    """
    return open_object(source, with_pixels=False).header


def bytes_beside_pixels(source: Path | bytes) -> int:
    """How many bytes an object holds beside its native pixels; whoever parses them all needs many
    times as much memory. Compressed pixels count as the rest does.

    Raises:
        ClipError: this is not a DICOM object, or it is broken beyond reading.
    """
    opened = open_object(source, with_pixels=False)
    size = len(source) if isinstance(source, bytes) else source.stat().st_size
    if opened.pixels is None or opened.pixels.length is None:
        return size
    return max(0, size - opened.pixels.length)


def read_clip(source: Path | bytes) -> Clip:
    """An ultrasound object as a clip; stills, Doppler and M-mode are clips too.

    A few frames are decoded to find the sector and to see colour; all others wait until
    :meth:`Clip.frames` asks for them. A file must stay where it is as long as the clip is used.

    Raises:
        ClipError: it cannot be read; the message says why.
    """
    opened = open_object(source)
    header = opened.header
    reader = FrameReader(opened)
    layout = reader.layout
    probes = _probe(reader)
    regions = read_regions(header)
    stated = stated_mode(header, regions)
    sector, region = _place(
        np.stack([probe.grey for probe in probes]), regions, stated or Mode.UNKNOWN
    )
    mode = _seen_mode(stated, probes, sector)
    rate = number(header, "HeartRate")
    return Clip(
        header=header,
        sop_class_uid=text(header, "SOPClassUID"),
        sop_instance_uid=text(header, "SOPInstanceUID"),
        series_instance_uid=text(header, "SeriesInstanceUID"),
        study_instance_uid=text(header, "StudyInstanceUID"),
        transfer_syntax_uid=str(opened.transfer_syntax),
        rows=layout.rows,
        columns=layout.columns,
        frame_count=layout.frame_count,
        mode=mode,
        time_axis=time_axis(header, layout.frame_count),
        sector=sector,
        panels=max(1, len(pictures(regions))),
        spacing=judge_spacing(
            header,
            region,
            mode=mode,
            rows=layout.rows,
            columns=layout.columns,
            sector_rows=sector.bottom - sector.top,
        ),
        heart_rate_bpm=rate if rate is not None and rate > 0 else None,
        lossy=text(header, "LossyImageCompression") == "01" or opened.transfer_syntax in _LOSSY,
        _frames=reader,
    )


def _probe(reader: FrameReader) -> list[Probe]:
    """A few frames spread over the clip, without those that are broken, unless all are."""
    probes, faults = [], []
    for index in probe_indices(reader.layout.frame_count):
        try:
            probes.append(reader.probe(index))
        except ClipError as error:
            faults.append(error)
    if not probes:
        raise faults[0]
    return probes


@dataclass(frozen=True, slots=True)
class _HeldFrames:
    """Frames in memory."""

    held: NDArray[np.uint8]

    def greys(self, indices: Sequence[int]) -> Iterator[NDArray[np.uint8]]:
        return (self.held[index] for index in indices)


def _place(
    greys: NDArray[np.uint8], regions: Sequence[Region], mode: Mode
) -> tuple[Sector, Region | None]:
    """The sector, and the region that it shows (which need not fit the image)."""
    rows, columns = greys.shape[1:]
    region = main_region(regions, mode)
    if region is None or not region.fits(rows, columns):
        return find_sector(greys), region
    box = (
        max(0, region.top),
        max(0, region.left),
        min(rows, region.bottom),
        min(columns, region.right),
    )
    if mode in (Mode.PW, Mode.CW, Mode.M_MODE):
        return whole_box(box), region
    return sector_in_box(greys, box), region


def _seen_mode(stated: Mode | None, probes: Sequence[Probe], sector: Sector) -> Mode:
    """The stated mode; where this is plain 2D or none, colour in the sector speaks."""
    if stated is not None and stated is not Mode.TWO_D:
        return stated
    if _shows_flow(probes, sector):
        return Mode.COLOUR
    if stated is None and len(probes) > 1 and sector.mask.any():
        return Mode.TWO_D  # a moving picture; Doppler and M-mode are kept as stills
    return stated or Mode.UNKNOWN


def _shows_flow(probes: Sequence[Probe], sector: Sector) -> bool:
    """Whether the sector shows coloured flow.

    Flow is strongly coloured, red beside blue or over a part of the picture only. A tint that a
    machine lays over its grey picture has one hue and covers most of what is lit.
    """
    first, start = -sector.top % THIN, -sector.left % THIN
    mask = sector.mask[first::THIN, start::THIN]
    top, left = (sector.top + first) // THIN, (sector.left + start) // THIN
    box = np.s_[top : top + mask.shape[0], left : left + mask.shape[1]]
    inside = [probe.colour(box, mask) for probe in probes]
    red, green, blue = (np.concatenate([one[:, plane] for one in inside]) for plane in range(3))
    highest = np.maximum(np.maximum(red, green), blue).astype(np.int16)
    lowest = np.minimum(np.minimum(red, green), blue).astype(np.int16)
    lit = highest >= 64
    strong = lit & (2 * (highest - lowest) > highest)
    coloured = int(strong.sum())
    if coloured <= _FLOW_SHARE * len(red):
        return False
    reddish = int((strong & (red > blue)).sum())
    return 0.1 < reddish / coloured < 0.9 or coloured < _TINT_SHARE * int(lit.sum())


def _invented_header(frames: NDArray[np.uint8], frame_time_ms: float) -> Dataset:
    """Enough of a header to name the frames; the same frames get the same UIDs."""
    digest = hashlib.sha256(frames.tobytes()).hexdigest()
    header = Dataset()
    header.SOPClassUID = UltrasoundMultiFrameImageStorage
    for level in ("Study", "Series", "SOP"):
        uid = generate_uid(entropy_srcs=[level, digest])
        setattr(header, f"{level}InstanceUID", uid)
    header.FrameTime = f"{frame_time_ms:.6g}"
    header.file_meta = FileMetaDataset()
    header.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return header
