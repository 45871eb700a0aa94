"""``docs/scale.md``: the hand-written frame with what ``docs/scale/results.json`` holds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks import rounds

PAGE = rounds.ROOT / "docs" / "scale.md"
FRAME = Path(__file__).with_name("frame.md")
Results = Mapping[str, Any]

_WAITS = ("workers", "use", "median", "95 of 100", "99 of 100", "last report after the hour")
_OWN = ("an archive", "a line of")  # of each hospital
_REMEDIES = {
    "a worker's core": "more workers",
    "a receiver": "more nodes on one database and one store, and a balancer or a list of "
    "addresses before them",
    "a line of": "a node in each hospital, so that images stay there; a faster line; sending while "
    "the examination goes on",
    "a database": "a quicker disk; fewer transactions (several objects in one); then one database "
    "for each region. More nodes do not help: they write in turn",
    "a node's dispatcher": "more nodes: each has its own",
    "a node's reports": "more nodes: each has its own",
    "an archive": "each hospital has its own; one for all would get results from one node at a "
    "time",
}


def page(results: Results) -> str:
    """The whole page."""
    hospital, network, country = results["needs"]
    study, constants = results["mean_study"], results["constants"]
    order = _by_use(results)
    single = [each for each in order if not each.startswith(("a worker", *_OWN))]
    return FRAME.read_text().format(
        network=network["scale"]["hospitals"],
        short=_short(results),
        judged=_judged(results),
        measured=_measured(constants),
        assumed=_assumed(results),
        hours=_hours(results),
        needs=_needs(results),
        workers=_workers(results),
        breaks=_breaks(results),
        overload=_overload(results),
        sensitivity=_sensitivity(results),
        first=single[0],
        second=single[1],
        third=single[2],
        busy=_busy(results),
        study_mb=study["bytes"] / 1e6,
        study_core_s=study["worker_s"],
        study_a4c_s=study["analysis_s"],
        study_a4c_share=100 * study["analysis_s"] / study["worker_s"],
        study_result_mb=study["result_bytes"] / 1e6,
        study_transactions=study["transactions"],
        study_gflop=study["forward_gflop"],
        country_gflops=study["forward_gflop"] * country["studies_peak_hour"] / 3600,
        commits=constants["commits_s"],
        hospital_days=hospital["scale"]["days"],
        alone_workers=country["scale"]["hospitals"] * hospital["workers"],
        network_grain=network["scale"]["grain"],
        network_workers=network["workers"],
        network_nodes=_counted(network["nodes"], "node"),
        network_tb=network["store_tb_year"],
        network_tb_month=network["store_tb_year"] * 30 / 365,
        network_tb_week=network["store_tb_year"] * 7 / 365,
        country_grain=country["scale"]["grain"],
        country_workers=country["workers"],
        country_busy=country["worker_cores_busy"],
        country_peak=country["studies_peak_hour"],
        country_mb_s=country["mbytes_a_second"],
        country_tb=country["store_tb_year"],
        country_tb_month=country["store_tb_year"] * 30 / 365,
        country_tb_week=country["store_tb_year"] * 7 / 365,
        country_results_tb=country["results_tb_year"],
    )  # fmt: skip


def _busy(results: Results) -> str:
    return "; ".join(
        f"{_title(need)} {_digits(need['worker_cores_busy'])}" for need in results["needs"]
    )


def _short(results: Results) -> str:
    def database(need: Results) -> str:
        if need["scale"]["own_machine"]:
            return "SQLite, in the node"
        share = need["use"]["a database"] / need["regions"]
        return f"{need['regions']} PostgreSQL, used to {_percent(share)}"

    def waits(need: Results) -> str:
        return f"{need['waits']['median_s']:.0f} s; {need['waits']['p95_s']:.0f} s"

    return _compared(
        results,
        {
            "studies a working day": lambda need: f"{need['studies_a_day']:,.0f}",
            "nodes (receivers)": lambda need: str(need["nodes"]),
            "workers, a core each": lambda need: str(need["workers"]),
            "database": database,
            "images a year": lambda need: f"{need['store_tb_year']:,.0f} TB",
            "GPUs": lambda _: "none is needed; none was measured",
            "last image to report in the peak hour: median; 95 of 100": waits,
        },
    )


def _judged(results: Results) -> str:
    rows = []
    for one in results["judged"]:
        name = f"{one['name']}: {one['words']}; pace {one['pace']:.2f}"
        for what, (measured, simulated) in one["figures"].items():
            apart = f"{100 * (simulated - measured) / measured:+.0f} %"
            rows.append((name, what, f"{measured:.1f}", f"{simulated:.1f}", apart))
            name = ""
        traced = sorted(one["traced_waits_s"])
        if traced:
            measured = statistics.median(one["measured_waits_s"])
            simulated = statistics.median(traced)
            apart = f"{100 * (simulated - measured) / measured:+.0f} %"
            what = "median again, each clip as long at a worker as it really was, s"
            rows.append(("", what, f"{measured:.1f}", f"{simulated:.1f}", apart))
    sixty = results["study_of_sixty"]
    rows.append(
        (
            "a study of 60 clips, four of them A4C, alone",
            "last image to report, less the quiet time, s",
            rounds.figures(sixty["measured_s"]),
            " to ".join(f"{each:.1f}" for each in sorted(sixty["simulated_s"])),
            "",
        )
    )
    return _table(("run", "", "measured", "simulated", "apart"), rows)


def _measured(one: Results) -> str:
    views, analysis, picture = one["small_view"], one["analysis"], one["picture"]
    rows = [
        (
            "receiving, one association",
            (
                f"{1000 * one['object_s']:.1f} ms an object, {1e9 * one['byte_s']:.1f} ns a byte; "
                f"sender and node keep {one['receiving_cores']:.1f} cores busy"
            ),
            "`receive.json`",
        ),
        (
            "receiving, four associations",
            f"{one['receiver_bytes_s'] / 1e6:.0f} MB/s, senders on the same {one['cores']} cores",
            "`receive.json`",
        ),
        (
            "naming a view",
            (
                f"{views['at_once']:.2f} s (320 x 240) to {one['large_view_s']:.2f} s (640 x 480) "
                "of a core"
            ),
            "`work.json`",
        ),
        (
            "analysing an A4C clip, its picture drawn",
            (
                f"{analysis['at_once']:.1f} s and {1000 * analysis['a_frame']:.0f} ms a frame, "
                "of a core"
            ),
            "`work.json`",
        ),
        (
            "its picture, made, checked and kept by the node",
            (
                f"{picture['at_once']:.2f} s and {1000 * picture['a_frame']:.1f} ms a frame; "
                f"{one['picture_bytes']['a_frame'] / 1e3:.0f} kB a frame"
            ),
            "`work.json`",
        ),
        (
            "a claim, or an outcome, in SQLite",
            f"{1000 * one['dispatch_s']:.1f} ms",
            "`catalog.json`",
        ),
        ("a report", f"{one['report_s']:.2f} s of one thread", "`docs/scale/alone.json`"),
        (
            "a study's results to an archive that answers at once",
            f"{one['delivery_s']:.2f} s",
            "`docs/scale/alone.json`",
        ),
        (
            "PostgreSQL, nodes and server on the same cores",
            (
                f"{one['commits_s']:.0f} transactions a second, all nodes together; "
                f"{one['transactions']:.0f} for a study of 60 clips; "
                f"{1000 * one['transaction_s']:.1f} ms each for a node alone"
            ),
            "`writes.json`",
        ),
        (
            "its floor: pages synced one after another",
            f"{one['synced_pages_s']:,.0f} a second",
            "`writes.json`",
        ),
        ("rows of a study", "87 kB of database", "`catalog.md`: 1.3 GB, 14,925 studies"),
    ]
    return _table(("", "", "source, in `docs/benchmarks/`"), rows)


def _assumed(results: Results) -> str:
    return _table(
        ("option", "", "what", "why"),
        [
            (f"`{option}`", f"{value:g} {unit}".strip(), what, why)
            for option, value, unit, what, why in results["assumptions"]
        ],
    )


def _hours(results: Results) -> str:
    return ", ".join(
        f"{hour} h {share:g} %" for hour, share in enumerate(results["hours"]) if share >= 1
    )


def _needs(results: Results) -> str:
    def used(*parts: str) -> Callable[[Results], str]:
        def take(need: Results) -> str:
            return "; ".join(
                _percent(share)
                for part in parts
                for what, share in need["use"].items()
                if what.startswith(part)
            )

        return take

    def network(need: Results) -> str:
        rate = need["mbytes_a_second"]
        return f"{_digits(rate)} MB/s ({_digits(8 * rate)} Mbit/s)"

    return _compared(
        results,
        {
            "studies a day; in the peak hour": lambda n: (
                f"{n['studies_a_day']:,.0f}; {n['studies_peak_hour']:,.0f}"
            ),
            "clips a second, then": lambda n: _digits(n["clips_a_second"]),
            "network in, then": network,
            "**receivers**: use of one": used("a receiver"),
            "use of one dispatcher; of one thread for reports": used(
                "a node's dispatcher", "a node's reports"
            ),
            "nodes": lambda n: str(n["nodes"]),
            "**workers**: cores busy, on average": lambda n: _digits(n["worker_cores_busy"]),
            "workers for the target (simulated)": lambda n: str(n["workers"]),
            "**database**: transactions a second": lambda n: _digits(n["writes_a_second"]),
            "of what one PostgreSQL was seen to do": used("a database"),
            "regions, with a database each": lambda n: str(n["regions"]),
            "rows a year": lambda n: f"{_digits(n['database_gb_year'])} GB",
            "**store**: images a year": lambda n: f"{_digits(n['store_tb_year'])} TB",
            "images kept, by `--retention-days`": lambda n: f"{_digits(n['store_tb_kept'])} TB",
            "results a year": lambda n: f"{_digits(n['results_tb_year'])} TB",
            "**wait** in the peak hour (simulated): median": lambda n: (
                f"{n['waits']['median_s']:.0f} s"
            ),
            "95 of 100; 99 of 100": lambda n: (
                f"{n['waits']['p95_s']:.0f} s; {n['waits']['p99_s']:.0f} s"
            ),
            "studies that were counted for it": lambda n: f"{n['waits']['studies']:,}",
            "clips that waited at once, most": lambda n: f"{n['waits']['most_waiting']:,}",
        },
    )


def _workers(results: Results) -> str:
    rows = [
        (_title(need) if number == 0 else "", str(workers), *_waits(waits))
        for need in results["needs"]
        for number, (workers, waits) in enumerate(need["tried"])
    ]
    return _table(("", *_WAITS), rows)


def _breaks(results: Results) -> str:
    need = results["needs"][-1]
    parts = {part["what"]: part for part in results["parts"]}
    rows = []
    for what in _by_use(results, whole=True):
        share = _asked(need, what)
        rows.append(
            (
                what,
                f"{parts[what]['holds_an_hour']:,.0f}",
                _percent(share) if share < 2 else f"{share:.0f} of them",
                parts[what]["how"],
                next(text for name, text in _REMEDIES.items() if what.startswith(name)),
            )
        )
    heads = ("", "studies an hour", "a country asks for", "by", "what then to change")
    return _table(heads, rows)


def _by_use(results: Results, *, whole: bool = False) -> list[str]:
    """The parts, those first of which most is used."""
    need = results["needs"][-1]
    names = sorted(need["use"], key=lambda what: -_asked(need, what))
    return names if whole else [name.partition(" (")[0] for name in names]


def _asked(need: Results, what: str) -> float:
    share = float(need["use"][what])
    return share / need["scale"]["hospitals"] if what.startswith(_OWN) else share


def _overload(results: Results) -> str:
    rows = [
        (f"{one['times']:g} x", str(one["workers"]), *_waits(one)) for one in results["overload"]
    ]
    return _table(("studies", *_WAITS), rows)


def _sensitivity(results: Results) -> str:
    rows = [
        (one["what"], str(one["workers"]), *_waits(one["waits"])) for one in results["sensitivity"]
    ]
    return _table(("", *_WAITS), rows)


def _waits(waits: Results) -> Iterator[str]:
    yield _percent(waits["worker_use"])
    for name in ("median_s", "p95_s", "p99_s"):
        yield f"{waits[name]:,.0f} s"
    yield f"{waits['drained_min']:.1f} min"


def _compared(results: Results, rows: Mapping[str, Callable[[Results], str]]) -> str:
    heads = ("", *(_title(need) for need in results["needs"]))
    return _table(
        heads, [(what, *(take(need) for need in results["needs"])) for what, take in rows.items()]
    )


def _title(need: Results) -> str:
    hospitals = need["scale"]["hospitals"]
    name = str(need["scale"]["name"])
    return name if hospitals == 1 or str(hospitals) in name else f"{name} ({hospitals} hospitals)"


def _counted(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _digits(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else rounds.digits(value)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(map(_line, (heads, ["---"] * len(heads), *rows)))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
