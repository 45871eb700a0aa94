"""What ships in deploy/ is what its readers take: systemd, shells, compose, Kubernetes, Grafana."""

from __future__ import annotations

import functools
import importlib.util
import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.engine import make_url

from node.cli.app import all_commands
from node.settings import Settings, load_settings
from node.web.users import UserFile

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
UNIT = DEPLOY / "systemd" / "echonode.service"
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
_UNITS = (".service", ".timer")
_EXPOSURE_AT_MOST = 2.0  # systemd's own scale: 0 is sealed, 10 is as good as root

yaml: Any = None
if importlib.util.find_spec("yaml") is not None:
    import yaml  # type: ignore[import-untyped,no-redef]  # comes with the checkers

needs_yaml = pytest.mark.skipif(yaml is None, reason="PyYAML is not installed")


def program(name: str, package: str) -> str:
    """Where a checker is; without it the test is skipped."""
    beside = Path(sys.executable).with_name(name)
    found = str(beside) if beside.is_file() else shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed ({package})")
    return found


def done(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], capture_output=True, text=True, check=False, **options
    )


# systemd


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    analyze = program("systemd-analyze", "Debian package systemd")
    units = [tmp_path / path.name for path in UNIT.parent.iterdir() if path.suffix in _UNITS]
    assert len(units) == 5
    for unit in units:
        # It looks for the program, which an installation alone has.
        text = (UNIT.parent / unit.name).read_text()
        unit.write_text(text.replace("/opt/echonode/current/bin/echonode", "/bin/true"))
    said = done(analyze, "verify", "--man=no", *units)
    assert (said.returncode, said.stderr.strip()) == (0, "")


@pytest.mark.parametrize("unit", sorted(path.name for path in UNIT.parent.glob("*.service")))
def test_a_unit_is_closed_as_far_as_its_work_lets_it(unit: str) -> None:
    analyze = program("systemd-analyze", "Debian package systemd")
    said = done(analyze, "security", "--offline=true", "--no-pager", UNIT.with_name(unit))
    level = re.search(r"Overall exposure level for \S+: ([\d.]+)", said.stdout)
    assert level is not None, said.stderr
    assert float(level[1]) <= _EXPOSURE_AT_MOST


def test_users_and_folders_are_what_systemd_reads(tmp_path: Path) -> None:
    sysusers = program("systemd-sysusers", "Debian package systemd")
    (tmp_path / "etc").mkdir()
    said = done(sysusers, f"--root={tmp_path}", DEPLOY / "systemd" / "echonode.sysusers")
    assert said.returncode == 0, said.stderr
    assert "echonode:x:" in (tmp_path / "etc" / "passwd").read_text()
    if os.geteuid() != 0:
        pytest.skip("only root gives folders away")
    tmpfiles = program("systemd-tmpfiles", "Debian package systemd")
    said = done(
        tmpfiles, f"--root={tmp_path}", "--create", DEPLOY / "systemd" / "echonode.tmpfiles"
    )
    assert said.returncode == 0, said.stderr
    assert mode(tmp_path / "etc/echonode/secrets") == 0o700
    assert mode(tmp_path / "var/lib/echonode") == 0o700
    assert (tmp_path / "var/lib/echonode").stat().st_uid != 0


def test_a_stop_has_more_time_than_the_node_takes() -> None:
    from node import jobs

    limit_s = float(re.findall(r"^TimeoutStopSec=(\d+)$", UNIT.read_text(), re.M)[0])
    # The HTTP door 10 s, then the grace and a connection that is being made, the dispatcher 10 s.
    assert limit_s >= 10 + jobs._GRACE_S + 30 + 10 + 10
    watchdog_s = float(re.findall(r"^WatchdogSec=(\d+)$", UNIT.read_text(), re.M)[0])
    assert watchdog_s >= 3 * jobs._ALIVE_S


# The install script


@pytest.mark.parametrize("script", sorted(path.name for path in DEPLOY.glob("*.sh")))
def test_shellcheck_finds_nothing(script: str) -> None:
    said = done(program("shellcheck", "Debian package shellcheck"), DEPLOY / script)
    assert said.returncode == 0, said.stdout


def install(folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    return done(DEPLOY / "install.sh", "--root", folder, "--no-packages", *more)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def laid(folder: Path) -> dict[str, tuple[int, int]]:
    """Everything there: mode, and when it was last written."""
    return {
        str(path.relative_to(folder)): (mode(path), path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if not path.is_symlink()
    }


def test_it_is_installed_once_and_removed_without_settings_and_data(tmp_path: Path) -> None:
    said = install(tmp_path)
    assert said.returncode == 0, said.stderr
    config = tmp_path / "etc/echonode/echonode.toml"
    assert {
        path: mode(tmp_path / path)
        for path in (
            "etc/echonode", "etc/echonode/echonode.toml", "etc/echonode/secrets",
            "var/lib/echonode", "usr/local/bin/echonode", "usr/lib/systemd/system/echonode.service",
        )
    } == {
        "etc/echonode": 0o750,
        "etc/echonode/echonode.toml": 0o640,
        "etc/echonode/secrets": 0o700,
        "var/lib/echonode": 0o700,
        "usr/local/bin/echonode": 0o755,
        "usr/lib/systemd/system/echonode.service": 0o644,
    }  # fmt: skip
    current = tmp_path / "opt/echonode/current"
    assert (current / "share/docs/install.md").is_file(), "the unit names it"
    config.write_text('data_dir = "/elsewhere"\n')
    before = laid(tmp_path)

    assert install(tmp_path).returncode == 0
    assert laid(tmp_path) == before, "a second time changes nothing"

    # As if this were another version: the former stays for a way back, the one before it goes.
    releases = tmp_path / "opt/echonode/releases"
    first = current.readlink().name
    for other in ("0.0.1-a", "0.0.2-b"):
        (releases / other).mkdir()
    current.unlink()
    current.symlink_to("releases/0.0.2-b")
    assert install(tmp_path).returncode == 0
    assert {path.name for path in releases.iterdir()} == {first, "0.0.2-b"}
    assert (tmp_path / "opt/echonode/previous").readlink().name == "0.0.2-b"

    (tmp_path / "var/lib/echonode/echonode.db").touch()
    assert install(tmp_path, "--uninstall").returncode == 0
    left = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert left == {"etc/echonode/echonode.toml", "var/lib/echonode/echonode.db"}


@pytest.mark.parametrize(
    "options", [["--rot", "."], ["--root"], ["--root", "/nowhere"], ["--no-packages"]]
)
def test_a_wrong_option_is_told_and_does_nothing(options: list[str]) -> None:
    said = done(DEPLOY / "install.sh", *options)
    assert said.returncode == 2
    assert said.stderr.startswith("install: ")


def test_it_installs_what_the_lock_names_by_its_hashes() -> None:
    script = (DEPLOY / "install.sh").read_text()
    assert "--require-hashes --only-binary=:all:" in script
    assert 'requirements.lock"' in script


# Settings that ship


def test_the_settings_that_ship_are_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in [name for name in os.environ if name.startswith("ECHONODE_")]:
        monkeypatch.delenv(name)
    for template in (DEPLOY / "echonode.toml", DEPLOY / "container" / "echonode.toml"):
        assert isinstance(load_settings(template), Settings)
        uncommented = tmp_path / template.name
        lines = re.sub(r"^# (\[\[|\w+ = )", r"\1", template.read_text(), flags=re.M)
        uncommented.write_text(lines)
        assert load_settings(uncommented).destinations, "what is commented out would do, too"


@needs_yaml
def test_the_settings_of_the_cluster_are_settings(tmp_path: Path) -> None:
    config = one("ConfigMap")["data"]["echonode.toml"]
    (tmp_path / "echonode.toml").write_text(config)
    settings = load_settings(tmp_path / "echonode.toml")
    (pod,) = one("StatefulSet")["spec"]["template"]["spec"]["containers"]
    places = [Path(mount["mountPath"]) for mount in pod["volumeMounts"]]
    for path in (settings.data_dir, settings.http.users_file, settings.http.tls.certificate):  # type: ignore[union-attr]
        assert any(path.is_relative_to(place) for place in places), path  # type: ignore[union-attr]
    (tmp_path / "users.json").write_text(one("Secret")["stringData"]["users.json"])
    (tmp_path / "users.json").chmod(0o600)
    assert not UserFile(tmp_path / "users.json").users()
    probes = [pod[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")]
    assert {probe["scheme"] for probe in probes} == {"HTTPS"}


# Containers


def test_compose_is_by_its_schema() -> None:
    said = done(
        program("check-jsonschema", "PyPI package check-jsonschema"),
        "--builtin-schema", "vendor.compose-spec", DEPLOY / "container" / "compose.yaml",
    )  # fmt: skip
    assert said.returncode == 0, said.stdout


@needs_yaml
def test_compose_starts_what_is_used_and_mounts_what_is_there() -> None:
    folder = DEPLOY / "container"
    services = yaml.safe_load((folder / "compose.yaml").read_text())["services"]
    assert set(services) == {
        "node", "scheduler", "worker", "postgres", "orthanc", "prometheus", "grafana",
    }  # fmt: skip
    made_by_the_reader = {"./prometheus.token", "./cluster"}
    for service in services.values():
        for volume in service["volumes"]:
            source = volume.partition(":")[0]
            if source.startswith(".") and source not in made_by_the_reader:
                assert (folder / source).is_file(), source
    node = services["node"]
    assert node["read_only"] is True
    settings = load_settings(folder / "echonode.toml")
    rows, made = make_url(settings.database_url), services["postgres"]["environment"]
    assert (rows.host, rows.username, rows.database) == (
        "postgres",
        made["POSTGRES_USER"],
        made["POSTGRES_DB"],
    )
    assert node["environment"]["PGPASSWORD"] == made["POSTGRES_PASSWORD"]
    (destination,) = settings.destinations
    assert destination.host == services["orthanc"]["networks"]["inside"]["ipv4_address"]  # type: ignore[union-attr]
    orthanc = json.loads((folder / "orthanc.json").read_text())
    known = orthanc["DicomModalities"]["echonode"]
    assert known["Host"] == node["networks"]["inside"]["ipv4_address"]
    assert (known["AET"], known["Port"]) == (settings.dimse.ae_title, settings.dimse.port)


def test_the_container_file_copies_what_the_context_holds() -> None:
    text = (DEPLOY / "container" / "Containerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*", "nothing but what is named"
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, re.M):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert f"!{source}" in ignored, source
    assert re.search(r"^USER (?!0)\d+:\d+$", text, re.M), "not root, by number for the cluster"
    assert "--require-hashes" in text


@needs_yaml
def test_the_members_of_a_cluster_in_containers_are_of_one_image_and_meet(tmp_path: Path) -> None:
    services = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())["services"]
    node, scheduler, worker = (services[name] for name in ("node", "scheduler", "worker"))
    assert node["image"] == scheduler["image"] == worker["image"]
    text = (DEPLOY / "container" / "echonode.toml").read_text()
    (tmp_path / "echonode.toml").write_text(re.sub(r"^# (\w+ = )", r"\1", text, flags=re.M))
    analysis = load_settings(tmp_path / "echonode.toml").analysis
    host, _, port = str(analysis.cluster).partition(":")
    assert services[host] is scheduler
    assert port == scheduler["command"][scheduler["command"].index("--port") + 1]
    assert analysis.tls is not None
    for one_of_them in (node, scheduler, worker):
        mounted = [Path(volume.split(":")[1]) for volume in one_of_them["volumes"]]
        for path in (analysis.tls.authorities, analysis.tls.certificate, analysis.tls.private_key):
            assert path.parent in mounted
    for one_of_them in (scheduler, worker):
        assert one_of_them["profiles"] == ["cluster"], "not without being asked for"
        assert one_of_them["read_only"] is True
        is_a_command(one_of_them["command"])


def is_a_command(arguments: list[str]) -> None:
    """Fail where the command line does not take them; nothing is run."""
    import typer

    group: Any = typer.main.get_command(all_commands())
    command = group.commands[arguments[0]]
    command.make_context(arguments[0], [str(each) for each in arguments[1:]])


# Kubernetes


def documents() -> Iterator[tuple[Path, dict[str, Any]]]:
    for path in MANIFESTS:
        for document in yaml.safe_load_all(path.read_text()):
            yield path, document


def one(kind: str) -> dict[str, Any]:
    (found,) = [document for _, document in documents() if document["kind"] == kind]
    return found


@functools.cache
def checked_by() -> Callable[..., Any]:
    if importlib.util.find_spec("kubernetes_validate") is None:
        pytest.skip("kubernetes-validate is not installed (PyPI)")
    import kubernetes_validate

    check: Callable[..., Any] = kubernetes_validate.validate
    return check


@needs_yaml
def test_every_manifest_is_by_its_schema() -> None:
    check = checked_by()
    kinds = set()
    for _, document in documents():
        kinds.add(document["kind"])
        if document["kind"] != "Kustomization":  # kubectl's own, of which nobody has a schema
            check(document, "1.30", strict=True)
    assert kinds >= {"StatefulSet", "Service", "Secret", "ConfigMap", "NetworkPolicy"}
    wrong = one("StatefulSet")
    wrong["spec"]["replica"] = 2
    with pytest.raises(Exception, match="replica"):
        check(wrong, "1.30", strict=True)


@needs_yaml
def test_the_manifests_belong_together() -> None:
    named = {path.name for path, document in documents() if document["kind"] != "Kustomization"} - {
        "secret.example.yaml"
    }
    assert set(one("Kustomization")["resources"]) == named
    stateful = one("StatefulSet")["spec"]
    assert stateful["replicas"] == 1
    ports = {port["name"] for port in stateful["template"]["spec"]["containers"][0]["ports"]}
    selector = stateful["selector"]["matchLabels"]
    for _, document in documents():
        if document["kind"] == "Service":
            assert document["spec"]["selector"] == selector
            assert {port["targetPort"] for port in document["spec"]["ports"]} <= ports


@needs_yaml
def test_the_cluster_belongs_together_in_kubernetes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = DEPLOY / "kubernetes" / "cluster"
    found = {
        path.name: list(yaml.safe_load_all(path.read_text())) for path in folder.glob("*.yaml")
    }
    (kustomization,) = found.pop("kustomization.yaml")
    assert set(kustomization["resources"]) == {"..", *found}
    members = [document for each in found.values() for document in each]
    check = checked_by()
    for document in members:
        check(document, "1.30", strict=True)
    (patch,) = (yaml.safe_load(each["patch"]) for each in kustomization["patches"])
    assert patch["metadata"]["name"] == one("StatefulSet")["metadata"]["name"]
    config = one("ConfigMap")["data"]["echonode.toml"]
    (tmp_path / "echonode.toml").write_text(config)
    pods = [each["spec"]["template"]["spec"] for each in members if each["kind"] == "Deployment"]
    assert len(pods) == 2
    for pod in (patch["spec"]["template"]["spec"], *pods):
        (container,) = pod["containers"]
        for variable in container["env"]:
            monkeypatch.setenv(variable["name"], variable["value"])
        analysis = load_settings(tmp_path / "echonode.toml").analysis
        assert analysis.cluster == "echonode-scheduler:8786"
        mounted = [Path(mount["mountPath"]) for mount in container["volumeMounts"]]
        assert analysis.tls is not None
        assert analysis.tls.private_key.parent in mounted
        if "args" in container:
            is_a_command(container["args"])
            (own,) = one("StatefulSet")["spec"]["template"]["spec"]["containers"]
            assert container["image"] == own["image"]
        for variable in container["env"]:
            monkeypatch.delenv(variable["name"])
    (service,) = [each for each in members if each["kind"] == "Service"]
    assert service["metadata"]["name"] == "echonode-scheduler"
    assert [port["port"] for port in service["spec"]["ports"]] == [8786]
    labels = [
        each["spec"]["selector"]["matchLabels"] for each in members if "replicas" in each["spec"]
    ]
    assert service["spec"]["selector"] in labels


# Prometheus and Grafana


def known_metrics() -> dict[str, set[str]]:
    """The metrics of docs/metrics.md with their labels."""
    found: dict[str, set[str]] = {}
    for line in (ROOT / "docs" / "metrics.md").read_text().splitlines():
        cells = line.split(" | ")
        if line.startswith("| `echonode_"):
            labels = set(re.findall(r"`(\w+)`", cells[2]))
            for name in re.findall(r"`(echonode_\w+)`", cells[0]):
                found[name] = labels | {"instance", "job"}
                if cells[1].strip() == "histogram":
                    for end in ("_bucket", "_sum", "_count"):
                        found[name + end] = found[name] | {"le"}
    return found


def wrong_in(expression: str) -> list[str]:
    """What a PromQL expression names and the node does not give: metrics, and their labels."""
    known = known_metrics()
    metrics = re.findall(r"\bechonode_\w+", expression)
    wrong = [name for name in metrics if name not in known]
    labels = set().union(*(known.get(name, set()) for name in metrics))
    used = re.findall(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"", expression)
    for group in re.findall(r"\b(?:by|on)\s*\(([^)]*)\)", expression):
        used += [label.strip() for label in group.split(",")]
    return wrong + [label for label in used if label not in labels and metrics]


def test_the_dashboard_shows_what_the_node_gives() -> None:
    board = json.loads((DEPLOY / "monitoring/grafana/echonode.json").read_text())
    panels = [panel for panel in board["panels"] if panel["type"] != "row"]
    expressions = [target["expr"] for panel in panels for target in panel["targets"]]
    assert len(expressions) > 20
    assert [fault for expression in expressions for fault in wrong_in(expression)] == []
    known = known_metrics()
    for target in (target for panel in panels for target in panel["targets"]):
        names = re.findall(r"echonode_\w+", target["expr"])
        labels = set().union(*(known[name] for name in names))
        assert set(re.findall(r"{{(\w+)}}", target["legendFormat"])) <= labels, target
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, f"{panel['title']} lies on another"
        assert at["x"] + at["w"] <= 24
        taken |= cells


def test_the_check_of_metrics_can_fail() -> None:
    assert wrong_in('sum by (colour) (echonode_received_objects_total{hue="x"})') == [
        "hue",
        "colour",
    ]
    assert wrong_in("rate(echonode_recieved_objects_total[5m])") == [
        "echonode_recieved_objects_total"
    ]


@needs_yaml
def test_the_alerts_ask_for_what_the_node_gives() -> None:
    (group,) = yaml.safe_load((DEPLOY / "monitoring" / "rules.yml").read_text())["groups"]
    for rule in group["rules"]:
        assert wrong_in(rule["expr"]) == [], rule["alert"]
        assert rule["annotations"]["next"], rule["alert"]
    said = program_or_none("promtool")
    if said is not None:
        checked = done(said, "check", "rules", DEPLOY / "monitoring" / "rules.yml")
        assert checked.returncode == 0, checked.stdout + checked.stderr


def program_or_none(name: str) -> str | None:
    return shutil.which(name)


@needs_yaml
def test_grafana_and_prometheus_find_their_files() -> None:
    services = yaml.safe_load((DEPLOY / "container" / "compose.yaml").read_text())["services"]
    mounted = {volume.split(":")[1] for one in services.values() for volume in one["volumes"]}
    prometheus = yaml.safe_load((DEPLOY / "monitoring" / "prometheus.yml").read_text())
    (job,) = prometheus["scrape_configs"]
    assert job["authorization"]["credentials_file"] in mounted
    assert {f"/etc/prometheus/{name}" for name in prometheus["rule_files"]} <= mounted
    provider = yaml.safe_load((DEPLOY / "monitoring/grafana/provider.yaml").read_text())
    folder = provider["providers"][0]["options"]["path"]
    assert f"{folder}/echonode.json" in mounted
