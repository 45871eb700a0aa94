"""Put the OHIF viewer, which the tests show results in, under .venv/share.

It comes prebuilt inside the npm package ``@ohif/app`` (MIT). One version is pinned by the hash of
its tarball. The registry is npm's own setting: ``NPM_CONFIG_REGISTRY``, else ``registry`` in
``~/.npmrc``, else the public one. Neither npm nor Node.js is needed. Where this very version is
there already, nothing is done.

Run by ``deploy/setup.sh --peers`` with the interpreter of ``.venv``.
"""

from __future__ import annotations

import base64
import hashlib
import os
import shutil
import sys
import tarfile
import tempfile
import time
import urllib.request
from io import BytesIO
from pathlib import Path

VERSION = "3.13.2"
_INTEGRITY = (
    "sha512-WZdxmpmG7rqFgW9ZJLcbgr3XCtLi1KDNPoMaeY5PPe6j"
    "4G4fjEjjkycZM6C6Zk2F87BKxFfpq+jd5xXZB9E8EA=="
)
_SITE = "package/dist/"
# The runtime of neural networks for segmentation in the browser: two thirds of the whole.
_NOT_NEEDED = "package/dist/ort/"
_TRIES = 3


def folder() -> Path:
    """Where this interpreter's environment has, or would have, the viewer's files."""
    return Path(sys.prefix) / "share" / f"ohif-{VERSION}"


def _registry() -> str:
    for name in ("NPM_CONFIG_REGISTRY", "npm_config_registry"):
        if os.environ.get(name):
            return os.environ[name]
    npmrc = Path.home() / ".npmrc"
    if npmrc.is_file():
        for line in npmrc.read_text().splitlines():
            key, _, value = line.partition("=")
            if key.strip() == "registry" and value.strip():
                return value.strip().strip('"')
    return "https://registry.npmjs.org"


def _download(url: str) -> bytes:
    if not url.startswith(("https://", "http://")):
        raise ValueError(f"the npm registry's address is no web address: {url}")
    for attempt in range(1, _TRIES + 1):
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:  # noqa: S310 - checked above
                return bytes(answer.read())
        except OSError:
            if attempt == _TRIES:
                raise
            time.sleep(5 * attempt)
    raise AssertionError  # pragma: no cover


def _unpack(package: bytes, into: Path) -> None:
    with tarfile.open(fileobj=BytesIO(package)) as archive:
        for member in archive:
            if not member.name.startswith(_SITE) or member.name.startswith(_NOT_NEEDED):
                continue
            content = archive.extractfile(member)
            if content is not None:
                file = into / member.name.removeprefix(_SITE)
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content.read())


def install() -> None:
    """Download, check and unpack; the folder appears only when it is whole.

    Raises
    ------
    OSError
        If the registry cannot be reached.
    ValueError
        If what came is not the pinned package.
    """
    target = folder()
    if target.is_dir():
        return
    url = f"{_registry().rstrip('/')}/@ohif/app/-/app-{VERSION}.tgz"
    data = _download(url)
    found = "sha512-" + base64.b64encode(hashlib.sha512(data).digest()).decode()
    if found != _INTEGRITY:
        raise ValueError(f"{url} is not the pinned package: {found}, expected {_INTEGRITY}")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".ohif-") as name:
        site = Path(name) / "site"
        _unpack(data, site)
        site.rename(target)
    for old in target.parent.glob("ohif-*"):
        if old != target:
            shutil.rmtree(old)


if __name__ == "__main__":
    try:
        install()
    except (OSError, ValueError) as error:
        sys.exit(f"setup: no OHIF viewer: {error}")
