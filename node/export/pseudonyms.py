"""Names that stand for a patient, a study, an object, and how many days a patient's dates move.

All come from one secret by HMAC-SHA-256: with the secret the same names come out again; without
it nobody gets from a name to a patient, nor from a patient to a name.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import uuid
from datetime import date, timedelta
from typing import Final

SECRET_BYTES: Final = 32
_MOST_DAYS: Final = 3650


def new_secret() -> bytes:
    """A secret that nobody has had before."""
    return secrets.token_bytes(SECRET_BYTES)


class Pseudonyms:
    """What a secret makes of identifiers."""

    def __init__(self, secret: bytes) -> None:
        if len(secret) < SECRET_BYTES:
            raise ValueError(f"a secret of {len(secret)} bytes: {SECRET_BYTES} are wanted")
        self._secret: Final = secret

    @property
    def fingerprint(self) -> str:
        """Tells two secrets apart, and gives nothing away of either."""
        return self._digest("fingerprint").hex()[:16]

    def patient(self, *identity: str) -> str:
        """The number of a patient: P and twelve letters and digits."""
        return f"P{_letters(self._digest('patient', *identity))[:12]}"

    def folder(self, study_instance_uid: str) -> str:
        """The name of a study's folder."""
        return f"S{_letters(self._digest('folder', study_instance_uid))[:12]}"

    def uid(self, original: str) -> str:
        """The UID in place of another (PS3.5 B.2: 2.25. and a UUID, version 8)."""
        number = bytearray(self._digest("uid", original)[:16])
        number[6] = (number[6] & 0x0F) | 0x80
        number[8] = (number[8] & 0x3F) | 0x80
        return f"2.25.{uuid.UUID(bytes=bytes(number)).int}"

    def days(self, patient: str) -> int:
        """How many days the dates of a patient go back: 1 to ten years."""
        return 1 + int.from_bytes(self._digest("days", patient)[:8]) % _MOST_DAYS

    def _digest(self, kind: str, *parts: str) -> bytes:
        # Each part with its length before it, so that ("ab", "c") and ("a", "bc") differ.
        text = b"".join(
            len(part).to_bytes(8) + part for part in (word.encode() for word in (kind, *parts))
        )
        return hmac.new(self._secret, text, hashlib.sha256).digest()


def shifted(value: str, days: int) -> str | None:
    """A DA, or the day of a DT, so many days before; None where it is no date."""
    if len(value) < 8 or not value[:8].isdecimal() or not value.isascii():
        return None
    try:
        day = date(int(value[:4]), int(value[4:6]), int(value[6:8])) - timedelta(days=days)
    except (ValueError, OverflowError):
        return None
    return f"{day.year:04}{day.month:02}{day.day:02}{value[8:]}"


def _letters(digest: bytes) -> str:
    return base64.b32encode(digest).decode().lower()
