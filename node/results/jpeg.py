"""What a JPEG file says of its own layout: enough to label it right, without decoding."""

from __future__ import annotations

from dataclasses import dataclass

_SOI = b"\xff\xd8"
_EOI = b"\xff\xd9"
_BASELINE = 0xC0
_START_OF_SCAN = 0xDA
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, kw_only=True, slots=True)
class JpegLayout:
    """The frame header (ISO/IEC 10918-1 B.2.2). ``sampling``: horizontal, vertical a component."""

    process: int
    rows: int
    columns: int
    sampling: tuple[tuple[int, int], ...]
    precision: int

    @property
    def is_baseline_422(self) -> bool:
        """Whether PS3.5 8.2.1 lets it be called YBR_FULL_422 in JPEG baseline."""
        return (
            self.process == _BASELINE
            and self.precision == 8
            and self.sampling == ((2, 1), (1, 1), (1, 1))
        )


def read_jpeg_layout(data: bytes) -> JpegLayout | None:
    """The layout, or None where the bytes are no whole JPEG file."""
    # A fragment may end in a padding byte (PS3.5 A.4).
    if data[:2] != _SOI or data.rstrip(b"\x00")[-2:] != _EOI:
        return None
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        length = int.from_bytes(data[at + 2 : at + 4], "big")
        if marker in _FRAMES:
            return _layout(marker, data[at + 4 : at + 2 + length])
        if marker == _START_OF_SCAN or length < 2:
            return None
        at += 2 + length
    return None


def _layout(process: int, header: bytes) -> JpegLayout | None:
    components = header[5] if len(header) > 5 else 0
    if len(header) < 6 + 3 * components:
        return None
    sampling = tuple(divmod(header[7 + 3 * index], 16) for index in range(components))
    return JpegLayout(
        process=process,
        precision=header[0],
        rows=int.from_bytes(header[1:3], "big"),
        columns=int.from_bytes(header[3:5], "big"),
        sampling=sampling,
    )
