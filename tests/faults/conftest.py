"""What the tests of faults share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.prepared import PreparedNodes


@pytest.fixture(scope="session")
def nodes() -> Iterator[PreparedNodes]:
    """Where nodes are forked from."""
    with PreparedNodes() as nodes:
        yield nodes
