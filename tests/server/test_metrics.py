"""What Prometheus is given, by one process and by several."""

import multiprocessing
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from engine.request import SamplingParams
from server.metrics.metrics import ServerMetrics
from server.metrics.request_timer import RequestTimer
from tests.server.metrics_lives import run_engine_metrics, serve_some

Samples = dict[str, float]  # by name and labels, as they are written, without the two that all have


def samples(text: bytes) -> Samples:
    found = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            own = {k: v for k, v in sample.labels.items() if k not in ("model_name", "engine")}
            assert sample.labels["model_name"] == "m" and sample.labels["engine"] == "0"
            found[sample.name + "".join(f",{k}={v}" for k, v in sorted(own.items()))] = sample.value
    return found


class Clock:
    """Time that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def rendered(metrics: ServerMetrics) -> Samples:
    return samples(metrics.render()[0])


def test_a_request_is_measured_from_its_arrival_to_its_end(clock: Clock) -> None:
    metrics = ServerMetrics("m")
    timer = metrics.track(30, SamplingParams(max_tokens=100), n=2)
    timer.on_started(queued=0.25, num_cached=16)
    clock.now += 1.0
    timer.on_tokens(1)
    clock.now += 0.5
    timer.on_tokens(2)
    clock.now += 0.25
    timer.on_tokens(1)
    clock.now += 0.125
    timer.finish("stop")
    found = rendered(metrics)
    sums = {
        "time_to_first_token_seconds": 1.0,
        "inter_token_latency_seconds": 0.75,
        "request_time_per_output_token_seconds": 0.25,
        "e2e_request_latency_seconds": 1.875,
        "request_queue_time_seconds": 0.25,
        "request_prefill_time_seconds": 0.75,
        "request_decode_time_seconds": 0.75,
        "request_inference_time_seconds": 1.5,
        "request_prompt_tokens": 30,
        "request_generation_tokens": 4,
        "request_params_max_tokens": 100,
        "request_params_n": 2,
    }
    assert {name: found[f"tokenloom:{name}_sum"] for name in sums} == pytest.approx(sums)
    assert found["tokenloom:inter_token_latency_seconds_count"] == 3
    assert found["tokenloom:inter_token_latency_seconds_bucket,le=0.25"] == 3
    assert found["tokenloom:inter_token_latency_seconds_bucket,le=0.1"] == 0
    assert found["tokenloom:prompt_tokens_total"] == 30
    assert found["tokenloom:prompt_tokens_cached_total"] == 16
    assert found["tokenloom:generation_tokens_total"] == 4
    assert found["tokenloom:request_success_total,finished_reason=stop"] == 1


def test_time_buckets_begin_at_100_microseconds(clock: Clock) -> None:
    metrics = ServerMetrics("m")
    timer = metrics.track(1, SamplingParams(), 1)
    clock.now += 0.00009
    timer.on_tokens(1)
    found = rendered(metrics)
    assert found["tokenloom:time_to_first_token_seconds_bucket,le=0.0001"] == 1
    edges = [
        float(name.split("le=")[1])
        for name in found
        if name.startswith("tokenloom:time_to_first_token_seconds_b")
    ]
    assert edges[0] == 0.0001 and edges[-2] == 500.0


@pytest.mark.parametrize("end", [lambda t: t.finish("stop"), lambda t: t.cancelled("timeout")])
def test_only_the_first_end_counts(end: Callable[[RequestTimer], None]) -> None:
    metrics = ServerMetrics("m")
    timer = metrics.track(3, SamplingParams(), 1)
    timer.cancelled("disconnect")
    end(timer)
    found = rendered(metrics)
    assert found["tokenloom:request_success_total,finished_reason=abort"] == 1
    assert found["tokenloom:request_cancellations_total,cause=disconnect"] == 1
    assert {name for name in found if "_total,finished_reason=" in name or "_total,cause=" in name} == {
        "tokenloom:request_success_total,finished_reason=abort",
        "tokenloom:request_cancellations_total,cause=disconnect",
    }


def test_a_request_without_a_token_has_no_token_times() -> None:
    metrics = ServerMetrics("m")
    metrics.track(3, SamplingParams(), 1).finish("error")
    found = rendered(metrics)
    assert found["tokenloom:e2e_request_latency_seconds_count"] == 1
    assert found["tokenloom:request_decode_time_seconds_count"] == 0


def test_http_responses_by_route_and_status() -> None:
    metrics = ServerMetrics("m")
    metrics.rejected("queue_requests")
    metrics.http_response("POST", "/v1/completions", 429, 0.001)
    metrics.http_response("POST", "/v1/completions", 429, 0.002)
    for method in ("BREW", "PROPFIND"):  # a client may write anything there
        metrics.http_response(method, "/v1/models", 405, 0.001)
    found = rendered(metrics)
    assert found["tokenloom:request_rejections_total,cause=queue_requests"] == 1
    assert found["tokenloom:http_responses_total,method=POST,route=/v1/completions,status=429"] == 2
    assert found["tokenloom:http_responses_total,method=other,route=/v1/models,status=405"] == 2
    assert found["tokenloom:http_response_seconds_count,method=POST,route=/v1/completions"] == 2


def test_the_process_and_the_build_are_described() -> None:
    found = rendered(ServerMetrics("m", process="server-0"))
    assert found["tokenloom:process_memory_bytes,process=server-0"] > 1e6
    assert sum(value for name, value in found.items() if name.startswith("tokenloom:build_info")) == 1


def test_any_process_shows_all_of_them(tmp_path: Path) -> None:
    directory, output = tmp_path / "metrics", tmp_path / "out"
    directory.mkdir()
    context = multiprocessing.get_context("spawn")
    lives = [
        context.Process(target=run_engine_metrics, args=(str(directory),)),
        context.Process(target=serve_some, args=(str(directory), "server-0", 2, str(output))),
        context.Process(target=serve_some, args=(str(directory), "server-1", 5, str(output))),
    ]
    for life in lives:
        life.start()
        life.join()
        assert life.exitcode == 0
        life.close()
    found = samples(output.read_bytes())
    assert found == samples((tmp_path / "out.library").read_bytes()), (
        "the library reads the same from these files"
    )
    expected = {
        "generation_tokens_total": 21,
        "request_success_total,finished_reason=length": 7,
        "e2e_request_latency_seconds_count": 7,
        "num_requests_running": 3,
        "num_requests_waiting": 2,
        "kv_cache_usage_perc": 0.5,
        "num_preemptions_total": 1,
        "prefix_cache_queries_total": 20,
        "prefix_cache_hits_total": 16,
        "iteration_tokens_total_sum": 12,
        "step_rows_sum": 3,
        "step_time_seconds_sum": 0.004,
        "step_host_gap_seconds_count": 1,
        "engine_aborts_total,cause=disconnect": 1,
        "engine_rejections_total,cause=queue_tokens": 1,
        "startup_phase_seconds,phase=weights": 1.5,
        "cache_config_info,block_size=16,cache_dtype=float32,enable_prefix_caching=True,num_gpu_blocks=16": 1,
    }
    assert {name: found[f"tokenloom:{name}"] for name in expected} == expected
    processes = {name.split("process=")[1] for name in found if name.startswith("tokenloom:process_memory")}
    assert processes == {"engine", "server-0", "server-1"}
    assert not any("pid=" in name for name in found)


def test_tokens_are_counted_while_they_come(clock: Clock) -> None:
    metrics = ServerMetrics("m")
    timer = metrics.track(1, SamplingParams(max_tokens=100), 1)
    for _ in range(30):
        clock.now += 0.02
        timer.on_tokens(1)
    assert 25 <= rendered(metrics)["tokenloom:generation_tokens_total"] <= 30
    timer.finish("length")
    assert rendered(metrics)["tokenloom:generation_tokens_total"] == 30
