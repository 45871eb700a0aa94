"""Settings: read from a file and the environment, and refused with a line that helps."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from node.sections import DicomwebDestination, DimseDestination
from node.settings import (
    cautions,
    load_settings,
    shown,
    sources,
    unknown_variables,
)
from node.settings_file import SettingsError, data_folder


@pytest.fixture(autouse=True)
def _nothing_around(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("ECHONODE_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(folder: Path, text: str) -> Path:
    path = folder / "echonode.toml"
    path.write_text(text)
    return path


def problems(path: Path | None) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load_settings(path)
    return caught.value.problems


def test_without_a_file_the_defaults_hold(tmp_path: Path) -> None:
    settings = load_settings()

    assert settings.data_dir == tmp_path / "var" / "echonode"
    assert settings.database_url == f"sqlite:///{tmp_path}/var/echonode/echonode.db"
    assert (settings.dimse.port, settings.dimse.ae_title) == (11112, "ECHONODE")
    assert settings.dimse.allowed_calling_aes == ()
    assert settings.http.port == 8080
    assert (settings.study.quiet_s, settings.study.released_quiet_s) == (30.0, 10.0)
    assert settings.analysis.workers >= 1
    assert settings.analysis.allow_simulated_evidence is False


def test_the_file_in_the_working_folder_is_read(tmp_path: Path) -> None:
    write(tmp_path, "[dimse]\nport = 104\n")

    assert load_settings().dimse.port == 104


def test_destinations_are_typed_by_their_kind(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        """
        [[destinations]]
        name = "pacs"
        kind = "dimse"
        host = "pacs.example"
        port = 104
        ae_title = "PACS"
        [[destinations]]
        name = "web"
        kind = "dicomweb"
        url = "https://pacs.example/dicom-web/"
        """,
    )

    pacs, web = load_settings(path).destinations

    assert isinstance(pacs, DimseDestination)
    assert (pacs.host, pacs.port, pacs.ae_title) == ("pacs.example", 104, "PACS")
    assert isinstance(web, DicomwebDestination)
    assert web.url == "https://pacs.example/dicom-web"


def test_paths_in_a_file_are_meant_from_its_folder(tmp_path: Path) -> None:
    folder = tmp_path / "etc"
    folder.mkdir()
    path = write(folder, 'data_dir = "../lib"\n[analysis]\npacks = ["packs/ours"]\n')

    settings = load_settings(path)

    assert settings.data_dir.resolve() == tmp_path / "lib"
    assert settings.analysis.packs == (folder / "packs" / "ours",)


def test_a_variable_goes_before_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, '[dimse]\nport = 104\nae_title = "FILE"\n')
    monkeypatch.setenv("ECHONODE_DIMSE__PORT", "4242")
    monkeypatch.setenv("ECHONODE_DIMSE__ALLOWED_CALLING_AES", '["ECHO1", "ECHO2"]')

    settings = load_settings(path)

    assert (settings.dimse.port, settings.dimse.ae_title) == (4242, "FILE")
    assert settings.dimse.allowed_calling_aes == ("ECHO1", "ECHO2")
    origin = sources(settings, path)
    assert origin["dimse.port"] == "ECHONODE_DIMSE__PORT"
    assert origin["dimse.ae_title"] == str(path)
    assert origin["dimse.host"] == "default"


def test_a_short_quiet_time_shortens_the_one_after_release(tmp_path: Path) -> None:
    path = write(tmp_path, "[study]\nquiet_s = 2\n")

    assert load_settings(path).study.released_quiet_s == 2.0


def test_settings_cannot_be_changed() -> None:
    settings = load_settings()

    with pytest.raises(ValueError, match="frozen"):
        settings.dimse.port = 1


DIMSE = '[[destinations]]\nname = "a"\nkind = "dimse"\nhost = "h"\nport = 104\nae_title = "A"\n'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[dimse]\nprot = 1\n", "dimse.prot: unknown key; did you mean 'port'?"),
        ("datadir = 'x'\n", "datadir: unknown key; did you mean 'data_dir'?"),
        ("[dimse]\nport = 65536\n", "dimse.port: '65536' will not do"),
        ("[dimse]\nport = -1\n", "dimse.port: '-1' will not do"),
        ("[dimse]\nport = 'x'\n", "dimse.port: 'x' will not do: it should be a valid integer"),
        ("[dimse]\nae_title = 'SEVENTEEN_LETTERS'\n", "dimse.ae_title: 'SEVENTEEN_LETTERS'"),
        ("[dimse]\nae_title = 'A\\B'\n", "an AE title has 1 to 16 plain characters"),
        ("[dimse]\nae_title = ''\n", "an AE title has 1 to 16 plain characters"),
        ('[dimse]\nae_title = "A\\tB"\n', "an AE title has 1 to 16 plain characters"),
        ("[dimse]\nallowed_calling_aes = ['OK', 'A\\B']\n", "dimse.allowed_calling_aes[2]"),
        ("[dimse]\nhost = 'a b'\n", "dimse.host: 'a b' will not do"),
        ("[study]\nquiet_s = 0\n", "study.quiet_s: '0' will not do"),
        ("[study]\nquiet_s = nan\n", "study.quiet_s: 'nan' will not do"),
        ("[study]\nquiet_s = 5\nreleased_quiet_s = 6\n", "released_quiet_s (6) must not be longer"),
        ("[analysis]\nworkers = 0\n", "analysis.workers: '0' will not do"),
        ("[analysis]\nallow_simulated_evidence = 'maybe'\n", "analysis.allow_simulated_evidence"),
        ("[log]\nlevel = 'loud'\n", "it should be 'debug', 'info', 'warning' or 'error'"),
        ("data_dir = 5\n", "data_dir: '5' will not do: it should be the path of a folder"),
        ("[[destinations]]\nname = 'a'\nkind = 'ftp'\n", "destinations[1]: kind 'ftp'"),
        ("[[destinations]]\nname = 'a'\n", "destinations[1]: kind is missing"),
        (DIMSE.replace("port = 104\n", ""), "destinations[1].port: is missing"),
        (DIMSE.replace("port = 104", "port = 0"), "destinations[1].port: '0' will not do"),
        (DIMSE + "url = 'x'\n", "destinations[1].url: unknown key; known here: ae_title, commit"),
        (DIMSE + DIMSE, "the name 'a' is used more than once"),
        (
            "[[destinations]]\nname = 'w'\nkind = 'dicomweb'\nurl = 'pacs/dicom-web'\n",
            "destinations[1].url: a DICOMweb URL looks like https://",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, text: str, expected: str) -> None:
    path = write(tmp_path, text)

    (line,) = problems(path)

    assert line.startswith(str(path))
    assert expected in line
    assert "\n" not in line


def test_every_wrong_key_has_a_line_of_its_own(tmp_path: Path) -> None:
    path = write(tmp_path, "[dimse]\nport = 'x'\nprot = 1\n[http]\nport = 99999\n")

    assert len(problems(path)) == 3


def test_a_wrong_variable_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHONODE_HTTP__PORT", "eighty")

    (line,) = problems(None)

    assert line.startswith("ECHONODE_HTTP__PORT: http.port: 'eighty' will not do")


def test_a_variable_that_is_no_json_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHONODE_DIMSE__ALLOWED_CALLING_AES", "ECHO1,ECHO2")

    (line,) = problems(None)

    assert line.startswith("ECHONODE_DIMSE__ALLOWED_CALLING_AES: is not JSON")


def test_a_file_that_is_not_there_or_no_toml_is_one_line(tmp_path: Path) -> None:
    (missing,) = problems(tmp_path / "none.toml")
    (broken,) = problems(write(tmp_path, "[dimse\n"))

    assert "none.toml: cannot be read: No such file or directory" in missing
    assert "is not TOML" in broken


def test_a_password_is_never_shown(tmp_path: Path) -> None:
    secret = "correct-horse"  # noqa: S105 - of nobody
    path = write(
        tmp_path,
        f'database_url = "postgresql://echo:{secret}@db/echo"\n[[destinations]]\nname = "w"\n'
        f'kind = "dicomweb"\nurl = "https://echo:{secret}@pacs/dicom-web"\n',
    )

    lines = problems(path)

    assert len(lines) == 2
    assert secret not in "".join(lines)


def test_what_a_webhook_is_called_by_is_not_shown(tmp_path: Path) -> None:
    path = write(
        tmp_path, '[alerts.webhook]\nurl = "https://chat.example/hooks/T0/SECRET?k=SECRET"\n'
    )

    values = shown(load_settings(path))

    assert values["alerts"]["webhook"]["url"] == "https://chat.example/***"
    assert "SECRET" not in str(values)


def test_what_is_shown_is_plain_and_whole() -> None:
    values = shown(load_settings())

    assert values["dimse"]["port"] == 11112
    assert set(values) == {
        "alerts",
        "archives",
        "data_dir",
        "dicomweb",
        "database_url",
        "dimse",
        "folders",
        "http",
        "store_url",
        "study",
        "destinations",
        "analysis",
        "capture",
        "delivery",
        "retention",
        "rules",
        "disk",
        "machines",
        "node",
        "audit",
        "log",
    }


def test_variables_that_name_no_setting_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ECHONODE_DATADIR", "x")
    monkeypatch.setenv("ECHONODE_DIMSE__PORT", "1")

    monkeypatch.setenv("ECHONODE_CONFIG", "echonode.toml")
    assert unknown_variables() == ("ECHONODE_DATADIR",)


@pytest.mark.parametrize(
    ("door", "archive", "said"),
    [
        ("", "", ()),
        ("allowed_calling_aes = ['CART']", "", ("allowed_calling_aes does not name PACS",)),
        ("allowed_calling_aes = ['CART', 'PACS']", "", ()),
        ("allowed_addresses = ['10.1.4.0/24']", "", ("allowed_addresses does not name 10.1.9.20",)),
        ("allowed_addresses = ['10.1.0.0/16']", "", ()),
        (
            "allowed_addresses = ['fd00::/8']\nallowed_calling_aes = ['CART']",
            "",
            ("allowed_calling_aes does not name PACS and allowed_addresses does not name",),
        ),
        ("allowed_calling_aes = ['CART']", "commitment = 'off'", ()),
    ],
)
def test_an_archive_that_could_not_report_what_it_keeps_is_told(
    tmp_path: Path, door: str, archive: str, said: tuple[str, ...]
) -> None:
    settings = load_settings(
        write(
            tmp_path,
            f"[dimse]\n{door}\n[[destinations]]\nname = 'pacs'\nkind = 'dimse'\n"
            f"host = '10.1.9.20'\nport = 104\nae_title = 'PACS'\n{archive}\n",
        )
    )
    told = cautions(settings)
    assert len(told) == len(said)
    assert all(part in line for part, line in zip(said, told, strict=True))


@pytest.mark.parametrize("variable", ["", "/srv/here", "beside", "~/mine"])
@pytest.mark.parametrize("written", ["", 'data_dir = "/srv/there"', 'data_dir = "x"', "~"])
@pytest.mark.parametrize("place", ["none", "here", "elsewhere"])
def test_the_data_folder_is_found_as_the_settings_have_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str, written: str, place: str
) -> None:
    """`echonode status` looks for it without checking every key."""
    line = 'data_dir = "~/theirs"' if written == "~" else written
    (tmp_path / "site").mkdir()
    path = None
    if place == "here":
        write(tmp_path, f"{line}\n[dimse]\nport = 104\n")
    elif place == "elsewhere":
        path = write(tmp_path / "site", f"{line}\n").relative_to(tmp_path)
    if variable:
        monkeypatch.setenv(
            "echonode_data_dir" if "~" in variable else "ECHONODE_DATA_DIR", variable
        )

    assert data_folder(path) == load_settings(path).data_dir


@pytest.mark.parametrize("text", ["data_dir = 7", "data_dir", "\x00"])
def test_a_data_folder_that_cannot_be_told_is_said(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError, match=r"echonode\.toml"):
        data_folder(write(tmp_path, text))
