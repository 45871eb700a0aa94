"""What can be asked of a cluster that reads the clips: whether it is there, and who may read."""

from __future__ import annotations

from collections.abc import Iterator

from models.packs import PackError, load_pack, shipped_packs
from node.checkup.findings import Finding, green, red, yellow
from node.compute.card import card_of
from node.compute.cluster import look_at
from node.compute.settings import ComputeError
from node.evidence import running_packs
from node.settings import Settings


def look_at_cluster(settings: Settings) -> Iterator[Finding]:
    """Every finding on the cluster of ``[analysis] executor``; none where clips are read here."""
    analysis = settings.analysis
    if analysis.cluster is None:
        return
    try:
        packs = [load_pack(folder) for folder in (*shipped_packs(), *analysis.packs)]
    except PackError:
        return  # told with the packs
    ours = [str(pack.folder) for pack in running_packs(analysis, packs)]
    try:
        members = look_at(analysis, card_of(ours, analysis.device))
    except ComputeError as error:
        yield red(
            "cluster",
            f"{error}; clips wait",
            "start it with `echonode scheduler`, or mend [analysis] executor and [analysis.tls]",
        )
        return
    for member in members:
        if member.refused is not None:
            yield yellow(
                "cluster",
                f"worker at {member.states[0].place}: {member.refused}",
                "give it the node's version and packs, then start it again",
            )
    ready = [member for member in members if member.places]
    places = sum(member.places for member in ready)
    if places:
        words = f"{len(ready)} workers at {analysis.cluster} read {places} clips at once"
        yield green("cluster", words)
    else:
        yield red(
            "cluster",
            f"no worker at {analysis.cluster} may read; clips wait",
            "start one with `echonode worker`",
        )
