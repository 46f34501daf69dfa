"""The image's own commands without its engine: as another user, in an empty folder, with an empty home."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest
import yaml

from engine.kernels.build import default_cache_dir
from tests.e2e.deployment import START_SECONDS, wait_until

DOCKER = Path(__file__).parents[2] / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
BIN = Path(sys.executable).parent
COMPOSE = (DOCKER / "compose.yaml").read_text(encoding="utf-8")
SERVER = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", COMPOSE))["services"]["server-cpu"]
USER = re.findall(r"^USER (\d+):\d+$", DOCKERFILE, re.MULTILINE)[0]


def words(instruction: str) -> list[str]:
    """The words of an instruction of the Dockerfile."""
    found: list[str] = json.loads(re.findall(rf"{instruction} (\[.*\])$", DOCKERFILE, re.MULTILINE)[0])
    return found


def as_user() -> list[str]:
    """A prefix that runs a command as the image's user, without root's rights."""
    if os.getuid() != 0:
        return []
    prefix = ["unshare", "--user", f"--map-user={USER}", f"--map-group={USER}"]
    if shutil.which("unshare") is None or subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("root may not become another user here")
    return prefix


class Container:
    """What compose would do with the image, on this machine's packages and a free port."""

    def __init__(self, folder: Path) -> None:
        for name in ("home", "work", "tmp"):
            (folder / name).mkdir()
        self.home, self.work = folder / "home", folder / "work"
        kernels = default_cache_dir()  # compiled when the image is built
        if kernels.is_dir():
            shutil.copytree(kernels, self.home / kernels.relative_to(Path.home()))
        self.environment = {
            "PATH": f"{BIN}:/usr/bin:/bin",
            "HOME": str(self.home),
            "TMPDIR": str(folder / "tmp"),
            **dict.fromkeys(SERVER["environment"], "k-1"),
        }
        command = [*words("^ENTRYPOINT"), *SERVER["command"], "--host", "127.0.0.1", "--port", "0"]
        self.process = subprocess.Popen(
            [*as_user(), *command],
            cwd=self.work,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines: list[str] = []
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def url(self) -> str:
        wait_until(lambda: self._url() is not None or self.process.poll() is not None, 3 * START_SECONDS)
        url = self._url()
        assert url is not None, "".join(self.lines)
        return url

    def check(self) -> int:
        """The exit status of the image's own health check, once."""
        command = [word.replace("http://127.0.0.1:8000", self.url) for word in words("CMD")]
        return subprocess.run(command, env=self.environment, capture_output=True).returncode

    def wait(self) -> int:
        """The exit status, once it has ended and all that it printed was read."""
        status = self.process.wait(30.0)
        self._reader.join(10.0)
        return status

    def close(self) -> None:
        if self.process.poll() is None:
            for process in psutil.Process(self.process.pid).children(recursive=True):
                process.kill()
            self.process.kill()
        self.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _url(self) -> str | None:
        found = re.search(r"is served on (http://\S+)", "".join(self.lines))
        return None if found is None else found[1]

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)


@pytest.fixture
def container(tmp_path: Path) -> Iterator[Container]:
    container = Container(tmp_path)
    try:
        yield container
    finally:
        container.close()


def test_the_images_commands_serve_as_another_user_in_an_empty_folder(container: Container) -> None:
    assert set(words("^CMD")) < set(SERVER["command"]), "what it does by itself is tried with it"
    assert list(SERVER["environment"]) == ["TOKENLOOM_API_KEY"]
    url = container.url
    wait_until(lambda: container.check() == 0, START_SECONDS)
    owner = psutil.Process(container.process.pid)
    status = Path(f"/proc/{owner.pid}/status").read_text()
    assert re.search(r"^CapEff:\s+0+$", status, re.MULTILINE), "it has no rights beyond its user's"
    body = {"prompt": "The sky is", "max_tokens": 4, "ignore_eos": True}
    assert httpx.post(f"{url}/v1/completions", json=body, timeout=60).status_code == 401
    answer = httpx.post(
        f"{url}/v1/completions", json=body, headers={"Authorization": "Bearer k-1"}, timeout=60
    )
    assert answer.json()["usage"]["completion_tokens"] == 4
    container.process.terminate()
    assert container.wait() == 0
    logged = [json.loads(line) for line in container.lines if line.startswith("{")]
    assert {entry["status"] for entry in logged if entry["logger"] == "tokenloom.access"} == {200, 401}
    assert list(container.work.iterdir()) == [], "it writes to its home and its temporary folder alone"
    assert {path.name for path in container.home.iterdir()} <= {".cache"}
