"""The load generator: its arithmetic on known records, its clients against a server that follows a script."""

import asyncio
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from server.bench.arrivals import arrival_times
from server.bench.lengths import parse_lengths
from server.bench.load import Run
from server.bench.measure import draw_prompts, measure
from server.bench.options import Options
from server.bench.record import Record
from server.bench.summary import parse_limits, summarise
from server.bench.table import summary_tables
from tests.server.scripted_api import DONE, Body, ScriptedApi, delta, event, text, usage


def record(
    start: float, times: list[float], num_output: int, num_prompt: int = 10, error: str = ""
) -> Record:
    made = Record(start=start, num_prompt_tokens=num_prompt, error=error)
    for time in times:
        made.on_chunk(time, has_text=True)
    made.num_output_tokens = num_output
    return made


def test_metrics_are_those_of_the_definitions() -> None:
    first = record(start=1.0, times=[1.1, 1.2, 1.4], num_output=5)
    second = record(start=1.0, times=[1.3], num_output=1)
    failed = record(start=1.0, times=[1.1, 9.0], num_output=2, error="503")
    summary = summarise(Run([first, second, failed], seconds=2.0), {"ttft": 150.0, "tpot": 80.0})
    assert (summary.completed, summary.failed, summary.errors) == (2, 1, {"503": 1})
    assert (summary.input_tokens, summary.output_tokens) == (20, 6)
    assert (summary.request_throughput, summary.output_throughput, summary.total_throughput) == (
        1.0,
        3.0,
        13.0,
    )
    assert summary.goodput == 0.5
    assert summary.peak_concurrency == 2
    assert summary.peak_output_throughput == pytest.approx(6.0)
    assert summary.ttft_ms is not None
    assert astuple(summary.ttft_ms) == pytest.approx((200.0, 200.0, 280.0, 298.0))
    assert summary.tpot_ms is not None
    assert astuple(summary.tpot_ms) == pytest.approx([0.3 / 4 * 1000] * 4)
    assert summary.itl_ms is not None
    assert summary.itl_ms.mean == pytest.approx(150.0)
    assert summary.itl_ms.median == pytest.approx(150.0)
    assert summary.e2el_ms is not None
    assert summary.e2el_ms.mean == pytest.approx(350.0)


def test_nothing_completed_has_no_latencies() -> None:
    summary = summarise(Run([record(0.0, [], 0, error="connection")], seconds=1.0), {})
    assert (summary.ttft_ms, summary.tpot_ms, summary.itl_ms, summary.e2el_ms, summary.goodput) == (None,) * 5
    assert (summary.peak_concurrency, summary.peak_output_throughput) == (0, 0.0)


def test_the_tables_show_every_number() -> None:
    summary = summarise(
        Run([record(0.0, [0.25, 0.5], 9), record(0.0, [], 0, error="429")], seconds=2.0), {"e2el": 900}
    )
    console = Console(record=True, width=100)
    for table in summary_tables(summary):
        console.print(table)
    shown = console.export_text()
    for part in ("failed: 429", "4.5", "within the limits", "250.00", "500.00", "31.25"):
        assert part in shown


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 200), st.floats(0.1, 1000), st.floats(0.2, 50), st.integers(0, 9))
def test_arrivals_ascend_and_end_on_time(count: int, rate: float, burstiness: float, seed: int) -> None:
    times = arrival_times(np.random.default_rng(seed), count, rate, burstiness)
    assert times.shape == (count,)
    assert (np.diff(times) >= 0).all()
    assert times[-1] == pytest.approx(count / rate)


def test_gaps_have_the_spread_that_was_asked() -> None:
    for burstiness in (0.5, 1.0, 16.0):
        gaps = np.diff(arrival_times(np.random.default_rng(3), 20_000, 10.0, burstiness))
        assert gaps.std() / gaps.mean() == pytest.approx(burstiness**-0.5, rel=0.05)


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 500), st.integers(0, 500), st.integers(0, 9))
def test_lengths_stay_in_their_bounds(low: int, extra: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    high = low + extra
    assert parse_lengths(str(low)).draw(rng, 3) == [low] * 3
    assert all(low <= n <= high for n in parse_lengths(f"uniform:{low}:{high}").draw(rng, 50))
    assert all(1 <= n <= high for n in parse_lengths(f"lognormal:{low}:1.5:{high}").draw(rng, 50))


def test_lognormal_lengths_have_their_median() -> None:
    drawn = parse_lengths("lognormal:200:0.8").draw(np.random.default_rng(1), 20_000)
    assert np.median(drawn) == pytest.approx(200, rel=0.03)


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "0",
        "-3",
        "x",
        "uniform:5",
        "uniform:9:5",
        "lognormal:5:-1",
        "zipf:3:4",
        "nan",
        "inf",
        "uniform:1:inf",
        "lognormal:9:inf",
    ],
)
def test_lengths_that_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match=r"is not a length; accepted: 62"):
        parse_lengths(bad)


@pytest.mark.parametrize("bad", ["ttft", "ttft:x", "ttft:nan", "speed:3", "ttft:5 tpot"])
def test_limits_that_are_refused(bad: str) -> None:
    with pytest.raises(ValueError, match="is not a limit; accepted: ttft:MS"):
        parse_limits([bad])


def test_limits() -> None:
    assert parse_limits(["ttft:200 tpot:50", "e2el:900.5"]) == {"ttft": 200.0, "tpot": 50.0, "e2el": 900.5}


def test_synthetic_prompts_share_only_the_prefix() -> None:
    options = Options(
        prompt_kind="ids", prompt_tokens="uniform:20:30", shared_prefix=8, token_range=(5, 5000)
    )
    prompts = draw_prompts(options, 20)
    contents = [prompt.content for prompt in prompts if isinstance(prompt.content, list)]
    assert len({tuple(content[:8]) for content in contents}) == 1
    assert len({tuple(content[8:16]) for content in contents}) == 20
    assert all(28 <= len(content) <= 38 and min(content) >= 5 and max(content) < 5000 for content in contents)
    assert draw_prompts(options, 20) == prompts


def test_prompts_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "one", "max_tokens": 3}\n\n{"prompt": [1, 2], "note": "x"}\n')
    prompts = draw_prompts(Options(prompts=path, max_tokens="7"), 3)
    assert [(p.content, p.max_tokens) for p in prompts] == [("one", 3), ([1, 2], 7), ("one", 3)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"prompt": 3}\n', "line 1: Expected"),
        ('{"prompt": "a"}\n{\n', "line 2: "),
        ("\n", "no prompts in it"),
    ],
)
def test_prompt_files_that_are_refused(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        draw_prompts(Options(prompts=path), 1)


def answer(body: Body) -> list[bytes | float | int]:
    """Three tokens in two chunks, one after a comment, one sent in two halves; then the usage."""
    split = text(" b c")
    return [b": ping\n\n", text(""), 0.03, text(" a"), 0.05, split[:17], split[17:], usage(5, 3), DONE]


def options_for(url: str, **changes: object) -> Options:
    defaults: dict[str, object] = {"num_requests": 6, "num_warmups": 2, "concurrency": 3, "max_tokens": "3"}
    return Options(url=url, **(defaults | changes))  # type: ignore[arg-type]


async def run_against(api: ScriptedApi, **changes: object) -> Run:
    async with api.serving() as url:
        return await measure(options_for(url, **changes), lambda record: None)


async def test_closed_loop_keeps_its_concurrency_and_measures_the_stream() -> None:
    api = ScriptedApi(answer)
    run = await run_against(api, extra={"top_p": 0.5})
    assert (len(run.records), len(api.bodies), api.most_live) == (6, 8, 3)
    for done in run.records:
        assert (done.error, done.num_prompt_tokens, done.num_output_tokens, len(done.gaps)) == ("", 5, 3, 1)
        assert done.ttft >= 0.03
        assert done.gaps[0] >= 0.045
        assert done.e2el == pytest.approx(done.ttft + done.gaps[0])
        assert done.tpot == pytest.approx(done.gaps[0] / 2)
    wanted = {
        "model": "scripted",
        "max_tokens": 3,
        "stream": True,
        "ignore_eos": True,
        "temperature": 0.0,
        "top_p": 0.5,
    }
    assert wanted.items() <= api.bodies[0].items()
    assert len({str(body["prompt"]) for body in api.bodies}) == 8


async def test_open_loop_sends_by_the_clock() -> None:
    api = ScriptedApi(lambda body: [0.5, text("x"), usage(1, 1), DONE])
    run = await run_against(api, rate=50.0, num_requests=10, concurrency=None, num_warmups=0)
    assert api.most_live == 10
    starts = sorted(done.start for done in run.records)
    assert starts[-1] - starts[0] > 0.02
    assert run.seconds >= 0.7


async def test_open_loop_holds_its_cap() -> None:
    api = ScriptedApi(lambda body: [0.05, text("x"), usage(1, 1), DONE])
    run = await run_against(api, rate=1000.0, num_requests=9, concurrency=2)
    assert (api.most_live, len(run.records)) == (2, 9)


async def test_an_interrupted_load_keeps_what_is_done() -> None:
    api = ScriptedApi(lambda body: [text("x"), usage(1, 1), DONE, 30.0 if len(api.bodies) > 2 else 0.0])
    async with api.serving() as url:
        options = options_for(url, num_warmups=0, concurrency=1)
        task = asyncio.create_task(measure(options, lambda record: None))
        while len(api.bodies) < 3:
            await asyncio.sleep(0.01)
        task.cancel()
        run = await task
    assert run.interrupted
    assert [done.num_output_tokens for done in run.records] == [1, 1]
    assert summarise(run, {}).interrupted


async def test_chat_streams_are_read() -> None:
    role = event({"choices": [{"index": 0, "delta": {"role": "assistant", "content": ""}}]})
    api = ScriptedApi(lambda body: [role, 0.05, delta("a"), delta("b"), usage(9, 2), DONE])
    run = await run_against(api, endpoint="chat", num_requests=1)
    done = run.records[0]
    assert (done.error, done.num_output_tokens, len(done.gaps)) == ("", 2, 1)
    assert done.ttft >= 0.05
    assert [m["role"] for m in api.bodies[0]["messages"]] == ["user"]  # type: ignore[attr-defined]


async def test_tokens_are_counted_by_chunks_without_usage() -> None:
    run = await run_against(ScriptedApi(lambda body: [text("a"), text("b"), DONE]), num_requests=1)
    assert run.records[0].num_output_tokens == 2


@pytest.mark.parametrize(
    ("items", "error", "detail"),
    [
        ([429, b'{"error": {"message": "the queue is full"}}'], "429", "queue is full"),
        ([text("a"), event({"error": {"message": "the engine died"}}), DONE], "stream", "engine died"),
        ([b"data: {oops\n\n"], "stream", "not a chunk"),
        ([DONE], "stream", "without a token"),
        ([text("a"), 3.0], "timeout", "0.3 s"),
    ],
)
async def test_failures_are_recorded_by_cause(
    items: list[bytes | float | int], error: str, detail: str
) -> None:
    run = await run_against(ScriptedApi(lambda body: list(items)), num_requests=2, num_warmups=0, timeout=0.3)
    assert [done.error for done in run.records] == [error] * 2
    assert detail in run.records[0].detail
    assert summarise(run, {}).errors == {error: 2}


async def test_a_dead_server_is_a_connection_error() -> None:
    async with ScriptedApi(answer).serving() as url:
        pass
    run = await measure(options_for(url, model="m", num_warmups=0, num_requests=1), lambda record: None)
    assert run.records[0].error == "connection"
