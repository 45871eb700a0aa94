"""Copies of objects that are full of planted identifiers: files, pixels, and their inspection."""

from __future__ import annotations

import shutil
import subprocess
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.pixels import iter_pixels, pixel_array
from pydicom.uid import JPEGBaseline8Bit, RLELossless, SecondaryCaptureImageStorage

from models.blanked import BlankedFrames, blanked_frames
from models.clip import Clip, ClipError, read_clip
from node.export import copying
from node.export.copying import Wishes, copy_object, fit_source, patient_identity
from node.export.errors import LeftOut, NotClean
from node.export.identity import identity_of
from node.export.inspection import inspect
from node.export.pixels import Coding
from node.export.profile import ACTIONS, CleanHeader, Dates
from node.export.pseudonyms import Pseudonyms
from tests.export_sources import (
    COLUMNS,
    NUMBER,
    ROOT,
    ROWS,
    SURNAME,
    cine,
    item,
    leaks,
    planted,
    planted_file,
)
from tests.peers import require
from tests.ultrasound_files import (
    as_file,
    jpeg_object,
    region,
    rgb_jpeg,
    speckle,
    with_regions,
    ybr_jpeg,
)

NAMES = Pseudonyms(bytes(range(32)))
PATIENT = NAMES.patient("number", NUMBER, "")


def copied(tmp_path: Path, data: bytes, wishes: Wishes | None = None) -> tuple[Clip, Path]:
    """An object's clip, and its copy."""
    wishes = wishes or Wishes()
    source = tmp_path / "source"
    source.write_bytes(data)
    out = tmp_path / "out"
    out.mkdir(exist_ok=True)
    fit = fit_source(source, wishes)
    path, _ = copy_object(fit, NAMES, PATIENT, wishes, out)
    return fit.clip, path


def inspected(clip: Clip, path: Path) -> None:
    """Inspect a copy as it was inspected when it was made."""
    identity = identity_of(clip.header, ACTIONS, dates=True)
    inspect(path, identity, blanked_frames(clip), PATIENT, Dates.REMOVE)


@pytest.fixture(scope="module")
def one_copy(tmp_path_factory: pytest.TempPathFactory) -> tuple[Clip, Path]:
    """A copy that passes, for many to spoil."""
    clip, path = copied(tmp_path_factory.mktemp("copy"), planted_file())
    inspected(clip, path)
    return clip, path


@pytest.mark.parametrize("dates", list(Dates))
def test_nothing_that_was_planted_is_in_the_copy(tmp_path: Path, dates: Dates) -> None:
    data = planted_file()
    assert len(leaks(data)) > 10, "the source must be full of it"
    _, path = copied(tmp_path, data, Wishes(dates=dates))
    whole = path.read_bytes()
    assert leaks(whole) == []
    assert not any(whole[:128])
    assert path.name == f"{NAMES.uid(f'{ROOT}.3.1')}.dcm"
    copy = dcmread(path)
    assert not [one for one in copy.iterall() if one.tag.is_private]
    assert not [one for one in copy if one.tag.group in range(0x5000, 0x6100)]
    assert copy.PatientName == copy.PatientID == PATIENT
    assert "PatientAge" not in copy
    assert copy.PatientSex == ""
    # What identifies nobody stays.
    assert copy.SequenceOfUltrasoundRegions[0].PhysicalDeltaX == 0.04
    assert copy.AnatomicRegionSequence[0].CodeMeaning == "Heart"
    assert (copy.Manufacturer, copy.HeartRate, copy.FrameTime) == (
        "Philips Medical Systems",
        71,
        40,
    )
    uid = copy.SourceImageSequence[0].ReferencedSOPInstanceUID
    assert uid == NAMES.uid(f"{ROOT}.3.77")
    assert copy.StudyInstanceUID == NAMES.uid(f"{ROOT}.1")


def _grey() -> FileDataset:
    return planted()


def _inverted() -> FileDataset:
    made = planted(255 - cine())
    made.PhotometricInterpretation = "MONOCHROME1"
    return made


def _deep() -> FileDataset:
    """12 bits in 16, and an overlay in the bits above."""
    values = cine().astype(np.uint16) << 4
    made = planted(values | 0xA000)
    made.BitsStored, made.HighBit = 12, 11
    return made


def _signed() -> FileDataset:
    return planted(((cine().astype(np.int32) << 8) - 32768).astype(np.int16))


def _rgb() -> FileDataset:
    return planted(cine(coloured=True))


def _palette() -> FileDataset:
    made = planted()
    made.PhotometricInterpretation = "PALETTE COLOR"
    for colour, scale in (("Red", 256), ("Green", 200), ("Blue", 100)):
        setattr(made, f"{colour}PaletteColorLookupTableDescriptor", [256, 0, 16])
        table = (np.arange(256) * scale).astype("<u2").tobytes()
        setattr(made, f"{colour}PaletteColorLookupTableData", table)
    return made


def _jpeg(encode: Callable[..., bytes]) -> Callable[[], FileDataset]:
    def make() -> FileDataset:
        made = jpeg_object(cine(coloured=True), encode)
        for element in planted():
            if element.tag.group < 0x0028:
                made.add(element)
        return made

    return make


@pytest.mark.parametrize(
    ("make", "photometric"),
    [
        (_grey, "MONOCHROME2"),
        (_inverted, "MONOCHROME1"),
        (_deep, "MONOCHROME2"),
        (_signed, "MONOCHROME2"),
        (_rgb, "RGB"),
        (_palette, "RGB"),
        (_jpeg(ybr_jpeg), "YBR_FULL"),
        (_jpeg(rgb_jpeg), "RGB"),
    ],
)
def test_the_sector_stays_to_the_last_bit_and_nothing_else(
    tmp_path: Path, make: Callable[[], FileDataset], photometric: str
) -> None:
    clip, path = copied(tmp_path, as_file(make()))
    copy = dcmread(path)
    assert copy.file_meta.TransferSyntaxUID == RLELossless
    assert copy.PhotometricInterpretation == photometric
    again = read_clip(path)
    assert (again.mode, again.spacing, again.frame_count) == (clip.mode, clip.spacing, 6)
    box = np.s_[:, clip.sector.top : clip.sector.bottom, clip.sector.left : clip.sector.right]
    grey = np.stack(list(again._frames.greys(range(6))))
    np.testing.assert_array_equal(grey[box] * clip.sector.mask, clip.frames())
    rest = grey.copy()
    rest[box][:, clip.sector.mask] = 0
    assert not rest.any(), "letters outside the sector must be gone"
    # And a reader of other make sees the same.
    stored = pixel_array(path, raw=True)
    assert stored.shape[:3] == (6, ROWS, COLUMNS)
    if photometric == "MONOCHROME2":
        low = -(1 << (copy.BitsStored - 1)) if copy.PixelRepresentation else 0
        lifted = (stored.astype(np.int32) - low) >> (copy.BitsStored - 8)
        np.testing.assert_array_equal(lifted, grey)


def test_colour_inside_the_sector_is_that_of_the_source(tmp_path: Path) -> None:
    pixels = cine(coloured=True)
    pixels[:, 40:60, 70:90] = (200, 30, 20)
    clip, path = copied(tmp_path, as_file(planted(pixels)))
    mask = blanked_frames(clip).mask
    assert mask[50, 80]
    np.testing.assert_array_equal(pixel_array(path)[:, mask], pixels[:, mask])


def test_jpeg_once_more_is_said_to_have_lost_twice(tmp_path: Path) -> None:
    clip, path = copied(tmp_path, as_file(_jpeg(ybr_jpeg)()), Wishes(coding=Coding.JPEG))
    copy = dcmread(path)
    assert copy.file_meta.TransferSyntaxUID == JPEGBaseline8Bit
    assert copy.PhotometricInterpretation == "YBR_FULL_422"
    assert copy.LossyImageCompression == "01"
    assert list(copy.LossyImageCompressionMethod) == ["ISO_10918_1", "ISO_10918_1"]
    assert all(ratio > 1 for ratio in copy.LossyImageCompressionRatio)
    assert leaks(path.read_bytes()) == []
    before, after = clip.frames().astype(int), read_clip(path)._frames.greys(range(6))
    box = np.s_[clip.sector.top : clip.sector.bottom, clip.sector.left : clip.sector.right]
    far = [
        np.abs(grey[box] * clip.sector.mask - one).mean()
        for grey, one in zip(after, before, strict=True)
    ]
    assert max(far) < 4
    # What came without loss stays so.
    _, lossless = copied(tmp_path, planted_file(), Wishes(coding=Coding.JPEG))
    copy = dcmread(lossless)
    assert copy.file_meta.TransferSyntaxUID == RLELossless
    assert copy.LossyImageCompression == "00"


def test_a_long_cine_takes_the_memory_of_a_few_frames(tmp_path: Path) -> None:
    frames = 40
    source = tmp_path / "source"
    source.write_bytes(as_file(planted(cine(frames, coloured=True))))
    fit = fit_source(source, Wishes())
    tracemalloc.start()
    try:
        copy_object(fit, NAMES, PATIENT, Wishes(), tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    whole = frames * ROWS * COLUMNS * 3
    assert whole > 2_000_000
    assert peak < 0.7 * whole


def _still(mode_format: int, top: int = 40) -> bytes:
    made = planted(speckle((1, ROWS, COLUMNS)))
    box = region(RegionSpatialFormat=mode_format, RegionLocationMinY0=top)
    return as_file(with_regions(made, box))


def _no_region(*mode: str) -> bytes:
    made = planted(cine(1))
    del made.SequenceOfUltrasoundRegions
    made.ImageType = ["ORIGINAL", "PRIMARY", *mode]
    return as_file(made)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: as_file(planted(SOPClassUID=SecondaryCaptureImageStorage)), "Secondary Capture"),
        (lambda: as_file(planted(np.zeros((4, ROWS, COLUMNS), np.uint8))), "no ultrasound sector"),
        (_no_region, "picture of a screen"),
        (lambda: _no_region("", "0001"), "a still without a region"),
        (lambda: _still(3), "--spectra"),
        (lambda: _still(2), "--spectra"),
        (lambda: as_file(planted(speckle((6, ROWS, COLUMNS)))), "nearly all of its pixels"),
        (lambda: as_file(planted(Manufacturer="echonode")), "echonode made it"),
        (lambda: as_file(planted(HighBit=6)), "bit 6"),
        (lambda: b"no object", "cannot be read"),
    ],
)
def test_what_cannot_be_blanked_is_left_out_and_told(
    tmp_path: Path, make: Callable[[], bytes], reason: str
) -> None:
    with pytest.raises(LeftOut, match=reason) as told:
        copied(tmp_path, make())
    assert leaks(str(told.value).encode()) == []
    assert not list((tmp_path / "out").iterdir())


def test_spectra_come_on_request_with_their_region_alone(tmp_path: Path) -> None:
    _, path = copied(tmp_path, _still(3), Wishes(spectra=True))
    pixels = pixel_array(path)
    assert not pixels[:40].any()
    assert pixels[40:].all()
    with pytest.raises(LeftOut, match="nearly all of its pixels"):
        copied(tmp_path, _still(3, top=0), Wishes(spectra=True))


def _rewritten(path: Path, change: Callable[[Dataset], None]) -> None:
    dataset = dcmread(path)
    change(dataset)
    dataset.save_as(path)


def _set(**values: Any) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        def put(dataset: Dataset) -> None:
            for keyword, value in values.items():
                setattr(dataset, keyword, value)

        _rewritten(path, put)

    return change


def _in_bytes(change: Callable[[bytearray], Any]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(bytes(data))

    return spoil


def _letters(path: Path) -> None:
    def put(dataset: Dataset) -> None:
        frames = np.stack(list(iter_pixels(path, raw=True)))
        frames[3, 5, 5] = 1  # one pixel, by one level
        dataset.compress(RLELossless, frames, generate_instance_uid=False)

    _rewritten(path, put)


def _preamble(data: bytearray) -> None:
    data[:4] = b"name"


def _padding(data: bytearray) -> None:
    """A name behind the end of a value's text, which no reader shows."""
    at = data.index(b"EPIQ 7C ")
    data[at : at + 8] = b"plt7730\0"


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (_set(PatientAge="092Y"), "to be removed"),
        (_set(ImageComments="moved"), "to be removed"),
        (_set(StudyDate="20240229"), "a date or time"),
        (_set(StudyID="1"), "to be replaced"),
        (_set(TransducerData="S5-1"), "free text"),
        (_set(ManufacturerModelName=f"of {SURNAME.lower()}"), "a word of the source's identity"),
        (_set(StudyInstanceUID=f"{ROOT}.1"), "not replaced"),
        (_set(SeriesNumber=int("7730042")), None),
        (_set(BurnedInAnnotation="YES"), "does not state"),
        (_set(PatientID="someone"), "does not state"),
        (_set(PerformedProtocolCodeSequence=[item(CodeMeaning=SURNAME)]), "a word of"),
        (_set(RequestAttributesSequence=[item(CodeValue="1")]), "a sequence to be removed"),
        (lambda p: _rewritten(p, lambda d: d.add_new(0x60000022, "LO", "x")), "an overlay"),
        (lambda p: _rewritten(p, lambda d: d.add_new(0x00091001, "LO", "x")), "private"),
        (lambda p: _rewritten(p, lambda d: d.add_new(0x00282000, "OB", b"xx")), "hidden bytes"),
        (_in_bytes(_preamble), "preamble"),
        (_in_bytes(lambda data: data.extend(b"name")), "after its pixels"),
        (_in_bytes(lambda data: data.__delitem__(slice(-300, None))), "after its pixels"),
        (_letters, "frame 3 is not blank"),
    ],
)
def test_the_inspection_finds_what_was_missed(
    one_copy: tuple[Clip, Path], tmp_path: Path, spoil: Callable[[Path], None], found: str | None
) -> None:
    clip, clean = one_copy
    path = tmp_path / "copy.dcm"
    shutil.copyfile(clean, path)
    spoil(path)
    if found is None:
        inspected(clip, path)
        return
    with pytest.raises(NotClean, match=found) as told:
        inspected(clip, path)
    assert leaks(str(told.value).encode()) == []


def test_a_copy_that_is_not_clean_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(header: Dataset, *_rest: Any) -> CleanHeader:
        return CleanHeader(dataset=header, scrubbed=0)

    monkeypatch.setattr(copying, "clean_header", careless)
    with pytest.raises(NotClean):
        copied(tmp_path, planted_file())
    assert not list((tmp_path / "out").iterdir())


def test_frames_that_break_are_told_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def breaks(_self: BlankedFrames) -> Any:
        yield np.zeros((ROWS, COLUMNS), np.uint8)
        raise ClipError("frame 1 is broken")

    monkeypatch.setattr(BlankedFrames, "__iter__", breaks)
    with pytest.raises(LeftOut, match="frame 1 is broken"):
        copied(tmp_path, planted_file())
    assert not list((tmp_path / "out").iterdir())


def _faults(path: Path) -> set[str]:
    """What dciodvfy says against an object."""
    told = subprocess.run(
        [require("dciodvfy"), str(path)], capture_output=True, text=True, check=False
    )
    return {one for one in (told.stdout + told.stderr).splitlines() if one.startswith("Error")}


@pytest.mark.parametrize("make", [_grey, _jpeg(ybr_jpeg)])
def test_judges_read_the_copy_and_find_no_new_fault(
    tmp_path: Path, make: Callable[[], FileDataset]
) -> None:
    made = make()
    made.ImageType = ["ORIGINAL", "PRIMARY", "", "0001"]
    made.FrameIncrementPointer = 0x00181063
    made.Laterality = made.PatientOrientation = made.PositionReferenceIndicator = ""
    _, path = copied(tmp_path, as_file(made))
    assert _faults(path) <= _faults(tmp_path / "source")
    dump = subprocess.run(
        [require("dcmdump"), str(path)], capture_output=True, text=True, check=True
    )
    assert leaks(dump.stdout.encode()) == []
    assert not dump.stderr


def test_a_patient_is_told_by_number_or_by_name_and_birth_date() -> None:
    number = item(PatientID=" 7 ", PatientName="A^B", StudyInstanceUID="1.2")
    assert patient_identity(number) == ("number", "7", "")
    named = item(PatientName="A^B", PatientBirthDate="19310728", StudyInstanceUID="1.2")
    assert patient_identity(named) == ("name", "A^B", "19310728")
    nobody = item(PatientName="Anonymized", PatientID="", StudyInstanceUID="1.2")
    assert patient_identity(nobody) == ("study", "1.2")


def test_copies_of_real_machines_objects_are_clean(shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "ultrasound"
    clip, path = copied(tmp_path, (folder / "esaote_6100_msk_1f_native_ybr422.dcm").read_bytes())
    inspected(clip, path)
    assert read_clip(path).spacing == clip.spacing
    with pytest.raises(LeftOut, match="a still without a region"):
        fit_source(folder / "tee_colour_1f_rgb_planar.dcm", Wishes())
