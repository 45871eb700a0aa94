"""Who may read for a node, and by which words another is told why not; where a cluster may be."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgpack
import pytest
from pydantic import ValidationError

from node.checkup import cluster as checkup
from node.cli.app import main
from node.cli.output import ExitCode
from node.compute.card import Card, card_of
from node.compute.cluster import members_of
from node.compute.job import Job, pack_call, read_here
from node.executor import SlotState, unpacked
from node.sections import AnalysisSettings
from node.settings import Settings
from tests.peers import free_port

TLS = {"authorities": "/ca.pem", "certificate": "/c.pem", "private_key": "/c.key"}


def pack(folder: Path, name: str, version: str = "1", more: str = "") -> Path:
    place = folder / f"{name}-{version}{more}"
    place.mkdir()
    (place / "manifest.json").write_text(f'{{"name": "{name}", "version": "{version}{more}"}}')
    return place


def test_a_card_is_of_the_packs_in_their_order_and_the_last_of_a_name(tmp_path: Path) -> None:
    lv, views, newer = pack(tmp_path, "lv"), pack(tmp_path, "views"), pack(tmp_path, "lv", "2")
    card = card_of([lv, views])

    assert [name for name, _, _ in card.packs] == ["lv", "views"]
    assert card_of([lv, views]) == card
    assert card_of([views, lv]).fingerprint != card.fingerprint
    assert [of for _, of, _ in card_of([lv, views, newer]).packs] == ["2", "1"]
    assert card_of([lv, views], "gpu").fingerprint != card.fingerprint
    assert card.resource == f"echonode-{card.fingerprint}"
    assert dict(card.libraries)["tensorflow"] != "none"


def test_a_card_travels_as_dask_sends_it_and_another_versions_is_none(tmp_path: Path) -> None:
    card = card_of([pack(tmp_path, "lv")])

    assert Card.read(msgpack.unpackb(msgpack.packb(card.plain()))) == card
    for odd in (None, {}, {"packs": 3}, {**card.plain(), "more": 1}, {"packs": [["lv"]]}):
        assert Card.read(odd) is None


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"echonode": "9.9"}, "echonode is 9.9 there, "),
        ({"code": "abc"}, "echonode's code is abc there"),
        ({"libraries": (("numpy", "1.0"),)}, "numpy is 1.0 there"),
        ({"device": "gpu"}, 'it reads with a GPU, and [analysis] device is "cpu"'),
        ({"packs": ()}, "pack lv is not loaded there"),
        ({"packs": (("lv", "1", "0" * 64),)}, "pack lv is 1 (00000000) there, 1 ("),
    ],
)
def test_what_differs_is_said(tmp_path: Path, changed: dict[str, Any], words: str) -> None:
    ours = card_of([pack(tmp_path, "lv")])
    theirs = replace(ours, **changed)

    assert ours.differs(ours) is None
    assert words in str(ours.differs(theirs))
    assert theirs.fingerprint != ours.fingerprint


def test_members_are_judged_by_their_cards(tmp_path: Path) -> None:
    ours = card_of([pack(tmp_path, "lv")])
    since = datetime(2026, 3, 4, tzinfo=UTC).isoformat()
    slot = {"pid": 7, "state": "busy", "since": since, "jobs_done": 3, "restarts": 1, "error": None}

    def told(card: Any, **more: Any) -> dict[str, Any]:
        return {
            "echonode": {"card": card, "host": "reader", "since": since},
            "metrics": {"echonode_slots": [slot, slot]},
            "resources": {ours.resource: 2.0},
            **more,
        }

    info = {
        "workers": {
            "tcp://a": told(ours.plain()),
            "tcp://b": told({"packs": []}),
            "tcp://c": told(ours.plain(), resources={}),  # its processes have been given up
            "tcp://d": {"resources": {}, "metrics": {}},  # somebody else's
        }
    }
    fitting, other, failed = members_of(info, ours)

    assert (fitting.places, fitting.refused) == (2, None)
    assert [state.state for state in fitting.states] == [SlotState.BUSY] * 2
    assert fitting.states[0].place == "reader (tcp://a)"
    assert other.refused == "it gets no clip: it runs another version of echonode"
    assert [state.state for state in other.states] == [SlotState.FAILED]
    assert (failed.places, failed.refused) == (0, None)


def test_a_job_shows_nothing_of_its_clip() -> None:
    call = pack_call(Path, (), {})
    job = Job(fingerprint="f", call=call, clip=b"Doe^Jane", source="/store/Doe^Jane")

    assert "Doe" not in repr(job)
    assert unpacked(read_here(call, b"Doe^Jane", None))[1].parent == Path("/proc/self/fd")
    with pytest.raises(ValueError, match="neither"):
        read_here(call, None, None)


@pytest.mark.parametrize(
    ("executor", "tls", "address"),
    [
        ("processes", None, None),
        ("dask://127.0.0.1:8786", None, "127.0.0.1:8786"),
        ("dask://localhost:1", None, "localhost:1"),
        ("dask://[::1]:8786", None, "[::1]:8786"),
        ("dask://scheduler.example:8786", TLS, "scheduler.example:8786"),
    ],
)
def test_where_clips_are_read(executor: str, tls: Any, address: str | None) -> None:
    assert AnalysisSettings(executor=executor, tls=tls).cluster == address


@pytest.mark.parametrize(
    ("executor", "words"),
    [
        ("threads", '"processes" of this machine or by "dask://host:port"'),
        ("dask://host", '"dask://host:port"'),
        ("dask://host:x", '"dask://host:port"'),
        ("dask://name@127.0.0.1:1", '"dask://host:port"'),
        ("dask://10.1.2.3:8786", r"can run code in it and in the node: write \[analysis.tls\]"),
        ("dask://scheduler:8786", r"write \[analysis.tls\]"),
    ],
)
def test_a_cluster_off_this_machine_has_tls_or_is_no_setting(executor: str, words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        AnalysisSettings(executor=executor)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["worker"], "no scheduler is named"),
        (["worker", "--scheduler", "10.1.2.3:8786"], "write [analysis.tls]"),
        (["worker", "--scheduler", "somewhere"], '"dask://host:port"'),
        (["worker", "--scheduler", "127.0.0.1:1", "--host", "0.0.0.0"], "off this machine only"),  # noqa: S104
        (["scheduler", "--host", "0.0.0.0"], "write [analysis.tls]"),  # noqa: S104
    ],
)
def test_the_commands_open_nothing_to_strangers(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: str
) -> None:
    config = tmp_path / "echonode.toml"
    config.write_text("")

    assert main(["--config", str(config), *arguments]) == ExitCode.USAGE
    assert words in capsys.readouterr().err


def test_the_doctor_says_that_nobody_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "shipped_packs", tuple)
    there = {"executor": f"dask://127.0.0.1:{free_port()}"}
    away = list(checkup.look_at_cluster(Settings(data_dir=tmp_path, analysis=there)))
    here = list(checkup.look_at_cluster(Settings(data_dir=tmp_path)))

    assert here == []
    assert [one.light.value for one in away] == ["red"]
    assert "Connection refused; clips wait" in away[0].words
