"""Data sets as the DICOM JSON Model (PS3.18 F) and the Native DICOM Model (PS3.19 A.1).

What cannot be said in them, since a machine wrote what is no value, is left out.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from pydicom.datadict import keyword_for_tag
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset

_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_MOST_INLINE = 1024  # bytes of a binary value; longer ones are fetched by their URI
_UNPRINTABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\ud800-\udfff\ufffe\uffff]")
_CHARACTER_SET, _UTF_8 = "00080005", "ISO_IR 192"
_REPRESENTATIONS = ("Alphabetic", "Ideographic", "Phonetic")
_NAME_PARTS = ("FamilyName", "GivenName", "MiddleName", "NamePrefix", "NameSuffix")

Path = tuple[str | int, ...]
Json = dict[str, Any]


def json_of(dataset: Dataset, bulk: Callable[[Path], str] | None = None, path: Path = ()) -> Json:
    """A data set in the DICOM JSON Model.

    Parameters
    ----------
    dataset
        As :func:`models.clip.read_header` gives it.
    bulk
        The URI of a long binary value, by its tags and item numbers; without it such are left out.
    path
        Where the data set stands, when it is an item.
    """
    found: Json = {}
    for element in dataset:
        tag = f"{int(element.tag):08X}"
        if element.tag.group <= 0x0002:
            continue
        if element.VR == "SQ":
            items = [
                json_of(item, bulk, (*path, tag, number))
                for number, item in enumerate(element.value or ())
            ]
            found[tag] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
        elif element.VR in _BINARY:
            value = _binary(element, bulk, (*path, tag))
            if value is not None:
                found[tag] = value
        else:
            value = _plain(element)
            if value is not None:
                found[tag] = value
    if _CHARACTER_SET in found and not path:
        found[_CHARACTER_SET] = {"vr": "CS", "Value": [_UTF_8]}
    return found


def _binary(element: DataElement, bulk: Callable[[Path], str] | None, path: Path) -> Json | None:
    value = element.value
    if not isinstance(value, bytes) or not value:
        return {"vr": element.VR}
    if len(value) <= _MOST_INLINE:
        return {"vr": element.VR, "InlineBinary": base64.b64encode(value).decode()}
    return None if bulk is None else {"vr": element.VR, "BulkDataURI": bulk(path)}


def _plain(element: DataElement) -> Json | None:
    try:
        value = element.to_json_dict(None, 1 << 40)
    except Exception:  # noqa: BLE001 - a foreign value may fail in any way; it is left out
        return None
    return value if _can_be_said(value) else None


def _can_be_said(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, Mapping):
        return all(map(_can_be_said, value.values()))
    if isinstance(value, list):
        return all(map(_can_be_said, value))
    return value is None or isinstance(value, (str, int))


def xml_of(model: Mapping[str, Any]) -> bytes:
    """A data set of the JSON model in the Native DICOM Model."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        '<NativeDicomModel xmlns="http://dicom.nema.org/PS3.19/models/NativeDICOM">',
        *_attributes(model),
        "</NativeDicomModel>",
    ]
    return "\n".join(lines).encode()


def _attributes(model: Mapping[str, Any]) -> Iterator[str]:
    for tag, element in sorted(model.items()):
        keyword = keyword_for_tag(int(tag, 16))
        named = f" keyword={quoteattr(keyword)}" if keyword else ""
        yield f'<DicomAttribute tag="{tag}" vr={quoteattr(str(element["vr"]))}{named}>'
        for number, value in enumerate(element.get("Value", ()), start=1):
            yield from _value(str(element["vr"]), number, value)
        if "InlineBinary" in element:
            yield f"<InlineBinary>{element['InlineBinary']}</InlineBinary>"
        if "BulkDataURI" in element:
            yield f"<BulkData uri={quoteattr(element['BulkDataURI'])}/>"
        yield "</DicomAttribute>"


def _value(vr: str, number: int, value: Any) -> Iterator[str]:
    if vr == "SQ":
        yield f'<Item number="{number}">'
        yield from _attributes(value)
        yield "</Item>"
    elif value is None:
        return
    elif vr == "PN":
        yield f'<PersonName number="{number}">'
        for representation in _REPRESENTATIONS:
            if value.get(representation):
                parts = zip(_NAME_PARTS, str(value[representation]).split("^"), strict=False)
                inner = "".join(f"<{name}>{_text(part)}</{name}>" for name, part in parts if part)
                yield f"<{representation}>{inner}</{representation}>"
        yield "</PersonName>"
    else:
        yield f'<Value number="{number}">{_text(str(value))}</Value>'


def _text(value: str) -> str:
    return escape(_UNPRINTABLE.sub("", value))
