"""An engine that dies, hangs or breaks under load: what its clients are told, when it is noticed, and what comes after."""

import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.e2e.answer import Answer, post
from tests.e2e.deployment import Deployment, wait_until
from tests.e2e.faulty_server import DEVICE_FAULT, NO_MEMORY, SLOW, scripted_command
from tests.engine.scripted_runner import answer

LONG = 1500  # tokens; longer than any test
NOTICED_SECONDS = 5.0  # until /health says that the engine does not work
STEP_SECONDS = 0.05
LONG_PROMPT = list(
    range(1, 1900)
)  # takes 30 steps before a token comes, which is long enough to send a signal
FAULTS = {
    "killed": (signal.SIGKILL, "the engine was killed by SIGKILL"),
    "hung": (signal.SIGSTOP, "the engine sent no sign of life for 6 s and was killed"),
    "device fault": (DEVICE_FAULT, "the engine ended with exit status 1"),
    "no memory": (NO_MEMORY, "the engine ended with exit status 1"),
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    directory: Path = tmp_path_factory.mktemp("faults")
    deployment = Deployment(directory, scripted_command(0.01, drain_seconds=10.0))
    try:
        assert deployment.url
        yield deployment
        deployment.process.terminate()
        assert deployment.wait() == 0
        assert list(directory.iterdir()) == []
    finally:
        deployment.close()


class Watch:
    """Asks for /health until it fails, from the moment that it is made."""

    def __init__(self, url: str) -> None:
        self.seconds = float("inf")  # until it failed
        self.words = ""
        self._url = url
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def end(self) -> None:
        self._thread.join(NOTICED_SECONDS + 5)
        assert not self._thread.is_alive(), "nobody noticed"

    def _look(self) -> None:
        began = time.monotonic()
        while True:
            response = httpx.get(f"{self._url}/health", timeout=10)
            if response.status_code == 503:
                break
            time.sleep(0.02)
        self.seconds, self.words = time.monotonic() - began, response.json()["error"]["message"]


@pytest.mark.parametrize("fault", FAULTS)
def test_under_load(server: Deployment, fault: str) -> None:
    url, (signum, cause) = server.url, FAULTS[fault]
    num_restarts, prompt = server.metric("engine_restarts_total"), [signum, *LONG_PROMPT]
    streaming = [Answer(url, LONG, [place, 2, 3]).begin() for place in range(3)]
    with ThreadPoolExecutor() as pool:
        server.child("loom-engine").send_signal(SLOW)
        prefixes = server.metric("prefix_cache_queries_total")
        late = pool.submit(post, url, 4, prompt)
        wait_until(lambda: server.metric("prefix_cache_queries_total") > prefixes + 1000)
        watch = Watch(url)
        server.child("loom-engine").send_signal(signum)
        watch.end()
        assert watch.seconds < NOTICED_SECONDS, watch.words
        refused = post(url)
        if fault != "hung":  # else it is still hoped for
            assert refused.status_code == 503 and int(refused.headers["retry-after"]) >= 1
        for place, one in enumerate(streaming):
            error = one.end().error
            assert error is not None and cause in str(error["message"])
            assert one.events[-1] == "[DONE]" and not one.broken
            assert one.token_ids == answer((place, 2, 3), LONG)[: len(one.token_ids)]
        assert late.result().status_code == 200, f"it had sent no token: {late.result().text}"
        assert late.result().json()["choices"][0]["token_ids"] == answer(tuple(prompt), 4)
    wait_until(server.is_ready)
    assert httpx.get(f"{url}/health").status_code == 200
    assert post(url).json()["choices"][0]["token_ids"] == answer((1, 2, 3), 4)
    assert server.metric("engine_restarts_total") == num_restarts + 1
    wait_until(lambda: server.metric("num_requests_running") == 0)
    assert f"{cause}; it is started again" in server.output


@pytest.mark.parametrize("fault", ["killed", "device fault"])
def test_at_rest(server: Deployment, fault: str) -> None:
    """Nobody notices a device's fault before there is something to compute, and then it costs nobody an answer."""
    url, (signum, _) = server.url, FAULTS[fault]
    wait_until(server.is_ready)
    num_restarts = server.metric("engine_restarts_total")
    server.child("loom-engine").send_signal(signum)
    if fault == "killed":
        wait_until(lambda: httpx.get(f"{url}/health").status_code == 503, NOTICED_SECONDS)
        wait_until(server.is_ready)
    assert post(url).json()["choices"][0]["token_ids"] == answer((1, 2, 3), 4)
    assert server.metric("engine_restarts_total") == num_restarts + 1
