"""Users of the HTTP door: kept as hashes, in a file of the service user's own."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from node.web import users as users_module
from node.web.guesses import Guesses
from node.web.users import NoSuchUserError, Role, UserError, UserFile, find_token, password_fits

PASSWORD = "correct horse battery staple"  # noqa: S105 - of nobody


@pytest.fixture
def users(tmp_path: Path) -> UserFile:
    return UserFile(tmp_path / "users.json")


def test_neither_password_nor_token_is_in_the_file(users: UserFile) -> None:
    users.add("anna", [Role.READ], PASSWORD)
    token = users.add_token("anna", "wall")

    content = users.path.read_text()
    assert PASSWORD not in content
    assert token.split("_", 2)[2] not in content
    assert "$argon2id$" in content
    assert users.path.stat().st_mode & 0o777 == 0o600


def test_the_right_password_fits_and_no_other(users: UserFile) -> None:
    hashed = users.add("anna", [Role.READ], PASSWORD).password or ""

    assert password_fits(hashed, PASSWORD)
    assert not password_fits(hashed, PASSWORD + " ")
    assert not password_fits(hashed, "x" * 100_000)
    assert not password_fits("damaged", PASSWORD)


def test_a_token_is_its_users_until_it_ends_or_is_removed(
    users: UserFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    users.add("anna", [Role.READ], None)
    token = users.add_token("anna", days=1)
    other = users.add_token("anna")

    found = find_token(users.users(), token)
    assert found is not None
    assert found[0].name == "anna"
    for wrong in (
        "",
        "en_",
        token[:-1],
        token + "x",
        token.replace("en_", "an_"),
        other[:11] + token[11:],
    ):
        assert find_token(users.users(), wrong) is None, wrong
    users.remove_token("anna", other.split("_")[1])
    assert find_token(users.users(), other) is None

    class Later(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:  # type: ignore[override]
            del tz
            return datetime.now(UTC) + timedelta(days=2)

    monkeypatch.setattr(users_module, "datetime", Later)
    assert find_token(users.users(), token) is None


def test_what_another_process_changes_is_seen_at_once(users: UserFile) -> None:
    assert users.users() == {}
    UserFile(users.path).add("anna", [Role.READ], None)
    assert set(users.users()) == {"anna"}
    UserFile(users.path).remove("anna")
    assert users.users() == {}


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"version": 2, "users": []}', '{"version": 1, "users": [{}]}']
)
def test_a_damaged_file_is_said_and_lets_nobody_in(users: UserFile, content: str) -> None:
    users.path.write_text(content)
    users.path.chmod(0o600)

    with pytest.raises(UserError, match="damaged"):
        users.users()


def test_a_file_that_others_can_read_is_refused(users: UserFile) -> None:
    users.add("anna", [Role.READ], None)
    users.path.chmod(0o640)

    with pytest.raises(UserError, match="chmod 600"):
        users.users()


@pytest.mark.parametrize(
    ("name", "roles", "password", "words"),
    [
        ("an na", [Role.READ], None, "a user's name has"),
        ("", [Role.READ], None, "a user's name has"),
        ("a:b", [Role.READ], None, "a user's name has"),
        ("anna", [], None, "name a role"),
        ("anna", [Role.READ], "short", "a password has 12 to 1024"),
        ("anna", [Role.READ], "x" * 2000, "a password has 12 to 1024"),
    ],
)
def test_what_makes_no_user_is_said(
    users: UserFile, name: str, roles: list[Role], password: str | None, words: str
) -> None:
    with pytest.raises(UserError, match=words):
        users.add(name, roles, password)
    assert not users.path.exists()


def test_names_are_taken_once_and_strangers_are_no_users(users: UserFile) -> None:
    users.add("anna", [Role.READ], None)

    with pytest.raises(UserError, match="already"):
        users.add("anna", [Role.SEND], None)
    for work in (users.remove, users.add_token):
        with pytest.raises(NoSuchUserError, match="there is no user bert"):
            work("bert")
    with pytest.raises(NoSuchUserError):
        users.remove_token("anna", "00000000")


def test_root_leaves_the_file_to_the_service_user(
    users: UserFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[tuple[int, int]] = []
    folder = users.path.parent.stat()
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(os, "chown", lambda _path, user, group: given.append((user, group)))
    real = Path.stat

    def of_another(path: Path, **options: bool) -> os.stat_result:
        found = real(path, **options)
        return os.stat_result((*found[:4], 4242, 4243, *found[6:10]))

    monkeypatch.setattr(Path, "stat", of_another)
    users_module._write(users.path, {})

    assert given == [(4242, 4243)], folder
    assert json.loads(users.path.read_text())["users"] == []


def test_pauses_grow_with_wrong_tries_and_are_forgotten() -> None:
    now = [0.0]
    guesses = Guesses(lambda: now[0])

    assert [guesses.wrong("10.0.0.1", "anna") for _ in range(6)] == [False] * 4 + [True] * 2
    first = guesses.pause_s("10.0.0.1", "anna")
    guesses.wrong("10.0.0.1", "anna")
    assert guesses.pause_s("10.0.0.1", "anna") > first
    for _ in range(100):
        guesses.wrong("10.0.0.1", "anna")
    assert guesses.pause_s("10.0.0.1", "anna") == 300.0
    assert guesses.pause_s("10.0.0.2", "anna") == 0.0
    now[0] += 301
    assert guesses.pause_s("10.0.0.1", "anna") == 0.0
    now[0] += 1000
    assert guesses.wrong("10.0.0.1", "anna") is False


def test_an_address_that_tries_many_names_is_paused_for_all() -> None:
    guesses = Guesses(lambda: 0.0)

    for number in range(20):
        guesses.wrong("10.0.0.1", f"name{number}")

    assert guesses.pause_s("10.0.0.1", "new") > 0
    assert guesses.pause_s("10.0.0.2", "new") == 0


def test_a_whole_ipv6_network_is_one_caller_and_memory_is_bounded() -> None:
    guesses = Guesses(lambda: 0.0)
    for number in range(20):
        guesses.wrong(f"2001:db8::{number:x}", f"name{number}")

    assert guesses.pause_s("2001:db8::ffff", "new") > 0
    assert guesses.pause_s("2001:db8:0:1::1", "new") == 0
    for number in range(10_000):
        guesses.wrong(f"10.{number // 256}.{number % 256}.1", "x" * 10_000)
    assert len(guesses._tries) <= 4096
    assert all(len(user or "") <= 64 for _, user in guesses._tries)


def test_a_right_password_forgets_that_users_tries() -> None:
    guesses = Guesses(lambda: 0.0)
    for _ in range(4):
        guesses.wrong("10.0.0.1", "anna")
    guesses.right("10.0.0.1", "anna")

    assert guesses.wrong("10.0.0.1", "anna") is False
