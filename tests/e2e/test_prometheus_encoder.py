"""The encoders' dashboard over a real encoder: a real Prometheus answers every panel."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.deployment import Deployment, wait_until
from tests.prometheus import Prometheus, dashboard_queries, running_prometheus
from tests.real_models import minilm

LOAD_SECONDS = 4.0
FLAGS = ["--port", "0", "--dtype", "float32", "--max-queued-requests", "1"]  # a place for eight inputs


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    command = ["server", "serve", str(minilm()), *FLAGS]
    deployment = Deployment(tmp_path_factory.mktemp("serve"), command)
    try:
        wait_until(deployment.is_ready, 90.0)
        yield deployment
    finally:
        deployment.close()


def load(http: httpx.Client, seconds: float) -> None:
    """Small requests, some that have no time, and more at once than the queue takes."""
    end = time.monotonic() + seconds
    text = "The cat sits outside. " * 8
    body: dict[str, object] = {"input": [text] * 8}
    bodies = [*[body] * 6, body | {"timeout": 0.0001}]
    statuses: set[int] = set()
    while time.monotonic() < end:
        with ThreadPoolExecutor(len(bodies)) as pool:
            answers = pool.map(lambda body: http.post("/v1/embeddings", json=body), bodies)
            statuses |= {answer.status_code for answer in answers}
    assert statuses == {200, 408, 429}


@pytest.fixture(scope="module")
def prometheus(deployment: Deployment, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    folder = tmp_path_factory.mktemp("prometheus")
    with running_prometheus(folder, deployment.url) as prometheus:
        with httpx.Client(base_url=deployment.url, timeout=30.0) as http:
            load(http, LOAD_SECONDS)
        yield prometheus


def test_every_panel_has_data(prometheus: Prometheus) -> None:
    empty = prometheus.without_data(dashboard_queries("encoders.json"), LOAD_SECONDS + 2)
    assert not empty, "\n".join(empty)
