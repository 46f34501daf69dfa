"""The image, the compose file and the systemd unit: held by what can be held without their engines."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from compose_spec import PyCompose
from packaging.requirements import Requirement

from engine.kernels.build import default_cache_dir
from engine.kernels.gpu.compiler import default_cache_dir as cubins_dir
from server.cli.settings import load_config

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
UNIT = (ROOT / "configs/systemd/tokenloom.service").read_text(encoding="utf-8")
VARIABLE = re.compile(r"\$\{(\w+):-([^}]*)\}")
Json = dict[str, Any]


def compose(**environment: str) -> Json:
    """The file with its variables filled in, checked against the Compose specification."""
    filled = VARIABLE.sub(lambda found: environment.get(found[1]) or found[2], COMPOSE)
    assert "${" not in filled, "every variable has a default"
    document: Json = yaml.safe_load(filled)
    PyCompose.from_yaml(yaml.safe_dump(document))
    return document


def mounts(document: Json) -> list[tuple[str, str, str]]:
    """Service, source and target of each mounted path of the host."""
    found = []
    for name, service in document["services"].items():
        for volume in service.get("volumes", []):
            source, target = volume.split(":")[:2]
            if source.startswith("."):
                found.append((name, source, target))
    return found


def test_the_file_is_compose() -> None:
    assert set(compose()["services"]) == {"server-cpu", "server-gpu", "prometheus", "grafana"}
    broken = COMPOSE.replace("    healthcheck:", "    healthchekc:")
    with pytest.raises(ValueError, match="healthchekc"):
        PyCompose.from_yaml(yaml.safe_dump(yaml.safe_load(VARIABLE.sub(r"\2", broken))))


def test_each_profile_is_one_server_that_prometheus_finds() -> None:
    services = compose()["services"]
    for profile in ("cpu", "gpu"):
        (server,) = [s for s in services.values() if s.get("profiles") == [profile]]
        scraped = yaml.safe_load((ROOT / "configs/prometheus/prometheus.yml").read_text())["scrape_configs"]
        host, port = scraped[0]["static_configs"][0]["targets"][0].split(":")
        assert host in server["networks"]["default"]["aliases"]
        assert any(opened.endswith(f":{port}") for opened in server["ports"])
        assert re.search(rf"^EXPOSE {port}$", DOCKERFILE, re.MULTILINE)
        assert re.search(rf"^FROM \S+ AS {server['build']['target']}$", DOCKERFILE, re.MULTILINE)
        assert (DOCKER / server["build"]["context"] / server["build"]["dockerfile"]).is_file()
    devices = services["server-gpu"]["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}]


def test_what_is_mounted_is_there() -> None:
    found = mounts(compose())
    assert len(found) == 6
    for service, source, _ in found:
        assert (DOCKER / source).exists(), f"{service}: {source}"
    targets = {target for service, _, target in found if service == "grafana"}
    provider = ROOT / "configs/grafana/provisioning/dashboards/tokenloom.yaml"
    path = yaml.safe_load(provider.read_text())["providers"][0]["options"]["path"]
    assert path in targets and "/etc/grafana/provisioning" in targets
    home = compose()["services"]["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / "configs/grafana/dashboards" / Path(home).relative_to(path)).is_file()


def test_each_images_kernels_lie_where_the_server_looks() -> None:
    """Docker fills a new volume from the image, and does that once: another image's volume would hide what this one brings."""
    document = compose()
    (home,) = re.findall(r"--home-dir (\S+)", DOCKERFILE)
    folders = {default_cache_dir(), cubins_dir()}
    volumes = set()
    for name in ("server-cpu", "server-gpu"):
        ((volume, target),) = [
            v.split(":") for v in document["services"][name]["volumes"] if v[0] not in "./"
        ]
        assert all((Path(home) / path.relative_to(Path.home())).is_relative_to(target) for path in folders)
        volumes.add(volume)
    assert len(volumes) == 2 and volumes <= set(document["volumes"])


def test_grafana_and_prometheus_meet() -> None:
    services = compose()["services"]
    source = yaml.safe_load((ROOT / "configs/grafana/provisioning/datasources/prometheus.yaml").read_text())
    host, port = source["datasources"][0]["url"].removeprefix("http://").split(":")
    assert host in services and services[host]["ports"][0].endswith(f":{port}")
    (credentials,) = services["prometheus"]["configs"]
    scraped = yaml.safe_load((ROOT / "configs/prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert scraped["authorization"]["credentials_file"] == credentials["target"]


def test_one_key_is_the_servers_and_prometheuss() -> None:
    document = compose(TOKENLOOM_API_KEY="k-1")
    assert document["services"]["server-cpu"]["environment"]["TOKENLOOM_API_KEY"] == "k-1"
    assert document["configs"]["credentials"]["content"] == "k-1"
    assert compose()["configs"]["credentials"]["content"] == "none"


def test_the_example_names_the_variables() -> None:
    lines = (DOCKER / ".env.example").read_text().splitlines()
    shown = dict(line.split("=", 1) for line in lines if "=" in line and not line.startswith("#"))
    assert shown.pop("COMPOSE_PROFILES") == "cpu"
    assert shown == dict(VARIABLE.findall(COMPOSE)) | {"TOKENLOOM_API_KEY": ""}


def test_containers_may_little() -> None:
    services = compose()["services"]
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"] and "no-new-privileges:true" in service["security_opt"], name
        assert all(port.startswith("127.0.0.1:") for port in service["ports"]), "opened to this machine alone"
        image = service["image"]
        assert re.search(r":v?\d+\.\d+\.\d+$|^tokenloom:", image), f"{image} has no pinned tag"
    assert services["server-cpu"]["read_only"] and services["server-gpu"]["read_only"]
    grace = int(services["server-cpu"]["stop_grace_period"].removesuffix("s"))
    assert grace > load_config(None, {}).server.drain_seconds


@pytest.mark.parametrize("path", [None, ROOT / "configs/shared.toml"], ids=["defaults", "shared"])
def test_systemd_waits_for_a_drain(path: Path | None) -> None:
    (seconds,) = re.findall(r"^TimeoutStopSec=(\d+)$", UNIT, flags=re.MULTILINE)
    assert int(seconds) > load_config(path, {}).server.drain_seconds


def test_the_dockerfile_has_no_faults() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    done = subprocess.run([hadolint, DOCKER / "Dockerfile"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    spoilt = DOCKERFILE.replace("WORKDIR /build", "WORKDIR build")
    done = subprocess.run([hadolint, "-"], input=spoilt, capture_output=True, text=True)
    assert done.returncode != 0 and "DL3000" in done.stdout


def test_the_images_base_is_pinned_and_its_user_is_not_root() -> None:
    stages = re.findall(r"^FROM (\S+) AS (\S+)$", DOCKERFILE, re.MULTILINE)
    names = [name for _, name in stages]
    outside = [source for source, _ in stages if source not in names]
    assert outside and all(re.search(r":\d+\.\d+\.\d+-", source) for source in outside)
    for target in ("cpu", "cuda"):
        stage = DOCKERFILE.split(f" AS {target}\n")[1].split("\nFROM ")[0]
        assert re.search(r"^USER 10001:10001$", stage, re.MULTILINE)
        assert "engine.kernels.build import load; load()" in stage.split("USER")[1]
        assert ("python -m engine.runner.gpu.precompile" in stage.split("USER")[1]) == (target == "cuda")
    assert "HEALTHCHECK" in DOCKERFILE and "/health/ready" in DOCKERFILE


def test_what_is_copied_reaches_the_build() -> None:
    kept = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    sources = [
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert len(sources) >= 8
    for source in sources:
        assert (ROOT / source).exists() and source in kept, source


def test_the_extras_that_the_image_wants_exist() -> None:
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = set(re.findall(r"e\['(\w+)'\]", DOCKERFILE))
    assert wanted == {"tracing", "cuda13"} <= set(project["optional-dependencies"])
    commands = re.findall(r"^(?:ENTRYPOINT|CMD) (\[.*\])$", DOCKERFILE, re.MULTILINE)
    assert json.loads(commands[0]) == [next(iter(project["scripts"]))]


def test_what_the_gpus_image_installs_is_pinned() -> None:
    import tomllib

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    locks = [pins(ROOT / f"configs/{name}.lock") for name in ("requirements", "cuda")]
    assert not locks[0].keys() & locks[1].keys(), "a package has one version"
    for wanted in map(Requirement, extras["cuda13"]):
        assert locks[1][wanted.name] in wanted.specifier
    (installs,) = re.findall(r"^ +pip install (.*-r cuda.txt)", DOCKERFILE, re.MULTILINE)
    assert installs == "-c requirements.lock -c cuda.lock -r cuda.txt"


def pins(lock: Path) -> dict[str, str]:
    """Versions by package."""
    lines = [line.split() for line in lock.read_text().splitlines() if not line.startswith("#")]
    return dict(words[0].split("==") for words in lines if words and "==" in words[0])


def test_the_unit_is_well_formed_and_hardened(tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not on PATH")
    unit = tmp_path / "tokenloom.service"
    program = Path(sys.executable).with_name("tokenloom")
    unit.write_text(UNIT.replace("/opt/tokenloom/bin/tokenloom serve", f"{program} serve"))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    command = [analyze, "security", "--offline=true", "--threshold=25", "--no-pager", str(unit)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-200:]
    unit.write_text(UNIT.replace("ProtectSystem=strict", "ProtectSystm=strict"))
    done = subprocess.run([analyze, "verify", unit], capture_output=True, text=True)
    assert "ProtectSystm" in done.stderr
