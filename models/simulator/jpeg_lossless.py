"""JPEG lossless, as echo machines write it: process 14, selection value 1 (ITU-T T.81, annex H).

No package at hand encodes it. Each sample is predicted by its left neighbour; what remains is
written as a category in Huffman code and as many further bits. One table serves all pictures,
that of T.81 table K.3, which knows differences of up to eleven bits.
"""

from __future__ import annotations

import struct

import numpy as np
from numpy.typing import NDArray

_COUNTS = (0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0)  # codes of each length, table K.3
_CATEGORIES = tuple(range(12))


def encode_lossless(frame: NDArray[np.uint8]) -> bytes:
    """A frame (rows, columns) or (rows, columns, 3), 8 bits, as one JPEG lossless picture.

    The colours stay what they are: no transform is applied.
    """
    samples = frame[..., None] if frame.ndim == 2 else frame
    rows, columns, parts = samples.shape
    codes, lengths = _huffman()
    difference = _differences(samples.astype(np.int32)).ravel()
    category = np.ceil(np.log2(np.abs(difference) + 1)).astype(np.intp)
    # A negative difference is written as what is one less, in as many bits (T.81 F.1.2.1).
    extra = np.where(difference < 0, difference + (1 << category) - 1, difference)
    value = (codes[category] << category) | extra
    scan = _packed(value, lengths[category] + category)
    return b"".join(
        (
            b"\xff\xd8",
            _segment(0xC3, struct.pack(">BHHB", 8, rows, columns, parts)
                     + b"".join(struct.pack("BBB", part + 1, 0x11, 0) for part in range(parts))),
            _segment(0xC4, bytes((0, *_COUNTS, *_CATEGORIES))),
            _segment(0xDA, bytes((parts,))
                     + b"".join(struct.pack("BB", part + 1, 0) for part in range(parts))
                     + bytes((1, 0, 0))),
            scan,
            b"\xff\xd9",
        )
    )  # fmt: skip


def _differences(samples: NDArray[np.int32]) -> NDArray[np.int32]:
    out = samples.copy()
    out[:, 1:] -= samples[:, :-1]
    out[1:, 0] -= samples[:-1, 0]  # a line begins from the one above it (T.81 H.1.2.1)
    out[0, 0] -= 128
    return out


def _huffman() -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Code and length of each category, T.81 annex C."""
    codes, lengths, code = [], [], 0
    for length, count in enumerate(_COUNTS, start=1):
        for _ in range(count):
            codes.append(code)
            lengths.append(length)
            code += 1
        code <<= 1
    return np.array(codes, np.int64), np.array(lengths, np.int64)


def _packed(value: NDArray[np.int64], length: NDArray[np.int64]) -> bytes:
    """The lowest ``length`` bits of each value, one after the other, with stuffed bytes."""
    ends = np.cumsum(length)
    place = np.arange(int(ends[-1]))
    shift = np.repeat(ends, length) - 1 - place
    bits = (np.repeat(value, length) >> shift) & 1
    padding = np.ones(-len(bits) % 8, bits.dtype)
    packed = np.packbits(np.concatenate([bits, padding]).astype(np.uint8)).tobytes()
    return packed.replace(b"\xff", b"\xff\x00")


def _segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content
