"""A whole server with the bundled model, under clients that come, go, and are turned away at random."""

import http.client
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.deployment import Deployment, wait_until
from tests.e2e.storm import CASES, Reply, Visit, plan_growth, plan_impatience, plan_visits, run_storm

SETTINGS = {
    "--port": "0",
    "--dtype": "float32",
    "--api-workers": "2",
    "--max-requests": "12",
    "--max-batch-tokens": "64",
    "--max-queued-requests": "12",
    "--max-model-len": "640",
    "--kv-tokens": "640",  # less than its rows come to need
}
COMPLETIONS = "/v1/completions"


class Counts:
    """The samples of one reading of /metrics."""

    def __init__(self, text: str) -> None:
        families = text_string_to_metric_families(text)
        self._samples = [sample for family in families for sample in family.samples]

    def sum(self, name: str, **labels: str) -> float:
        """Of the samples that have these labels."""
        return sum(
            sample.value
            for sample in self._samples
            if sample.name == f"tokenloom:{name}" and labels.items() <= sample.labels.items()
        )

    def requests(self) -> dict[str, float]:
        """All that is counted of requests, by name and labels."""
        counted = (
            "request_",
            "http_responses_total",
            "generation_tokens",
            "engine_aborts",
            "num_preemptions",
        )
        return {
            f"{sample.name} {sorted(sample.labels.items())}": sample.value
            for sample in self._samples
            if sample.name.removeprefix("tokenloom:").startswith(counted)
            and sample.labels.get("route") != "/metrics"
        }


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    flags = [word for setting in SETTINGS.items() for word in setting]
    deployment = Deployment(tmp_path_factory.mktemp("storm"), ["server", "serve", *flags])
    try:
        wait_until(deployment.is_ready, 90)
        yield deployment
    finally:
        deployment.close()


def read_metrics(server: Deployment) -> Counts:
    return Counts(httpx.get(f"{server.url}/metrics").text)


def read_metrics_of_each(server: Deployment) -> list[Counts]:
    """As each of the server processes tells them."""
    workers = [server.child(f"loom-server-{index}") for index in range(2)]
    found: dict[int, Counts] = {}
    for _ in range(64):  # the kernel picks who answers a connection
        connection = http.client.HTTPConnection(server.url.removeprefix("http://"))
        connection.request("GET", "/metrics")
        counts = Counts(connection.getresponse().read().decode())
        port = connection.sock.getsockname()[1]
        for worker in workers:
            if any(peer.raddr and peer.raddr.port == port for peer in worker.net_connections("tcp")):
                found[worker.pid] = counts
        connection.close()
        if len(found) == len(workers):
            return list(found.values())
    raise AssertionError("one of the server processes answered no connection")


def is_idle(server: Deployment) -> bool:
    counts = read_metrics(server)
    gauges = ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc")
    return all(counts.sum(name) == 0 for name in gauges)


def count_descriptors(server: Deployment) -> dict[str, int]:
    names = ("loom-server-0", "loom-server-1", "loom-engine")
    return {name: server.child(name).num_fds() for name in names}


def check_answer(visit: Visit, reply: Reply) -> None:
    """Greedy, so that a shorter answer begins the longer one."""
    wanted = visit.case["output_ids"][: visit.num_tokens]
    assert reply.token_ids == wanted
    text = visit.case["output_text_skip_special"]
    if len(wanted) == len(visit.case["output_ids"]):
        assert (reply.text, reply.finish_reason) == (text, visit.case["finish"])
    else:
        assert reply.finish_reason == "length"
        assert text.startswith(reply.text.rstrip("\ufffd"))  # cut within a character


def check_counts(counts: Counts, visits: list[Visit], replies: list[Reply]) -> None:
    """What the server counted is what the clients saw; only of those who left it alone knows the end."""
    seen = Counter(reply.ending for reply in replies)
    reasons = Counter(reply.finish_reason for reply in replies if reply.ending == "answered")
    ended = {
        reason: counts.sum("request_success_total", finished_reason=reason) for reason in reasons if reason
    }
    cut = {
        cause: counts.sum("request_cancellations_total", cause=cause) for cause in ("disconnect", "timeout")
    }
    rejected = counts.sum("request_rejections_total")
    assert 0 <= rejected - seen["rejected"] <= seen["left"]
    assert all(0 <= ended[reason] - reasons[reason] <= seen["left"] for reason in ended)
    assert cut["timeout"] == seen["timed out"]
    assert 0 < cut["disconnect"] <= seen["left"]
    assert counts.sum("request_success_total", finished_reason="abort") == sum(cut.values())
    assert counts.sum("request_success_total", finished_reason="error") == 0
    unread = len(visits) - rejected - sum(ended.values()) - sum(cut.values())  # gone before the body was read
    assert 0 <= unread <= seen["left"]
    for path in (COMPLETIONS, "/v1/chat/completions"):
        missed = sum(visit.path == path for visit in visits) - counts.sum("http_responses_total", route=path)
        assert 0 <= missed <= seen["left"], "only who left before the request was read got no answer"
    assert counts.sum("http_responses_total", status="429") == rejected
    answered = sum(len(reply.token_ids) for reply in replies if reply.ending == "answered")
    assert counts.sum("generation_tokens_total") >= answered


async def test_a_storm_leaves_nothing_behind(server: Deployment) -> None:
    warm = [Visit(0.05 * i, CASES[i], 4, chats=i % 2 == 0, streams=i % 3 == 0) for i in range(8)]
    visits = warm + plan_impatience() + plan_growth() + plan_visits(seed=3, num_visits=110, mean_gap=0.2)
    replies = await run_storm(server.url, warm)
    wait_until(lambda: is_idle(server))
    read_metrics_of_each(server)
    num_descriptors = count_descriptors(server)
    replies += await run_storm(server.url, visits[len(warm) :])
    seen = Counter(reply.ending for reply in replies)
    assert min(seen[ending] for ending in ("answered", "rejected", "timed out", "left")) >= 4, seen
    for visit, reply in zip(visits, replies, strict=True):
        if reply.ending == "answered":
            check_answer(visit, reply)
    wait_until(lambda: is_idle(server), 5.0)
    told = read_metrics_of_each(server)
    assert told[0].requests() == told[1].requests()
    check_counts(told[0], visits, replies)
    assert told[0].sum("num_preemptions_total") > 0
    assert told[0].sum("engine_restarts_total") == 0
    wait_until(lambda: count_descriptors(server).items() <= num_descriptors.items(), 5.0)
    [last] = await run_storm(server.url, [Visit(0, CASES[0], 64, chats=True, streams=True)])
    check_answer(Visit(0, CASES[0], 64), last)
    assert psutil.Process(server.process.pid).is_running() and "Traceback" not in server.output


def test_a_client_that_leaves_gives_its_row_back_at_once(server: Deployment) -> None:
    before = read_metrics(server).sum("engine_aborts_total", cause="disconnect")
    body = {"prompt": "Once", "max_tokens": 600, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}{COMPLETIONS}", json=body, timeout=30) as response:
        lines = response.iter_lines()
        assert all(next(lines) is not None for _ in range(20))
        wait_until(lambda: server.metric("num_requests_running") == 1, 5.0)
    left = time.perf_counter()
    steps = read_metrics(server).sum("step_time_seconds_count")
    wait_until(lambda: read_metrics(server).sum("engine_aborts_total", cause="disconnect") == before + 1, 1.0)
    wait_until(lambda: server.metric("num_requests_running") == 0, 1.5)
    assert time.perf_counter() - left < 1.5
    time.sleep(0.2)  # a step is counted a moment after its rows
    settled = read_metrics(server).sum("step_time_seconds_count")
    assert settled - steps < 10, "600 tokens would take as many steps"
    time.sleep(0.2)
    assert read_metrics(server).sum("step_time_seconds_count") == settled
