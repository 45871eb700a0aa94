"""Ask whether vulnerabilities are known in the locked packages.

Run by ``make audit`` with the interpreter of ``.venv``. Nothing is installed or resolved for it:
the lock has every package. Exit codes: 0, none is known; 1, some are; 3, nobody could be asked
about all of them, so that nothing is known.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_LOCK = "requirements-dev.lock"
_SERVICES = ("pypi", "osv")
_LIMIT_S = 600


def _asked(service: str) -> list[dict[str, Any]] | str:
    """What a source of advisories says of each package, or why it cannot be asked."""
    command = [str(Path(sys.executable).with_name("pip-audit"))]
    command += ["--requirement", _LOCK, "--require-hashes", "--disable-pip", "--format", "json"]
    command += ["--vulnerability-service", service, "--progress-spinner", "off", "--timeout", "30"]
    try:
        done = subprocess.run(  # noqa: S603 - our own command
            command, capture_output=True, text=True, timeout=_LIMIT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return type(error).__name__
    try:
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (ValueError, KeyError):
        return (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    # A mirror without advisories answers "not found" to all, and pip-audit calls that good.
    skipped = [item for item in packages if "skip_reason" in item]
    if skipped:
        return f"it knows nothing of {len(skipped)} of {len(packages)} packages"
    return packages


def main() -> int:
    """Ask one source after the other, and print what the first says that can be asked."""
    for service in _SERVICES:
        said = _asked(service)
        if isinstance(said, str):
            sys.stderr.write(f"audit: {service} cannot be asked: {said}\n")
            continue
        found = [(item, known) for item in said for known in item["vulns"]]
        for item, known in found:
            mended = ", ".join(known["fix_versions"]) or "no version yet"
            sys.stdout.write(
                f"{item['name']} {item['version']}: {known['id']}, mended in {mended}\n"
            )
        sys.stdout.write(f"audit: {len(said)} packages, {len(found)} known vulnerabilities\n")
        return 1 if found else 0
    sys.stderr.write("audit: nobody can be asked from here: nothing is known of these packages\n")
    return 3


if __name__ == "__main__":
    sys.exit(main())
