"""The DICOMweb door in this process, over a real store and database, and bodies to send to it."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from node.intake import Intake
from node.sections import DicomwebSettings, HttpSettings
from node.settings import Settings
from node.watch.audit import Audit
from node.watch.audit_file import audit_files
from node.web.callers import Callers
from node.web.dicomweb.pixels import Pixels
from node.web.dicomweb.routes import router
from node.web.server import HttpServer
from node.web.site import Parts, make_site
from node.web.users import Role, UserFile
from storage.database import Database
from storage.files import FolderStore
from tests.ultrasound_files import speckle, ultrasound

DICOM = "application/dicom"
JSON = "application/dicom+json"


@dataclass
class Web:
    """A server that runs, a client that may do everything, and what lies behind."""

    url: str
    root: str
    client: httpx.Client
    token: str
    tokens: dict[str, str]
    database: Database
    files: FolderStore
    folder: Path
    refusing: str | None = None

    def store(self, *objects: Dataset | bytes, study: str = "", **headers: str) -> httpx.Response:
        """Send objects in one body."""
        content_type, body = multipart(objects)
        path = f"/studies/{study}" if study else "/studies"
        return self.client.post(
            self.root + path, content=body, headers={"content-type": content_type, **headers}
        )

    def get(self, path: str, accept: str | None = None, **options: Any) -> httpx.Response:
        """Ask for what lies under the service's root."""
        headers = {} if accept is None else {"accept": accept}
        return self.client.get(self.root + path, headers=headers, **options)

    def incoming(self) -> list[Path]:
        """What is half received, or was left behind."""
        return list(self.files.incoming_folder.iterdir())

    def kept(self) -> int:
        """How many objects lie in the store."""
        return len(list((self.folder / "objects").rglob("*.dcm")))

    def audit(self) -> str:
        """The audit trail."""
        return "".join(path.read_text() for path in audit_files(self.folder / "audit"))


@contextmanager
def serving_dicomweb(
    folder: Path,
    database: Database,
    settings: DicomwebSettings | None = None,
    pixels: Pixels | None = None,
    **http: Any,
) -> Iterator[Web]:
    """Serve until the end of the block."""
    whole = Settings(
        data_dir=folder,
        http=HttpSettings(port=0, **http),
        dicomweb=settings or DicomwebSettings(),
    )
    users = UserFile(folder / "users.json")
    users.add("all", list(Role), None)
    token = users.add_token("all")
    tokens = {}
    for role in Role:
        users.add(role.value, [role], None)
        tokens[role.value] = users.add_token(role.value)
    files = FolderStore(folder)
    audit = Audit(whole.audit, folder, "ECHONODE")
    server = HttpServer(whole.http, users)
    web: Web
    parts = Parts(
        settings=whole,
        database=database,
        audit=audit,
        callers=Callers(whole.http, users, audit),
        not_ready=lambda: web.refusing,
        files=files,
        intake=Intake(database, files),
        pixels=pixels or Pixels(),
    )
    try:
        server.start(make_site(parts, router))
        with httpx.Client(
            headers={"authorization": f"Bearer {token}"}, timeout=60.0, trust_env=False
        ) as client:
            web = Web(
                url=server.url,
                root=f"{server.url}/dicom-web",
                client=client,
                token=token,
                tokens=tokens,
                database=database,
                files=files,
                folder=folder,
            )
            yield web
    finally:
        server.stop()
        if pixels is None:
            parts.pixels.stop()
        audit.close()


def clip(study: str = "1.2.3", number: int = 1, **changes: Any) -> Dataset:
    """A small native clip of a study: 3 grey frames, another in each number."""
    ds = ultrasound(speckle((3, 24, 32), seed=number))
    given: dict[str, Any] = {
        "StudyInstanceUID": study,
        "SeriesInstanceUID": f"{study}.1",
        "SOPInstanceUID": f"{study}.1.{number}",
        "PatientName": "Doe^Jane",
        "PatientID": "P1",
        "PatientBirthDate": "19500101",
        "StudyDate": "20260102",
        "Modality": "US",
        "InstanceNumber": number,
        "SeriesNumber": 1,
        "AccessionNumber": "A1",
        **changes,
    }
    for keyword, value in given.items():
        setattr(ds, keyword, value)
    ds.file_meta.MediaStorageSOPClassUID = ds.SOPClassUID
    ds.file_meta.MediaStorageSOPInstanceUID = ds.SOPInstanceUID
    return ds


def part10(ds: Dataset) -> bytes:
    """A data set as a file."""
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def multipart(
    objects: Sequence[Dataset | bytes], *, boundary: str = "limit", kind: str = DICOM
) -> tuple[str, bytes]:
    """Content type and body with these objects."""
    body = b"".join(
        f"--{boundary}\r\nContent-Type: {kind}\r\n\r\n".encode()
        + (item if isinstance(item, bytes) else part10(item))
        + b"\r\n"
        for item in objects
    )
    return (
        f'multipart/related; type="{kind}"; boundary={boundary}',
        body + f"--{boundary}--\r\n".encode(),
    )


def split(response: httpx.Response) -> list[tuple[dict[str, str], bytes]]:
    """The parts of an answer: header and body each."""
    kind = response.headers["content-type"]
    assert kind.startswith("multipart/related"), kind
    boundary = kind.split("boundary=")[1].split(";")[0].strip('"')
    first, *parts = (b"\r\n" + response.content).split(f"\r\n--{boundary}".encode())
    assert first == b""
    assert parts[-1].startswith(b"--")
    found = []
    for part in parts[:-1]:
        head, _, body = part.partition(b"\r\n\r\n")
        lines = [line.split(": ", 1) for line in head.decode().strip().split("\r\n")]
        found.append(({name.lower(): value for name, value in lines}, body))
    return found


def new_uid() -> str:
    """A UID that nobody has."""
    return str(generate_uid())


def grey_frames(ds: Dataset) -> np.ndarray:
    """The frames of a native grey object."""
    return np.frombuffer(ds.PixelData, np.uint8).reshape(3, ds.Rows, ds.Columns)
