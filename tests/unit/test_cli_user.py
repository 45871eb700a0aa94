"""`echonode user`: users are made, listed and removed, and no secret stays in sight."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from node.cli import main
from node.web.users import Role, UserFile, find_token, password_fits
from tests.audit_schema import faults_of

PASSWORD = "correct horse battery staple"  # noqa: S105 - of nobody


class Command:
    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.config = folder / "echonode.toml"
        self.config.write_text('data_dir = "data"\n')
        self._capsys = capsys
        self.said = ""

    def __call__(self, *arguments: str, code: int = 0) -> Any:
        assert main(["--config", str(self.config), "user", *arguments, "--json"]) == code
        out = self._capsys.readouterr()
        self.said = out.err
        return json.loads(out.out) if out.out else None

    @property
    def users(self) -> UserFile:
        return UserFile(self.folder / "data" / "users.json")


@pytest.fixture
def command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(tmp_path, capsys)


def test_a_user_is_added_listed_and_removed(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD + "\n")
    file.chmod(0o600)

    added = command("add", "anna", "--role", "read,operate", "--password-file", str(file))
    listed = command("list")
    command("remove", "anna")

    assert added["roles"] == ["operate", "read"]
    assert added["generated_password"] is None
    (anna,) = listed
    assert (anna["name"], anna["password"], anna["tokens"]) == ("anna", True, [])
    assert "argon2" not in json.dumps(listed)
    assert command("list") == []


def test_a_password_is_made_and_shown_once(command: Command) -> None:
    made = command("add", "anna", "--role", "read", "--generate")["generated_password"]
    again = command("password", "anna", "--generate")["generated_password"]

    hashed = command.users.users()["anna"].password or ""
    assert not password_fits(hashed, made)
    assert password_fits(hashed, again)


def test_a_password_comes_from_stdin(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(PASSWORD + "\n"))

    command("add", "anna", "--role", "read", "--password-file", "-")

    assert password_fits(command.users.users()["anna"].password or "", PASSWORD)


def test_a_token_is_made_and_removed(command: Command) -> None:
    command("add", "wall", "--role", "read", "--no-password")

    token = command("token", "wall", "--note", "display", "--days", "30")["token"]

    found = find_token(command.users.users(), token)
    assert found is not None
    assert found[0].roles == frozenset({Role.READ})
    (shown,) = command("list")[0]["tokens"]
    assert (shown["note"], shown["ends_at"] is not None) == ("display", True)
    command("token", "wall", "--remove", shown["id"])
    assert find_token(command.users.users(), token) is None


def test_what_does_not_go_is_said(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text(PASSWORD)
    file.chmod(0o644)

    command("add", "anna", "--role", "king", "--no-password", code=2)
    assert "--role is one of: send, read, operate" in command.said
    command("add", "anna", "--role", "read", "--password-file", str(file), code=1)
    assert f"chmod 600 {file}" in command.said
    command("remove", "anna", code=3)
    command("token", "anna", code=3)
    assert not command.users.path.exists()


def test_changes_are_told_to_the_audit_without_secrets(command: Command) -> None:
    made = command("add", "anna", "--role", "read", "--generate")["generated_password"]
    token = command("token", "anna")["token"]
    command("remove", "anna")

    (file,) = (command.folder / "data" / "audit").glob("*.log")
    told = file.read_text()
    assert [faults_of(line) for line in told.splitlines()] == [[], [], []]
    assert told.count('csd-code="110137"') == 3
    assert made not in told
    assert token.split("_", 2)[2] not in told
