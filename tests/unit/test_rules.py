"""Routing rules: which fits, what is decided, and what `echonode rules` says of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from pydicom import Dataset

from models.packs import PackKind
from models.views import View
from node.checkup import look_here
from node.checkup.findings import Light
from node.cli import main
from node.cli.output import ExitCode
from node.rules import (
    Action,
    Decision,
    Facts,
    asks_header,
    decide,
    facts_of,
    idle_packs,
    judge,
    never_decide,
    rule_on_clip,
    rule_on_results,
    rule_on_urgency,
    ruled_out,
    unknown_packs,
)
from node.sections import Rule, ViewLabel
from node.settings import Settings, load_settings
from node.settings_file import SettingsError
from storage.states import RecordingKind
from tests.ecg_packs import REAL_ECG
from tests.running_node import REAL_CINE

_PATTERNS = st.lists(st.sampled_from(["A*", "*1", "A1", "B?", "*", "a1"]), min_size=1, max_size=2)
_VIEWS = ["a4c", "psla", "a2c"]
_OF_CLIP = st.fixed_dictionaries(
    {},
    optional={
        "calling_ae": _PATTERNS,
        "description": _PATTERNS,
        "door": st.sampled_from(["dimse", "folder"]),
        "view": st.lists(st.sampled_from(_VIEWS), min_size=1, max_size=2),
        "score_at_least": st.sampled_from([0.0, 0.3, 0.5]),
        "score_below": st.sampled_from([0.6, 0.9]),
    },
)
_ACTIONS = st.sampled_from(
    [{"analyse": False}, {"analyse": True}, {"packs": ["lv"]}, {"analyse": True, "packs": ["x"]}]
)
_FACTS = st.builds(
    Facts,
    calling_ae=st.sampled_from(["A1", "A2", "B1", "C", ""]),
    description=st.sampled_from(["A1", "a1", "b2", ""]),
    door=st.sampled_from(["dimse", "folder"]),
    view=st.sampled_from([None, *_VIEWS]),
    score=st.sampled_from([None, 0.1, 0.5, 0.7, 0.95]),
)


@st.composite
def rule_lists(draw: st.DrawFn) -> list[Rule]:
    pairs = draw(st.lists(st.tuples(_OF_CLIP, _ACTIONS), max_size=5))
    return [
        Rule.model_validate({"name": f"rule {number}", **when, **then})
        for number, (when, then) in enumerate(pairs)
    ]


def said(decision: Decision) -> tuple[str | None, str | None]:
    return (decision.rule.name if decision.rule else None, decision.undecided)


def rule(name: str = "a rule", **keys: Any) -> Rule:
    keys = keys if any(action in keys for action in Action) else {**keys, "analyse": False}
    return Rule.model_validate({"name": name, **keys})


SEEN = Facts(
    calling_ae="STRESS1", called_ae="ECHONODE", door="dimse", modality="US",
    description="Stress Echo", series_description="rest", manufacturer="GE", model="Vivid E95",
    view="a4c", score=0.9,
)  # fmt: skip


@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"calling_ae": "STRESS?"},
        {"calling_ae": ["ER", "STRESS[12]"]},
        {"called_ae": "ECHONODE", "door": "dimse", "modality": ["US", "IVUS"]},
        {"description": "*stress*"},
        {"series_description": "REST", "manufacturer": "ge*", "model": "vivid*"},
        {"view": ["psla", "a4c"]},
        {"score_at_least": 0.9, "score_below": 0.95},
    ],
)
def test_a_rule_fits_where_all_its_conditions_do(conditions: dict[str, Any]) -> None:
    assert judge(rule(**conditions), SEEN).fits is True


@pytest.mark.parametrize(
    ("conditions", "why"),
    [
        ({"calling_ae": "stress1"}, "calling_ae is 'STRESS1', not 'stress1'"),
        ({"calling_ae": "STRESS", "view": "psla"}, "calling_ae is 'STRESS1', not 'STRESS'"),
        ({"door": ["folder", "fetch"]}, "door is 'dimse', not 'folder' or 'fetch'"),
        ({"modality": "us"}, "modality is 'US', not 'us'"),
        ({"description": "stress"}, "description is 'Stress Echo', not 'stress'"),
        ({"view": "psla"}, "view is 'a4c', not 'psla'"),
        ({"score_at_least": 0.91}, "the score is 0.900, not at least 0.91"),
        ({"score_below": 0.9}, "the score is 0.900, not below 0.9"),
    ],
)
def test_the_first_condition_that_does_not_fit_is_told(
    conditions: dict[str, Any], why: str
) -> None:
    verdict = judge(rule(**conditions), SEEN)

    assert (verdict.fits, verdict.why) == (False, why)


def test_without_a_view_a_rule_that_asks_it_cannot_be_told_unless_something_else_settles_it() -> (
    None
):
    early = replace(SEEN, view=None, score=None)

    assert judge(rule(view="a4c"), early).fits is None
    assert judge(rule(score_below=0.5), early).fits is None
    assert judge(rule(calling_ae="ER", view="a4c"), early).fits is False
    assert judge(rule(calling_ae="STRESS1"), early).fits is True


def test_an_attribute_that_is_not_there_fits_a_lone_star_and_nothing_else() -> None:
    nothing = facts_of(Dataset())

    assert judge(rule(description="*"), nothing).fits
    assert not judge(rule(description="?*"), nothing).fits
    assert facts_of(None) == Facts()


def test_facts_are_read_from_the_header() -> None:
    header = Dataset()
    header.Modality = "US"
    header.StudyDescription = "Écho\nde stress"
    header.SeriesDescription = "rest"
    header.Manufacturer = "GE"
    header.ManufacturerModelName = "Vivid"

    assert facts_of(header, calling_ae="A", door="dimse") == Facts(
        calling_ae="A", door="dimse", modality="US", description="Échode stress",
        series_description="rest", manufacturer="GE", model="Vivid",
    )  # fmt: skip
    assert asks_header([rule(), rule(model="*")])
    assert not asks_header([rule(calling_ae="A", view="a4c")])


def test_for_each_action_the_first_fitting_rule_that_names_it_decides() -> None:
    rules = [
        rule("not ours", calling_ae="ER", analyse=False, urgency=9),
        rule("urgent", calling_ae="STRESS*", urgency=5),
        rule("all", analyse=True, packs=["lv"], destinations=["b"], urgency=1),
        rule("late", analyse=False),
    ]

    assert rule_on_urgency(rules, SEEN) == (5, "rule 'urgent': urgency 5")
    assert rule_on_results(rules, SEEN) == (("b",), "rule 'all'")
    ruling = rule_on_clip(rules, SEEN, ("echonet", "lv"))
    assert (ruling.skip, ruling.packs, ruling.words) == (None, ("lv",), "rule 'all': lv alone")
    analyse = decide(rules, SEEN, Action.ANALYSE)
    assert [verdict.rule for verdict in analyse.passed] == ["not ours"]
    assert "calling_ae" in analyse.passed[0].why


def test_without_a_rule_all_is_as_ever() -> None:
    assert rule_on_urgency((), SEEN) == (0, "")
    assert rule_on_results((), SEEN) == (None, "")
    ruling = rule_on_clip((), SEEN, ("lv",))
    assert (ruling.skip, ruling.packs) == (None, None)


def test_packs_that_do_not_run_leave_nothing_to_do_and_no_destination_is_a_choice() -> None:
    ruling = rule_on_clip([rule("shy", packs=["echonet-simulated"])], SEEN, ("lv",))

    assert ruling.skip == ("rule 'shy': not analysed, since echonet-simulated is not in use here")
    assert ruled_out(ruling.skip)
    assert rule_on_results([rule("trial", destinations=[])], SEEN) == ((), "rule 'trial'")


@settings(max_examples=20, deadline=None)
@given(rules=rule_lists(), odd=rule_lists(), facts=_FACTS, place=st.integers(0, 5))
def test_a_rule_that_does_not_fit_changes_nothing(
    rules: list[Rule], odd: list[Rule], facts: Facts, place: int
) -> None:
    misfits = [one for one in odd if judge(one, facts).fits is False]

    for action in Action:
        more = [*rules[:place], *misfits, *rules[place:]]
        assert said(decide(more, facts, action)) == said(decide(rules, facts, action))


@settings(max_examples=20, deadline=None)
@given(rules=rule_lists(), facts=_FACTS, data=st.data())
def test_order_matters_among_those_that_fit_alone(
    rules: list[Rule], facts: Facts, data: st.DataObject
) -> None:
    fitting = [one for one in rules if judge(one, facts).fits is not False]
    mixed = list(data.draw(st.permutations(rules)))
    kept = iter(fitting)
    mixed = [next(kept) if one in fitting else one for one in mixed]

    for action in Action:
        assert said(decide(mixed, facts, action)) == said(decide(rules, facts, action))
        assert said(decide(fitting, facts, action)) == said(decide(rules, facts, action))


@settings(max_examples=25, deadline=None)
@given(rules=rule_lists(), facts=_FACTS)
def test_a_rule_that_is_told_never_to_decide_never_does(rules: list[Rule], facts: Facts) -> None:
    lines = never_decide(rules)
    idle = {
        one.name
        for one in rules
        if any(f"{one.name!r} never decides anything" in line and "wherever" in line
               for line in lines)
    }  # fmt: skip

    for action in Action:
        assert said(decide(rules, facts, action))[0] not in idle


@settings(max_examples=20, deadline=None)
@given(rules=rule_lists(), facts=_FACTS)
def test_a_clip_that_is_ruled_out_before_its_view_is_ruled_out_with_any_view(
    rules: list[Rule], facts: Facts
) -> None:
    early = rule_on_clip(rules, replace(facts, view=None, score=None), ("lv", "x"))

    if early.skip is not None:
        for view in _VIEWS:
            for score in (0.1, 0.5, 0.95):
                late = rule_on_clip(rules, replace(facts, view=view, score=score), ("lv", "x"))
                assert late.skip == early.skip


def test_rules_that_never_decide_are_told() -> None:
    rules = [
        rule("all urgent", urgency=1),
        rule("stress", calling_ae="STRESS*", analyse=False),
        rule("one of them", calling_ae=["STRESS1", "STRESS2"], view="a4c", analyse=True),
        rule("half", calling_ae="STRESS1", urgency=3, destinations=[]),
        rule("wider", calling_ae="*", analyse=True),
        rule("no view of ours", view=["psla", "ivc"], packs=["lv"]),
        rule("scores", score_below=0.9, packs=["lv"]),
        rule("lower scores", score_below=0.5, packs=["x"]),
    ]

    assert never_decide(rules) == (
        "rules: 'one of them' never decides anything: 'stress' above it fits wherever it would",
        "rules: 'half' never decides urgency: 'all urgent' above it fits wherever it would",
        (
            "rules: 'no view of ours' never decides anything: no model for measurements reads "
            "psla or ivc clips"
        ),
        "rules: 'lower scores' never decides anything: 'scores' above it fits wherever it would",
    )


def pack(name: str, kind: PackKind = PackKind.REGRESSION) -> Any:
    return SimpleNamespace(manifest=SimpleNamespace(name=name, kind=kind))


def test_packs_that_are_not_there_or_never_run_are_told() -> None:
    lv, quiet, views = pack("lv", PackKind.TRACING), pack("quiet"), pack("views", PackKind.VIEW)
    rules = [rule("a", packs=["lv", "lvv"]), rule("b", packs=["views"]), rule("c", packs="quiet")]

    assert unknown_packs(rules, [lv, quiet, views]) == (
        "rules: 'a' names the pack 'lvv', which is not there; there are lv, quiet",
        "rules: 'b' names the pack 'views', which names views and always runs; there are lv, quiet",
    )
    (idle,) = idle_packs(rules, [lv, quiet, views], [lv, views])
    assert "'c' names the pack 'quiet', of which nothing may be reported" in idle


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"calling_ae": "A"}, "does nothing"),
        ({"calling_ae": [], "analyse": False}, "at least 1 item"),
        ({"view": "4ch", "analyse": False}, "'a4c'"),
        ({"door": "window", "analyse": False}, "'dimse'"),
        ({"view": "a4c", "urgency": 3}, "urgency is of a whole study, and view of one clip"),
        ({"score_below": 0.5, "destinations": []}, "write two rules"),
        ({"analyse": False, "packs": ["lv"]}, "leave out packs"),
        ({"packs": []}, "at least 1 item"),
        ({"score_at_least": 0.9, "score_below": 0.9, "analyse": True}, "no score is"),
        ({"callingae": "A", "analyse": False}, "Extra inputs"),
    ],
)
def test_rules_that_say_nothing_sensible_are_refused(keys: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Rule.model_validate({"name": "odd", **keys})


def test_labels_in_the_settings_are_those_of_the_views() -> None:
    assert set(get_args(ViewLabel)) == set(View)


def test_names_of_rules_are_unique_and_destinations_are_there(tmp_path: Path) -> None:
    file = tmp_path / "echonode.toml"

    def problem(text: str) -> str:
        file.write_text(text)
        with pytest.raises(SettingsError) as caught:
            load_settings(file)
        return "\n".join(caught.value.problems)

    twice = '[[rules]]\nname = "a"\nanalyse = false\n' * 2
    assert "the name 'a' is used more than once" in problem(twice)
    nowhere = '[[rules]]\nname = "a"\ndestinations = ["pcas"]\n'
    assert "'a' names the destination 'pcas', and [[destinations]] has none" in problem(nowhere)
    assert "rules[1].view" in problem('[[rules]]\nname = "a"\nview = "4ch"\nanalyse = false\n')
    file.write_text(nowhere.replace("pcas", "pacs") + PACS)
    assert load_settings(file).rules[0].destinations == ("pacs",)


PACS = """
[[destinations]]
name = "pacs"
kind = "dimse"
host = "127.0.0.1"
port = 104
ae_title = "PACS"
commitment = "off"
"""
RULES = """
[[rules]]
name = "stress lab"
calling_ae = "STRESS*"
analyse = false

[[rules]]
name = "sure"
view = "a4c"
score_at_least = 0.9
packs = ["echonet-simulated", "lv"]

[[rules]]
name = "again"
calling_ae = "STRESS1"
analyse = true

[[rules]]
name = "trial"
manufacturer = "*"
destinations = []
urgency = -3
"""


class Shell:
    """Runs commands on a settings file."""

    def __init__(self, config: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.config = config
        self._capsys = capsys
        self.out = self.err = ""

    def __call__(self, *arguments: str) -> int:
        code = main(["--config", str(self.config), *arguments])
        self.out, self.err = self._capsys.readouterr()
        return code


@pytest.fixture
def echonode(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Shell:
    config = tmp_path / "echonode.toml"
    config.write_text(f'data_dir = "{tmp_path / "data"}"\n{RULES}{PACS}')
    return Shell(config, capsys)


def test_a_file_is_tried_with_the_rules_and_nothing_is_kept(
    echonode: Shell, tmp_path: Path
) -> None:
    clip = str(REAL_CINE)

    assert echonode("rules", "test", clip, "--calling-ae", "STRESS1") == ExitCode.OK
    lines = [line.strip() for line in echonode.out.splitlines()]
    assert "rule 1 'stress lab' fits" in lines
    assert "rule 2 'sure' cannot be told: the view is not named yet" in lines
    assert "-> analyse          no (rule 'stress lab')" in lines
    assert any(line.startswith("-> packs") and "hangs on the view" in line for line in lines)
    assert "-> destinations     none (rule 'trial')" in lines
    assert "-> urgency          -3 (rule 'trial')" in lines
    assert "=> rule 'stress lab': not analysed" in lines
    assert not (tmp_path / "data").exists()

    asked = ("rules", "test", clip, "--view", "a4c", "--score", "0.95", "--json")
    assert echonode(*asked) == ExitCode.OK
    (tried,) = json.loads(echonode.out)["files"]
    assert tried["facts"]["view"] == "a4c"
    assert tried["rules"][0]["why"] == "calling_ae is empty, not 'STRESS*'"
    assert tried["decisions"]["packs"]["value"] == ["echonet-simulated", "lv"]
    assert tried["decisions"]["packs"]["rule"] == "sure"
    analyse = {"value": True, "rule": None, "hangs_on_view_for": None}
    assert tried["decisions"]["analyse"] == analyse
    assert tried["clip"] == "read by lv"

    assert echonode("rules", "test", clip, "--view", "psla") == ExitCode.OK
    assert "=> the models read apical four-chamber clips, not psla" in echonode.out
    seen = ("--view", "psla", "--calling-ae", "STRESS1")  # in the node nobody looks at its view
    assert echonode("rules", "test", clip, *seen) == ExitCode.OK
    assert "=> rule 'stress lab': not analysed" in echonode.out
    assert echonode("rules", "test", clip) == ExitCode.OK
    assert "=> hangs on its view" in echonode.out


def test_an_ecg_is_tried_as_what_has_no_view(echonode: Shell) -> None:
    assert echonode("rules", "test", str(REAL_ECG)) == ExitCode.OK
    lines = [line.strip() for line in echonode.out.splitlines()]
    assert "kind               ecg" in lines
    assert "rule 2 'sure' does not fit: it is no clip, and has no view" in lines
    assert "=> read by all packs that read ECGs" in lines

    assert echonode("rules", "test", str(REAL_ECG), "--calling-ae", "STRESS1") == ExitCode.OK
    assert "=> rule 'stress lab': not analysed" in echonode.out


@pytest.mark.parametrize("condition", [{"view": ["a4c"]}, {"score_at_least": 0.5}])
def test_a_rule_for_views_lets_the_next_decide_about_an_ecg(condition: dict[str, Any]) -> None:
    ecg = Facts(kind=RecordingKind.ECG)
    rules = [rule("views", analyse=True, **condition), rule("rest", analyse=False)]
    assert said(decide(rules, ecg, Action.ANALYSE)) == ("rest", None)
    assert said(decide(rules, Facts(), Action.ANALYSE)) == (None, "views")


def test_what_cannot_be_tried_is_told(echonode: Shell, tmp_path: Path) -> None:
    text = tmp_path / "note.txt"
    text.write_text("no DICOM")

    assert echonode("rules", "test", str(tmp_path / "gone.dcm")) == ExitCode.NOT_FOUND
    assert echonode("rules", "test", str(REAL_CINE), str(text)) == ExitCode.FAILED
    assert "note.txt" in echonode.err
    assert "rule 1" in echonode.out
    for wrong in (("--view", "4ch"), ("--door", "window"), ("--name-view", "--view", "a4c")):
        assert echonode("rules", "test", str(REAL_CINE), *wrong) == ExitCode.USAGE
        assert wrong[0] in echonode.err


def test_rules_are_listed_and_those_that_never_decide_are_told(echonode: Shell) -> None:
    assert echonode("rules") == ExitCode.OK
    row = next(line for line in echonode.out.splitlines() if "sure" in line)
    assert "view a4c; score_at_least 0.9" in row
    assert "packs echonet-simulated or lv" in row
    assert "note: rules: 'again' never decides anything" in echonode.out

    assert echonode("rules", "list", "--json") == ExitCode.OK
    listed = json.loads(echonode.out)
    assert listed["rules"][0]["when"] == {"calling_ae": ["STRESS*"]}
    assert listed["rules"][3]["then"] == {"destinations": [], "urgency": -3}


def test_config_check_tells_of_rules_and_refuses_unknown_packs(echonode: Shell) -> None:
    assert echonode("config", "check") == ExitCode.OK
    assert "'again' never decides anything" in echonode.err
    assert "'echonet-simulated', of which nothing may be reported" in echonode.err

    written = echonode.config.read_text()
    echonode.config.write_text(written.replace('"lv"]', '"lvv"]'))
    assert echonode("config", "check", "--json") == ExitCode.USAGE
    told = json.loads(echonode.out)
    assert not told["ok"]
    assert "'sure' names the pack 'lvv', which is not there" in told["problems"][0]


def test_a_doctor_says_which_packs_of_rules_are_wrong(tmp_path: Path) -> None:
    packs = ("lv", "lvv", "echonet-simulated")
    told = Settings(data_dir=tmp_path, rules=(rule("mine", packs=packs),))

    lines = {one.light: one.words for one in look_here(told) if one.area == "rules"}

    assert lines[Light.RED].startswith("'mine' names the pack 'lvv', which is not there")
    assert lines[Light.YELLOW].startswith("'mine' names the pack 'echonet-simulated', of which")


def test_settings_without_rules_have_none() -> None:
    assert Settings().rules == ()
