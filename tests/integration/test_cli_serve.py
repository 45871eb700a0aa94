"""`echonode serve`: how it starts, how it refuses to, and how it ends."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.running_node import echonode

pytestmark = pytest.mark.timeout(180)


def settings(folder: Path, port: int) -> Path:
    path = folder / "echonode.toml"
    path.write_text(f'data_dir = "data"\n[dimse]\nhost = "127.0.0.1"\nport = {port}\n')
    return path


def serve(config: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        echonode("--config", str(config), "serve", "--json"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_it_says_where_it_listens_and_ends_with_sigterm(tmp_path: Path) -> None:
    with serve(settings(tmp_path, 0)) as process:
        assert process.stdout is not None
        addresses = json.loads(process.stdout.readline())["addresses"]
        assert addresses["ae_title"] == "ECHONODE"
        with socket.create_connection(("127.0.0.1", addresses["dimse_port"]), timeout=5):
            pass
        again = subprocess.run(
            echonode("--config", str(tmp_path / "echonode.toml"), "serve"),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        process.send_signal(signal.SIGTERM)
        _, log = process.communicate(timeout=60)

    assert process.returncode == 0
    assert [json.loads(line)["event"] for line in log.splitlines()][-1] == "node-stopped"
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].endswith(
        "is in use by another node; stop it, or set another data_dir"
    )


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with serve(settings(tmp_path, port)) as process:
            out, log = process.communicate(timeout=120)

    assert process.returncode == 1
    assert out == ""
    assert "Traceback" not in log
    (line,) = [line for line in log.splitlines() if line.startswith("echonode: ")]
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use" in line
