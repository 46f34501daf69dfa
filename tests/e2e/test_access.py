"""How a deployment is reached: from where, with TLS or without, and what is refused before it starts."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.e2e.deployment import ROOT, Deployment, start_scripted, wait_until

WARNING = "warning: 0.0.0.0 is reachable from other machines"


@pytest.mark.parametrize(("host", "warns"), [("0.0.0.0", True), ("127.0.0.1", False)])
def test_an_open_server_that_others_reach_says_so(tmp_path: Path, host: str, warns: bool) -> None:
    server = start_scripted(tmp_path, host=host)
    try:
        assert server.url
        assert (WARNING in server.output) == warns
        wait_until(lambda: "curl " in server.output)
        assert "Authorization: Bearer" not in server.output
        assert httpx.get(f"{server.url}/v1/models").status_code == 200
        assert httpx.get(f"{server.url}/v1/models", headers={"Host": "evil.example"}).status_code == 403
        server.process.terminate()
        assert server.wait() == 0
    finally:
        server.close()


def test_what_cannot_be_a_key_or_a_certificate_is_refused(tmp_path: Path) -> None:
    (tmp_path / "no.pem").write_text("hello")
    for flags, part in (
        (["--key-file", "/no/such.toml"], "/no/such.toml: cannot be read"),
        (["--tls-cert", str(tmp_path / "no.pem"), "--tls-key", str(tmp_path / "no.pem")], "--tls-cert"),
        (["--tls-cert", str(tmp_path / "no.pem")], "tls_cert and tls_key go together"),
    ):
        command = [sys.executable, "-m", "server", "serve", *flags]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and part in done.stderr


def test_a_key_from_the_environment(tmp_path: Path) -> None:
    """It closes the server, wherever that listens, and is neither printed nor left in a file."""
    key = "tl-from-the-environment"
    os.environ["TOKENLOOM_API_KEY"] = key
    try:
        server = Deployment(
            tmp_path, ["server", "serve", "--host", "0.0.0.0", "--port", "0", "--threads", "1"]
        )
    finally:
        del os.environ["TOKENLOOM_API_KEY"]
    try:
        assert httpx.get(f"{server.url}/v1/models").status_code == 401
        wait_until(lambda: "curl " in server.output)
        assert WARNING not in server.output and "Authorization: Bearer" in server.output
        assert not [child for child in server.family() if key in child.environ().values()]
        headers = {"Authorization": f"Bearer {key}"}
        assert httpx.get(f"{server.url}/v1/models", headers=headers).status_code == 200
        found = [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]
        assert not found
        server.process.terminate()
        assert server.wait() == 0
        assert key not in server.output
    finally:
        server.close()
