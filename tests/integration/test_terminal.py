"""What an operator meets in a terminal: `top`, completion in bash, help, and the manual page."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import select
import shlex
import shutil
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from node.cli.app import all_commands, main
from node.cli.examples import EXAMPLES
from node.cli.status import status_json
from node.manual import PAGE, manual
from node.settings import load_settings
from node.window import Window
from storage.database import Database, migrate
from storage.files import FolderStore
from tests.peers import require
from tests.running_node import echonode
from tests.unit.storage_steps import STUDY, clip, receive

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings of a node that has rows and does not run."""
    folder = tmp_path / "data"
    FolderStore(folder)
    migrate(f"sqlite:///{folder / 'echonode.db'}")
    file = tmp_path / "echonode.toml"
    file.write_text(f'data_dir = "{folder}"\n[disk]\nkeep_free_bytes = 0\n')
    return file


@pytest.fixture
def rows(config: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{config.parent / 'data' / 'echonode.db'}")
    yield database
    database.close()


class Terminal:
    """A pseudo-terminal in which a command runs."""

    def __init__(self, handle: int, process: subprocess.Popen[bytes]) -> None:
        self.handle = handle
        self.process = process
        self.seen = ""

    def wait_for(self, text: str, timeout_s: float = 30) -> None:
        """Read until a text was shown."""
        end = time.monotonic() + timeout_s
        while text not in self.seen:
            ready, _, _ = select.select([self.handle], [], [], 0.1)
            if ready:
                try:
                    self.seen += os.read(self.handle, 65536).decode(errors="replace")
                except OSError:  # the other side has gone
                    break
            if time.monotonic() > end:
                break
        assert text in self.seen, self.seen[-2000:]

    def press(self, keys: str) -> None:
        os.write(self.handle, keys.encode())


@contextmanager
def terminal(command: list[str]) -> Iterator[Terminal]:
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 120, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color"}
    with subprocess.Popen(
        command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment, close_fds=True
    ) as process:
        try:
            yield Terminal(ours, process)
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            os.close(theirs)
            os.close(ours)


def test_top_follows_the_rows_and_q_ends_it(config: Path, rows: Database) -> None:
    with terminal(echonode("--config", str(config), "top", "--every", "0.3")) as shown:
        shown.wait_for("no node runs here")
        shown.wait_for("quarantine")
        before = termios.tcgetattr(shown.handle)
        receive(rows, clip(1))
        shown.wait_for("1 receiving")
        shown.press("q")
        assert shown.process.wait(20) == 0
        shown.wait_for("\x1b[?1049l")  # the screen that was there before is back
        after = termios.tcgetattr(shown.handle)

    lflag = 3
    assert not before[lflag] & termios.ICANON, "keys are read one by one"
    assert after[lflag] & termios.ICANON, "the terminal is as it was"
    assert after[lflag] & termios.ECHO


def test_top_once_is_for_scripts(
    config: Path, rows: Database, capsys: pytest.CaptureFixture[str]
) -> None:
    receive(rows, clip(1), clip(2))

    assert main(["--config", str(config), "top", "--once"]) == 0
    text = capsys.readouterr().out
    assert main(["--config", str(config), "top", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)

    assert "1 receiving" in text
    assert "2 received" in text
    assert "\x1b" not in text
    assert shown["last_hour"] == {"views": 0, "clips": 0, "studies": 0, "deliveries": 0}
    assert shown["running"] is False
    assert STUDY not in text


def test_looking_loads_nothing_heavy(config: Path) -> None:
    """So that `status` answers at once, also on a machine that is busy."""
    script = (
        "import sys\nfrom node.cli.app import main\n"
        f"for words in ('status', 'studies', 'quarantine', 'alerts list', 'top --once'):\n"
        f"    main(['--config', {str(config)!r}, *words.split()])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    loaded = set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))

    heavy = {
        *("tensorflow", "keras", "numpy", "scipy", "matplotlib", "PIL", "pydicom", "pynetdicom"),
        *("highdicom", "alembic", "fastapi", "uvicorn", "httpx", "apscheduler"),
        *("prometheus_client", "smtplib", "jinja2", "h5py"),
    }
    assert loaded & heavy == set()
    assert "sqlalchemy" in loaded


@pytest.mark.parametrize("form", [[], ["--json"]])
def test_a_running_node_is_asked_and_its_database_left_alone(
    config: Path, rows: Database, form: list[str]
) -> None:
    """`status` within a second, also while both cores are at work: rows cost longer than that."""
    receive(rows, clip(1), clip(2))
    settings = load_settings(config)

    def status() -> dict[str, Any]:
        with rows.read() as session:
            return {**status_json(settings, session), "running": True}

    script = (
        "import sys\nfrom node.cli import main\n"
        f"code = main(['--config', {str(config)!r}, 'status', *{form!r}])\n"
        "print(sorted({name.split('.')[0] for name in sys.modules}), file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    window = Window(config.parent / "data", status)
    window.start()
    try:
        done = subprocess.run(
            [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
        )
    finally:
        window.stop()
    loaded = set(json.loads(done.stderr.splitlines()[-1].replace("'", '"')))

    assert loaded & {"sqlalchemy", "pydantic", "structlog", "typer", "numpy"} == set()
    assert "given no sign for a while" in done.stderr
    if form:
        assert json.loads(done.stdout)["recordings"]["received"] == 2
    else:
        assert "clips       2 received" in done.stdout


def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("no bash here")
    program = tmp_path / "echonode"
    program.write_text(f'#!/bin/sh\nexec {shlex.join(echonode())} "$@"\n')
    program.chmod(0o755)
    script = """
        PATH="$1:$PATH"
        eval "$(echonode --show-completion bash)"
        complete -p echonode
        ask() {
            COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
            _echonode_completion echonode
            printf '%s\\n' "${COMPREPLY[*]}"
        }
        ask echonode do
        ask echonode alerts test --wa
        ask echonode alerts test --way m
    """
    done = subprocess.run(
        [bash, "--norc", "-c", script, "bash", str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert done.stderr == ""
    registered, *answers = done.stdout.splitlines()
    assert "-F _echonode_completion echonode" in registered
    assert answers == ["doctor", "--way", "mail"]


def commands(group: Any, names: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        below = hasattr(command, "commands")
        if not below or command.invoke_without_command:
            yield " ".join((*names, name)), command
        if below:
            yield from commands(command, (*names, name))


def test_every_command_has_examples_that_can_be_read() -> None:
    known = dict(commands(get_command(all_commands())))
    assert set(EXAMPLES) == set(known)

    for name, examples in EXAMPLES.items():
        command = known[name]
        assert examples[0] in (command.epilog or ""), f"{name} --help does not show its examples"
        options = {flag for one in command.params for flag in getattr(one, "opts", ())}
        needed = [
            one for one in command.params if one.param_type_name == "argument" and one.required
        ]
        for example in examples:
            words = shlex.split(example)
            if words[0] == "--config":
                words = words[2:]
            assert words[: len(name.split())] == name.split(), example
            rest = words[len(name.split()) :]
            assert {word for word in rest if word.startswith("--")} <= options, example
            assert len(rest) >= len(needed), f"{example}: an argument is missing"


def test_help_shows_the_examples(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--help"]) == 0
    assert "echonode doctor --offline" in capsys.readouterr().out


def test_the_manual_page_is_of_these_commands() -> None:
    assert PAGE.read_text(encoding="utf-8") == manual(), "run python -m node.manual"


def test_the_manual_page_is_one() -> None:
    groff = require("groff")
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-ww", str(PAGE)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stderr) == (0, "")
    for name in ("doctor", "alerts test", "db check"):
        assert f"echonode {name}" in done.stdout.replace("\x1b", "").replace("\b", ""), name
