"""Ends with 0 where the node in this container answers that it is well: the health check."""

from __future__ import annotations

import os
import ssl
import sys
import urllib.request

_URL = "http://127.0.0.1:8080/healthz"
_TIMEOUT_S = 8.0


def main() -> int:
    """Ask /healthz, by the address in HEALTH_URL where that is set."""
    url = os.environ.get("HEALTH_URL", _URL)
    # Our own loopback: the certificate names the node as others see it.
    context = ssl._create_unverified_context() if url.startswith("https:") else None  # noqa: S323
    try:
        with urllib.request.urlopen(url, timeout=_TIMEOUT_S, context=context) as answer:  # noqa: S310
            return 0 if answer.status == 200 else 1
    except OSError as error:
        sys.stderr.write(f"{url}: {error}\n")
        return 1


if __name__ == "__main__":
    sys.exit(main())
