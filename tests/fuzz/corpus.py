"""Whole objects to break: small, and of every kind and encoding that an echo machine sends.

Frames are few and small, so that an object takes milliseconds. What is made here is the same in
every run: seeds would mean nothing otherwise.
"""

from __future__ import annotations

import io
import pickle
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import data_store
import numpy as np
import pydicom
from pydicom import Dataset, dcmread
from pydicom.encaps import encapsulate, generate_frames
from pydicom.examples import get_path
from pydicom.uid import (
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from models.simulator import simulate
from models.simulator.dicom import SUPPORTED_SYNTAXES, to_bytes, to_dicom
from models.views import View
from tests.results_examples import capture_of, picture, source_header, study_report
from tests.ultrasound_files import (
    as_file,
    jpeg_object,
    region,
    rgb_jpeg,
    speckle,
    ultrasound,
    with_regions,
    ybr_jpeg,
)

_STUDY = "1.2.826.0.1.3680043.8.498.900"
_MOST_BYTES = 60_000  # of an object taken as it is
_FRAMES = 3  # of a real cine that is cut
_REAL = (
    "examples_ybr_color.dcm",
    "examples_rgb_color.dcm",
    "examples_palette.dcm",
    "gdcm-US-ALOKA-16.dcm",
    "gdcm-US-ALOKA-16_big.dcm",
    "color-pl.dcm",
    "color-px.dcm",
    "US1_J2KR.dcm",
    "US1_UNCR.dcm",
    "waveform_ecg.dcm",
)
#: Odd and small ones that pydicom's own tests are about, made ultrasound images.
_ODD = (
    "SC_rgb_rle.dcm",
    "SC_rgb_rle_16bit_2frame.dcm",
    "SC_rgb_small_odd.dcm",
    "SC_rgb_small_odd_jpeg.dcm",
    "SC_rgb_small_odd_big_endian.dcm",
    "SC_rgb_jls_lossy_line.dcm",
    "SC_rgb_jls_lossy_sample.dcm",
    "SC_ybr_full_422_uncompressed.dcm",
    "SC_jpeg_no_color_transform.dcm",
    "SC_rgb_dcmtk_+eb+cy+s4.dcm",
    "JPEG2000.dcm",
    "JPEG2000-embedded-sequence-delimiter.dcm",
    "JPEG-lossy.dcm",
    "JPGExtended.dcm",
    "JPEGLSNearLossless_08.dcm",
    "JPEGLSNearLossless_16.dcm",
    "MR_small_RLE.dcm",
    "MR_small_implicit.dcm",
    "MR_small_jp2klossless.dcm",
    "MR_small_jpeg_ls_lossless.dcm",
    "emri_small_jpeg_2k_lossless_too_short.dcm",
    "image_dfl.dcm",
    "test-SR.dcm",
    "reportsi.dcm",
    "nested_priv_SQ.dcm",
    "UN_sequence.dcm",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Base:
    """An object that nobody has broken yet."""

    name: str
    data: bytes


def corpus(folder: Path) -> tuple[Base, ...]:
    """Every base, from a file in ``folder`` where another process has made them already."""
    kept = folder / "corpus.pickle"
    if not kept.exists():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            made = tuple(_bases())
        kept.write_bytes(pickle.dumps(made))
    found: tuple[Base, ...] = pickle.loads(kept.read_bytes())  # noqa: S301 - our own file
    return found


def _bases() -> Iterator[Base]:
    yield from _simulated()
    yield from _drawn()
    yield from _real()
    yield from _results()


def _simulated() -> Iterator[Base]:
    colour = simulate(View.PSLA, seed=5, frames=3, size=(96, 128), colour_flow=True, masks=False)
    grey = simulate(View.A4C, seed=4, frames=6, size=(96, 128), colour_flow=False, masks=False)
    spectrum = simulate(View.PW, seed=3, size=(96, 128), masks=False)
    for syntax in SUPPORTED_SYNTAXES:
        for name, clip in (("colour", colour), ("grey", grey)):
            made = to_dicom(clip, study_uid=_STUDY, transfer_syntax=syntax)
            yield Base(name=f"simulated-{name}-{syntax}", data=to_bytes(made))
    yield Base(name="simulated-pw", data=to_bytes(to_dicom(spectrum, study_uid=_STUDY)))
    palette = to_dicom(
        colour, study_uid=_STUDY, transfer_syntax="1.2.840.10008.1.2.1", photometric="PALETTE COLOR"
    )
    yield Base(name="simulated-palette", data=to_bytes(palette))


def _drawn() -> Iterator[Base]:
    """What the simulator does not write: 16 bits, implicit VRs, several fragments a frame."""
    grey = speckle((3, 40, 60))
    rgb = np.repeat(grey[..., None], 3, axis=-1)
    implicit = with_regions(ultrasound(grey, Manufacturer="Maker"), region())
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    yield Base(name="drawn-implicit", data=as_file(implicit))
    deep = ultrasound((grey.astype(np.uint16) << 4), BitsStored=12)
    yield Base(name="drawn-12-bits", data=as_file(deep))
    for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        packed = ultrasound((grey.astype(np.uint16) << 4), BitsStored=12, HighBit=11)
        packed.compress(syntax, generate_instance_uid=False)
        yield Base(name=f"drawn-12-bits-{syntax.name}", data=as_file(packed))
    for name, encode in (("ybr", ybr_jpeg), ("rgb", rgb_jpeg)):
        made = jpeg_object(rgb, encode, fragments_per_frame=3)
        yield Base(name=f"drawn-fragments-{name}", data=as_file(made))
    yield Base(name="drawn-no-table", data=as_file(jpeg_object(rgb, ybr_jpeg, has_bot=False)))


def _real() -> Iterator[Base]:
    folders = [
        Path(pydicom.data.__file__).parent / "test_files",
        Path(data_store.__file__).parent / "data",
    ]
    for name in (*_REAL, *_ODD):
        path = next((f / name for f in folders if (f / name).exists()), None)
        if path is None:
            continue
        small = _cut(path, name)
        if small is not None:
            yield Base(name=name, data=small)


def _cut(path: Path, name: str) -> bytes | None:
    """A real object with its first frames alone; None where it cannot be made small."""
    dataset = dcmread(path, force=True)
    if name in _ODD and len(path.read_bytes()) <= _MOST_BYTES and "PixelData" in dataset:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.3.1"
        dataset.Modality = "US"
    elif name in _ODD:
        return path.read_bytes()
    if "PixelData" in dataset and "Rows" in dataset:
        _shorten(dataset)
    for waveform in dataset.get("WaveformSequence", ()):
        waveform.NumberOfWaveformSamples = 100
        waveform.WaveformData = waveform.WaveformData[
            : 100 * waveform.NumberOfWaveformChannels * waveform.WaveformBitsAllocated // 8
        ]
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=False)
    return buffer.getvalue()


def _shorten(dataset: Dataset) -> None:
    count = int(dataset.get("NumberOfFrames", 1) or 1)
    if dataset.file_meta.TransferSyntaxUID.is_encapsulated:
        frames = []
        for frame in generate_frames(dataset.PixelData, number_of_frames=count):
            frames.append(frame)
            if len(frames) == _FRAMES:
                break
        dataset.PixelData = encapsulate(frames)
    else:
        # Whole frames would be half a megabyte each: the upper left corner will do.
        rows = min(dataset.Rows, 60)
        bits = dataset.BitsAllocated * dataset.SamplesPerPixel
        one = dataset.Rows * dataset.Columns * bits // 8
        frames = [
            dataset.PixelData[n * one : n * one + rows * dataset.Columns * bits // 8]
            for n in range(min(count, _FRAMES))
        ]
        dataset.Rows = rows
        dataset.PixelData = b"".join(frames)
    if count > 1:
        dataset.NumberOfFrames = len(frames)


def _results() -> Iterator[Base]:
    """What the node itself made, coming back."""
    yield Base(name="own-report", data=study_report().data)
    cine = capture_of(source_header(1), picture((0.0, 100.0)))
    yield Base(name="own-capture", data=cine.data)
    yield Base(name="real-cine-header", data=_header_alone())


def _header_alone() -> bytes:
    buffer = io.BytesIO()
    dcmread(get_path("ybr_color"), stop_before_pixels=True).save_as(buffer)
    return buffer.getvalue()
