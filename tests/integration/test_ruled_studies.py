"""Studies on their way through a node with routing rules."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.uid import generate_uid

from node.analysis import ClipAnalysis, ClipView
from node.app import NodeError
from node.sections import Rule
from storage import catalog
from storage.database import Database
from storage.states import EventKind, RecordingState, ResultKind, StudyState
from tests.integration.test_life_of_a_study import House, a4c, found, never
from tests.light_node import light_node
from tests.peers import send, wait_until
from tests.running_node import variant

# pynetdicom leaves the socket open of a connection that was refused.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <socket.socket:ResourceWarning")

Make = Callable[..., House]


@pytest.fixture
def make(database: Database, tmp_path: Path) -> Make:
    """A house with rules."""

    def with_rules(*rules: dict[str, Any], **options: Any) -> House:
        named = [{"name": f"rule {number}", **keys} for number, keys in enumerate(rules, start=1)]
        made = tuple(Rule.model_validate(keys) for keys in named)
        return House(database, tmp_path, rules=made, **options)

    return with_rules


def says_a4c(_path: str) -> ClipView:
    return a4c()


def never_viewed(_path: str) -> ClipView:
    raise AssertionError("this clip was not to be looked at")


def finds(_path: str, **_options: object) -> ClipAnalysis:
    return found()


def told(house: House, uid: str, kind: EventKind) -> list[str]:
    return [event.message for event in house.detail(uid).timeline if event.kind == kind]


def sent_to(house: House, uid: str) -> set[str]:
    return {delivery.destination for delivery in house.detail(uid).deliveries}


def through(
    house: House, uid: str, *, view: Callable[[str], ClipView] = says_a4c, analyse: Any = finds
) -> None:
    house.complete()
    house.run(uid, view=view, analyse=analyse)
    house.lifecycle.report_ready()


def test_a_study_whose_every_clip_is_ruled_out_is_not_looked_at_and_says_so(make: Make) -> None:
    house = make({"name": "stress lab", "calling_ae": "STRESS*", "analyse": False})
    uid = generate_uid()
    house.receive(uid, calling_ae="STRESS1")
    house.receive(uid, calling_ae="STRESS2")

    through(house, uid, view=never_viewed, analyse=never)

    study = house.detail(uid).study
    assert study.state is StudyState.IGNORED
    assert study.reason == "rule 'stress lab': not analysed: 2 of 2 clips"
    assert house.recordings(uid) == [RecordingState.SKIPPED] * 2
    assert told(house, uid, EventKind.RECORDING_SKIPPED) == ["rule 'stress lab': not analysed"] * 2


def test_what_the_object_says_of_itself_rules_it_out_and_no_other(make: Make) -> None:
    house = make({"description": "*stress*", "analyse": False})
    uid = generate_uid()
    house.receive(uid, StudyDescription="Stress echo")
    house.receive(uid, StudyDescription="Echo")

    through(house, uid)

    assert house.recordings(uid) == [RecordingState.SKIPPED, RecordingState.DONE]
    assert house.state(uid) is StudyState.DELIVERING


def test_a_view_of_a_low_score_is_left_out_when_it_is_named(make: Make) -> None:
    house = make({"name": "sure", "view": "a4c", "score_below": 0.9, "analyse": False})
    uid = generate_uid()
    house.receive(uid)
    scores = iter([0.89, 0.9])
    house.receive(uid)

    through(house, uid, view=lambda _path: a4c(next(scores)))

    low, high = house.detail(uid).recordings
    assert (low.state, low.reason) == (RecordingState.SKIPPED, "rule 'sure': not analysed")
    assert high.state is RecordingState.DONE
    first = told(house, uid, EventKind.VIEW_NAMED)[0]
    assert first == "view a4c (0.89); rule 'sure': not analysed"


def test_a_rule_does_not_widen_what_a_model_reads(make: Make) -> None:
    house = make({"analyse": True, "packs": ["lv"]}, packs=("lv",))
    uid = generate_uid()
    house.receive(uid)

    through(house, uid, view=lambda _path: a4c(certain=False), analyse=never)

    assert house.state(uid) is StudyState.IGNORED
    assert "uncertain" in house.detail(uid).recordings[0].reason


def test_packs_are_narrowed_and_the_timeline_says_by_whom(make: Make) -> None:
    house = make(
        {"name": "research", "calling_ae": "R*", "packs": ["mine", "lv"]},
        {"calling_ae": "SHY", "packs": ["quiet"]},
        packs=("echonet", "lv"),
    )
    asked: list[object] = []

    def analyse(_path: str, *, only: object, **_options: object) -> ClipAnalysis:
        asked.append(only)
        return found()

    uid = generate_uid()
    for title in ("R1", "CART", "SHY"):
        house.receive(uid, calling_ae=title)

    through(house, uid, analyse=analyse)

    assert asked == [("lv",), None]
    done = told(house, uid, EventKind.RECORDING_DONE)
    assert done[0].startswith("analysed by 1 pack (rule 'research': lv alone):")
    assert done[1].startswith("analysed by 1 pack:")
    shy = house.detail(uid).recordings[2]
    assert shy.reason == "rule 'rule 2': not analysed, since quiet is not in use here"


def test_the_settings_count_when_a_clip_is_taken(make: Make) -> None:
    house = make()
    uid = generate_uid()
    house.receive(uid, calling_ae="CART")
    house.complete()
    with house.database.write() as session:
        claimed = catalog.claim_next(session, "test", house.now)
        assert claimed is not None
        outcome = catalog.ViewOutcome(
            label="a4c", score=0.95, certain=True, mode="2d", frame_count=30
        )
        catalog.record_view(session, claimed.recording_id, outcome, queue=True)
    house.rules = (
        Rule(name="other", calling_ae=("ER",), analyse=False),
        Rule(name="new", view=("a4c",), score_at_least=0.95, analyse=False),
    )

    house.run(uid, view=never_viewed, analyse=never)

    (recording,) = house.detail(uid).recordings
    assert (recording.state, recording.reason) == (
        RecordingState.SKIPPED,
        "rule 'new': not analysed",
    )


def test_a_clip_that_goes_again_and_is_ruled_out_by_now_leaves_nothing_in_the_report(
    make: Make,
) -> None:
    house = make()
    uid = generate_uid()
    house.receive(uid, calling_ae="CART")
    house.receive(uid, calling_ae="ER")
    through(house, uid)
    first, second = house.detail(uid).recordings
    lost = next(item for item in house.detail(uid).results if item.recording_id == first.id)
    with house.database.write() as session:
        catalog.mark_result_lost(session, lost.id, "is gone")
    house.rules = (Rule(name="new", calling_ae=("CART",), analyse=False),)

    house.run(uid, view=never_viewed, analyse=never)
    house.lifecycle.report_ready()

    first = house.detail(uid).recordings[0]
    assert (first.state, first.findings, first.packs) == (RecordingState.SKIPPED, (), ())
    current = [result for result in house.detail(uid).results if result.current]
    assert {result.recording_id for result in current} == {second.id, None}
    assert {result.revision for result in current if result.recording_id is None} == {2}


def test_a_clip_whose_file_is_gone_says_so_also_where_rules_ask_the_file(make: Make) -> None:
    house = make({"description": "*stress*", "analyse": False})
    uid = generate_uid()
    house.receive(uid)
    house.complete()
    for path in (house.files.root / "objects").rglob("*.dcm"):
        path.unlink()

    house.run(uid, view=never_viewed, analyse=never)

    (recording,) = house.detail(uid).recordings
    assert recording.state is RecordingState.FAILED
    assert "not in the store" in recording.reason


def test_results_go_where_the_first_clip_says_in_every_revision(make: Make) -> None:
    house = make(
        {
            "name": "research",
            "calling_ae": "R*",
            "description": "trial*",
            "destinations": ["archive"],
        },
        {"name": "clinic", "destinations": ["pacs", "words"]},
        destinations=("pacs", "archive"),
        text_for=("words",),
    )
    theirs, ours = generate_uid(), generate_uid()
    house.receive(theirs, calling_ae="R1", StudyDescription="Trial 7")
    house.receive(theirs, calling_ae="CART")
    house.receive(ours, calling_ae="CART")
    through(house, theirs)
    house.run(ours, view=says_a4c, analyse=finds)
    house.lifecycle.report_ready()

    assert sent_to(house, theirs) == {"archive"}
    assert sent_to(house, ours) == {"pacs", "words"}
    kinds = [result.kind for result in house.detail(theirs).results]
    assert ResultKind.TEXT not in kinds  # nobody would get it, and retention would wait for it
    assert ResultKind.TEXT in [result.kind for result in house.detail(ours).results]
    (made,) = told(house, theirs, EventKind.RESULTS_MADE)
    assert made == "revision 1: 3 results to go to archive, by rule 'research'"

    house.receive(theirs, calling_ae="CART")
    through(house, theirs)

    assert house.detail(theirs).study.revision == 2
    assert sent_to(house, theirs) == {"archive"}


def test_results_that_go_nowhere_are_kept_and_say_by_whose_wish(make: Make) -> None:
    house = make({"name": "trial", "destinations": []})
    uid = generate_uid()
    house.receive(uid)

    through(house, uid)

    detail = house.detail(uid)
    assert detail.study.state is StudyState.DONE
    assert detail.study.reason == "revision 1: 2 results made; rule 'trial': sent nowhere"
    assert len(detail.results) == 2
    assert detail.deliveries == ()


def test_the_urgent_go_first_and_the_timeline_says_why(make: Make) -> None:
    house = make(
        {"name": "emergency", "calling_ae": "ER", "urgency": 10},
        {"name": "bulk", "calling_ae": "BULK", "urgency": -1},
    )
    bulk, plain, urgent = (generate_uid() for _ in range(3))
    house.receive(bulk, calling_ae="BULK")
    house.receive(plain, calling_ae="CART")
    house.receive(urgent, calling_ae="CART")
    house.receive(urgent, calling_ae="ER")
    house.receive(urgent, calling_ae="ER")
    house.complete()

    with house.database.write() as session:
        taken = [catalog.claim_next(session, "test", house.now) for _ in range(5)]

    assert [item.study_instance_uid for item in taken if item] == [urgent] * 3 + [plain, bulk]
    assert told(house, urgent, EventKind.URGENCY_SET) == ["rule 'emergency': urgency 10"]
    assert told(house, bulk, EventKind.URGENCY_SET) == ["rule 'bulk': urgency -1"]
    assert told(house, plain, EventKind.URGENCY_SET) == []


def test_a_node_follows_the_rules_of_its_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = variant(tmp_path)
    rules = [{"name": "cart", "calling_ae": "ECHOCART", "analyse": False, "urgency": 7}]
    with light_node(monkeypatch, tmp_path / "data", rules=rules) as (node, settings):
        assert send(node.addresses.dimse_port, clip, options=("-xy",)).returncode == 0
        database = Database(settings.database_url)

        def study() -> catalog.StudyRecord:
            with database.read() as session:
                (record,) = catalog.list_studies(session)
            return record

        wait_until(lambda: study().state is StudyState.IGNORED, what="ignored", pause_s=0.1)
        assert study().reason == "rule 'cart': not analysed: 1 of 1 clips"
        assert study().urgency == 7
        database.close()


def test_a_node_does_not_start_with_a_rule_for_a_pack_that_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rules = [{"name": "mine", "packs": ["lvv"]}]
    with (
        pytest.raises(NodeError, match="'mine' names the pack 'lvv', which is not there"),
        light_node(monkeypatch, tmp_path / "data", rules=rules),
    ):
        raise AssertionError("it has started")
