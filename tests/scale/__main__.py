"""Writes `docs/scale/results.json`, the pictures and `docs/scale.md`.

    python -m tests.scale [--studies-a-day 40] [--clips 60] [--peak 1] [--pace 1] ... [--show]

Every assumption is an option (`--help`). With `--show` nothing is written: the page is printed.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks import rounds
from tests.benchmarks.load import COURSES
from tests.scale import answers, assumptions, constants, judging, page
from tests.scale.assumptions import Assumptions
from tests.scale.constants import Constants

RESULTS = COURSES / "results.json"


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate, and write what came of it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    assumptions.add_options(parser)
    parser.add_argument("--show", action="store_true", help="print the page, write nothing")
    parser.add_argument("--page-only", action="store_true", help="of results that are there")
    options = parser.parse_args(arguments)
    if options.page_only:
        page.PAGE.write_text(page.page(json.loads(RESULTS.read_text())))
        return
    figures = constants.read()
    results = results_of(figures, assumptions.given(options))
    if options.show:
        sys.stdout.write(page.page(results))
        return
    RESULTS.write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n")
    draw(results["judged"], page.PAGE.parent / "images" / "scale.png")
    page.PAGE.write_text(page.page(json.loads(RESULTS.read_text())))


def results_of(figures: Constants, assumed: Assumptions) -> dict[str, Any]:
    """All that the page says."""
    judged = [judging.judge(figures, name) for name in judging.JUDGED]
    study = json.loads((rounds.FOLDER / "study.json").read_text())["rows"][0]
    needs = [answers.need(scale, assumed, figures) for scale in answers.scales(assumed)]
    return {
        "machine": rounds.machine(),
        "commit": rounds._commit(),
        "constants": asdict(figures),
        "assumptions": [list(each) for each in assumptions.described(assumed)],
        "hours": [round(100 * share, 1) for share in assumptions.shares(assumed)],
        "mean_study": asdict(answers.MeanStudy.of(assumed, figures)),
        "judged": [{**asdict(each), "figures": each.figures()} for each in judged],
        "study_of_sixty": {
            "measured_s": study["ours"],
            "run": study["run"]["date"],
            "simulated_s": [
                round(judging.study_of_sixty(figures, pace).studies[0].wait_s - 10, 2)
                for pace in (1.0, judged[0].pace)
            ],
        },
        "parts": [asdict(each) for each in answers.parts(assumed, figures)],
        "needs": [asdict(each) for each in needs],
        "sensitivity": [asdict(each) for each in answers.sensitivity(needs[1], assumed, figures)],
        "overload": answers.overload(needs[-1], assumed, figures),
    }


def draw(judged: Sequence[dict[str, Any]], path: Path) -> None:
    """How many clips waited, measured and simulated."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(judged), figsize=(5.2 * len(judged), 3.2), squeeze=False)
    for axis, one in zip(axes[0], judged, strict=True):
        for name, colour in (("measured", "#1f4e79"), ("simulated", "#d2691e")):
            seconds, waiting = zip(*one[f"{name}_queue"], strict=True)
            axis.step(seconds, waiting, where="post", label=name, color=colour, linewidth=1.4)
        axis.set_title(one["name"], fontsize=10)
        axis.set_xlabel("seconds")
        axis.set_ylabel("clips that wait")
        axis.set_ylim(bottom=0)
        axis.spines[["top", "right"]].set_visible(False)
        axis.legend(frameon=False)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
