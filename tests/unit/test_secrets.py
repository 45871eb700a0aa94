"""Secrets are read from private places only and are never shown."""

from __future__ import annotations

import os
import pickle
import traceback
from pathlib import Path

import pytest

from node.secrets import Secret, SecretError, read_secret, read_variable, secret_of

VALUE = "correct-horse-battery"
WHAT = "the token of destination 'pacs'"


def written(folder: Path, content: bytes = VALUE.encode(), mode: int = 0o600) -> Path:
    file = folder / "token"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def test_a_file_of_ours_is_read_without_its_line_end(tmp_path: Path) -> None:
    assert read_secret(written(tmp_path, b"  correct-horse-battery\r\n"), WHAT) == VALUE


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644, 0o602, 0o666])
def test_a_file_that_others_can_read_or_change_is_refused_with_the_remedy(
    tmp_path: Path, mode: int
) -> None:
    file = written(tmp_path, mode=mode)

    with pytest.raises(SecretError) as caught:
        read_secret(file, WHAT)

    assert str(caught.value) == (
        f"{WHAT}: {file} can be read or changed by others (mode {mode:03o}); run: chmod 600 {file}"
    )


def test_a_file_of_another_may_be_read_by_its_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(tmp_path, mode=0o640)
    monkeypatch.setattr(os, "geteuid", lambda: file.stat().st_uid + 1)

    assert read_secret(file, WHAT) == VALUE
    file.chmod(0o644)
    with pytest.raises(SecretError, match="chmod 640"):
        read_secret(file, WHAT)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b" \n", "is empty"),
        (b"one\ntwo", "more than one line"),
        (b"\xff\xfe", "more than one line"),
        (b"a\0b", "more than one line"),
        (b"x" * 20_000, "longer than any secret"),
    ],
)
def test_what_is_no_secret_is_said_without_quoting_it(
    tmp_path: Path, content: bytes, words: str
) -> None:
    with pytest.raises(SecretError, match=words) as caught:
        read_secret(written(tmp_path, content), WHAT)

    assert "two" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SecretError, match="No such file"):
        read_secret(tmp_path / "token", WHAT)
    with pytest.raises(SecretError, match="is not a file"):
        read_secret(tmp_path, WHAT)


def test_a_variable_will_do_too_and_both_will_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PACS_TOKEN", VALUE)

    assert read_variable("PACS_TOKEN", WHAT) == VALUE
    assert secret_of(None, "PACS_TOKEN", WHAT) == Secret(VALUE)
    assert secret_of(written(tmp_path), None, WHAT) == Secret(VALUE)
    assert secret_of(None, None, WHAT) is None
    with pytest.raises(SecretError, match="not both"):
        secret_of(written(tmp_path), "PACS_TOKEN", WHAT)
    with pytest.raises(SecretError, match="variable OTHER_TOKEN is not set"):
        secret_of(None, "OTHER_TOKEN", WHAT)


def test_a_secret_does_not_print_itself() -> None:
    secret = Secret(VALUE)

    assert VALUE not in f"{secret} {secret!r} {[secret]} {secret:>40}"
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secret)
    assert secret.reveal() == VALUE
    assert secret.equals(VALUE)
    assert secret != Secret("another")


def test_no_traceback_quotes_a_secret(tmp_path: Path) -> None:
    file = written(tmp_path, b"\xff" + VALUE.encode())

    with pytest.raises(SecretError) as caught:
        read_secret(file, WHAT)

    assert VALUE not in "".join(traceback.format_exception(caught.value))
