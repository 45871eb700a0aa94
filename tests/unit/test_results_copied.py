"""Whatever bytes stand in a source's patient and study, a result is made and has the same bytes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.datadict import dictionary_VR
from pydicom.tag import Tag

from node.results import check_object
from node.results.header import PATIENT_ATTRIBUTES, STUDY_ATTRIBUTES
from tests.results_examples import capture_of, put_bytes, read, source_header

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:pydicom")

# A Study Instance UID that is none is refused at the door; sequences are compared elsewhere.
_TEXTS = [
    keyword
    for keyword in ("SpecificCharacterSet", *PATIENT_ATTRIBUTES, *STUDY_ATTRIBUTES)
    if dictionary_VR(Tag(keyword)) not in ("SQ", "FL", "FD", "US") and keyword != "StudyInstanceUID"
]


@settings(max_examples=30, deadline=None)
@given(keyword=st.sampled_from(_TEXTS), value=st.binary(max_size=70))
def test_any_bytes_of_patient_and_study_go_through_unchanged(keyword: str, value: bytes) -> None:
    header = source_header(1)
    put_bytes(header, keyword, value)

    made = capture_of(header)

    assert check_object(made) == ()
    copied = read(made).get_item(keyword)
    assert copied is not None
    written = copied.value if isinstance(copied.value, bytes) else value
    assert (written or b"").rstrip(b" ") == value.rstrip(b" ")
