"""A deployment whose log is JSON: what any of its processes has to say is an object a line."""

import json
from pathlib import Path

from tests.e2e.answer import post
from tests.e2e.deployment import Deployment, wait_until
from tests.e2e.faulty_server import DEVICE_FAULT, scripted_command


def entries(server: Deployment) -> list[dict[str, object]]:
    """What was logged so far; the start's report goes to standard output and is for people."""
    return [json.loads(line) for line in server.lines if line.startswith("{") and line.endswith("\n")]


def test_every_process_logs_json(tmp_path: Path) -> None:
    server = Deployment(tmp_path, scripted_command(0.01, log_format="json", log_level="trace"))
    try:
        url = server.url
        start = len(server.lines)
        server.child("loom-engine").send_signal(DEVICE_FAULT)
        assert post(url).status_code == 200, "it had sent no token, so it was asked again"
        wait_until(lambda: "ready again" in server.output)
        server.process.terminate()
        assert server.wait() == 0
    finally:
        server.close()
    said = {(entry["logger"], entry["level"], entry["message"]): entry for entry in entries(server)}
    failed = said["engine.process.process", "critical", "the engine failed"]
    assert "an illegal memory access was encountered" in str(failed["exception"])
    died = "the engine ended with exit status 1; it is started again"
    assert ("tokenloom.supervisor", "error", died) in said
    assert ("tokenloom.supervisor", "info", "the engine is ready again (start 2)") in said
    assert ("tokenloom.access", "info", "request") in said
    assert not [line for line in server.lines[start:] if not line.startswith(("{", "  curl"))]
