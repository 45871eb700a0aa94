"""Examples of every command, for ``--help`` and the manual page.

They stand here together so that one look shows whether commands are named alike; a test holds that
each command has one and that each can be read.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import typer

_STUDY = "1.2.840.113619.2.1"

#: A command's name to its examples, without the program's name.
EXAMPLES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "serve": ("serve", "--config /etc/echonode/echonode.toml serve --json"),
        "scheduler": ("scheduler", "scheduler --host 10.1.2.3 --json"),
        "worker": (
            "worker --scheduler 127.0.0.1:8786",
            "--config /etc/echonode/echonode.toml worker --places 4",
        ),
        "demo": ("demo", "demo --keep --out results"),
        "simulate": (
            "simulate --view a4c --ef 35 --gif clip.gif",
            "simulate --view all --out clips",
            "simulate --ecg --rhythm af --rate 90 --png ecg.png",
        ),
        "analyze": ("analyze clip.dcm", "analyze study-folder --out results --json"),
        "fetch": (
            f"fetch --from pacs --study {_STUDY}",
            "fetch --from pacs --date 2026-01-01..2026-01-31 --between 20:00-06:00",
            "fetch --from pacs --date 2026-01-01 --dry-run --json",
        ),
        "backfill": (
            "backfill --from pacs --date 2015-01-01..2024-12-31 --between 20:00-06:00",
            "backfill --from /srv/old-studies --oldest-first --rate 4/s,60studies/h",
            "backfill --from pacs",
        ),
        "backfill status": ("backfill status", "backfill status --json"),
        "backfill end": ("backfill end --from pacs",),
        "import": (
            "import --now /media/cdrom/DICOMDIR",
            "import export.zip /srv/old-studies",
            "import --dry-run /srv/old-studies --json",
        ),
        "status": ("status", "status --json"),
        "top": ("top", "top --every 10", "top --once"),
        "doctor": ("doctor", "doctor --offline", "doctor --json"),
        "retention": ("retention --dry-run", "retention"),
        "studies": ("studies", "studies --state failed", "studies --text A12345 --json"),
        "study": (f"study {_STUDY}", "study 0123456789 --json"),
        "retry": (f"retry {_STUDY}",),
        "hold": (f'hold {_STUDY} --reason "wrong patient"',),
        "release": (f"release {_STUDY}",),
        "resend": (f"resend {_STUDY}", f"resend {_STUDY} --to pacs"),
        "train": ("train lv --dataset simulated:clips=200 --out my-lv",),
        "evaluate": ("evaluate lv simulated:clips=20", "evaluate views my-clips --out report"),
        "explain": (
            "explain clip.dcm",
            "explain clip.dcm --output ef --method grad-cam",
            "explain ecg.dcm --output atrial_fibrillation --method lrp",
        ),
        "ecg-summaries": (
            "ecg-summaries ecg-rhythm simulated-ecg:records=200",
            "ecg-summaries ecg-rhythm ecgs --method integrated-gradients --out summaries",
        ),
        "export": (
            f"export {_STUDY} --to copies --key keys/trial.json",
            "export --since 2026-01-01 --to copies --key keys/trial.json --findings",
            "export --all --to copies --dry-run --json",
        ),
        "backup": ("backup /srv/backup/echonode",),
        "restore": ("restore /srv/backup/echonode",),
        "destinations": ("destinations", "destinations --json"),
        "destinations list": ("destinations list",),
        "destinations forget": ("destinations forget pacs",),
        "alerts test": ("alerts test", "alerts test --way mail"),
        "alerts list": ("alerts list", "alerts list --json"),
        "quarantine": ("quarantine", "quarantine --limit 500 --json"),
        "quarantine list": ("quarantine list",),
        "quarantine show": ("quarantine show 7",),
        "quarantine remove": ("quarantine remove 7",),
        "quarantine export": ("quarantine export 7 odd.dcm",),
        "packs": ("packs", "packs --json"),
        "packs list": ("packs list",),
        "packs show": ("packs show lv", "packs show lv --report"),
        "packs import": ("packs import model.keras --manifest pack.toml --out my-pack",),
        "packs check": ("packs check my-pack", "packs check lv"),
        "dataset build": ("dataset build --from-node --labels values.csv --out my-clips",),
        "dataset show": ("dataset show my-clips",),
        "user add": (
            "user add anna --role read --role operate",
            "user add station --role read --no-password",
        ),
        "user list": ("user list",),
        "user remove": ("user remove anna",),
        "user password": ("user password anna", "user password anna --generate"),
        "user token": ('user token station --note "wall display" --days 365',),
        "rules": ("rules", "rules --json"),
        "rules list": ("rules list",),
        "rules test": (
            "rules test clip.dcm --calling-ae STRESS1",
            "rules test clip.dcm --view a4c --score 0.95",
            "rules test clip.dcm --name-view --json",
        ),
        "config check": ("config check", "--config new.toml config check"),
        "config show": ("config show",),
        "db path": ("db path",),
        "db upgrade": ("db upgrade",),
        "db forget-node": ("db forget-node echo-2",),
        "db check": ("db check", "db check --deep", "db check --repair"),
    }
)


def add_examples(app: typer.Typer, names: tuple[str, ...] = ()) -> None:
    """Let ``--help`` of every command end with its examples."""
    for command in app.registered_commands:
        function = command.callback
        name = command.name or (function.__name__.replace("_", "-") if function else "")
        command.epilog = _shown(" ".join((*names, name)))
    for group in app.registered_groups:
        if group.typer_instance is None or group.name is None:
            continue
        group.epilog = _shown(" ".join((*names, group.name)))
        add_examples(group.typer_instance, (*names, group.name))


def _shown(name: str) -> str | None:
    examples = EXAMPLES.get(name)
    if examples is None:
        return None
    # Each a paragraph: lines of one would be joined.
    return "\n\n".join(("Examples:", *(f"echonode {line}" for line in examples)))
