"""The engine's process with a scripted runner, seen from a client over the real sockets."""

import asyncio
import multiprocessing
import os
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path

import msgspec
import psutil
import pytest

from engine import wire
from engine.client.client import EngineClient, EngineDied, RequestRejected, Stream
from engine.client.link import Link
from engine.config import EngineConfig
from engine.process.load import Loaded, ModelRefused
from engine.process.process import Place, run_engine
from engine.request import ClientGone, SamplingParams, Submit
from engine.startup import StartupReport
from tests.engine.engine_end import until
from tests.engine.life import START_SECONDS, Life, is_ready
from tests.engine.scripted_runner import answer


def request(client: EngineClient, max_tokens: int, num_prompt: int = 5) -> Submit:
    prompt = tuple(range(1, num_prompt + 1))
    return Submit(id=client.next_id(), prompt=prompt, sampling=SamplingParams(max_tokens=max_tokens))


async def collect(stream: Stream) -> list[int]:
    return [token async for output in stream for token in output.token_ids]


async def test_many_requests_get_what_each_must_get(life: Life, client: EngineClient) -> None:
    life.start()
    await is_ready(client)
    assert client.info is not None
    assert client.info.phases.keys() >= {"load"} and client.info.memory == {"weights": 1234}
    streams = [
        client.submit(request(client, max_tokens, num_prompt=3 * max_tokens)) for max_tokens in range(1, 30)
    ]
    got = await asyncio.gather(*(collect(stream) for stream in streams))
    assert got == [answer(stream.submit.prompt, stream.submit.sampling.max_tokens) for stream in streams]
    assert all(stream.started is not None and stream.started.queued >= 0 for stream in streams)
    await until(lambda: client.status is not None and client.status.num_running == 0)


async def test_killed_in_mid_stream(life: Life, client: EngineClient) -> None:
    process = life.start(step_seconds=0.01)
    await is_ready(client)
    streaming = client.submit(request(client, 500))
    first = await anext(streaming)
    waiting = client.submit(request(client, 3, num_prompt=1500))  # its prompt alone takes 24 steps
    await waiting.accepted()
    process.kill()
    process.join()
    client.down("was killed")
    got = first.token_ids
    with pytest.raises(EngineDied):
        async for output in streaming:
            got += output.token_ids
    assert got == answer(streaming.submit.prompt, len(got)), "what had arrived is right"
    client.up(2)
    life.start(epoch=2)
    assert await asyncio.wait_for(collect(waiting), START_SECONDS) == answer(waiting.submit.prompt, 3)
    assert client.status is not None and client.status.epoch == 2


async def test_stopped_engine_is_unhealthy_within_seconds(life: Life, client: EngineClient) -> None:
    process = life.start()
    await is_ready(client)
    assert process.pid is not None and client.healthy(1.0)[0]
    os.kill(process.pid, signal.SIGSTOP)
    began = time.monotonic()
    await until(lambda: not client.healthy(60.0)[0], 5.0)
    assert time.monotonic() - began > 2.0
    assert "no heart-beat" in client.healthy(60.0)[1]
    os.kill(process.pid, signal.SIGCONT)
    await until(lambda: client.healthy(60.0)[0])


async def test_a_step_that_hangs_is_unhealthy_though_the_heart_beats(
    life: Life, client: EngineClient
) -> None:
    life.start(step_seconds=30.0)
    await is_ready(client)
    stream = client.submit(request(client, 3))
    await stream.accepted()
    await until(lambda: not client.healthy(0.5)[0])
    assert "no step" in client.healthy(0.5)[1]


async def test_an_idle_engine_sleeps(life: Life, client: EngineClient) -> None:
    process = life.start()
    await is_ready(client)
    await collect(client.submit(request(client, 20)))
    await asyncio.sleep(0.2)
    watched = psutil.Process(process.pid)
    before = watched.cpu_times()
    await asyncio.sleep(2.0)
    after = watched.cpu_times()
    assert (after.user + after.system) - (before.user + before.system) <= 0.04


async def test_sigterm_finishes_what_runs_and_refuses_what_comes(life: Life, client: EngineClient) -> None:
    process = life.start(step_seconds=0.01)
    await is_ready(client)
    stream = client.submit(request(client, 60))
    await anext(stream)
    process.terminate()
    await until(lambda: client.state == "draining")
    late = client.submit(request(client, 1))
    with pytest.raises(RequestRejected, match="draining"):
        await late.accepted()
    rest = await collect(stream)
    assert stream.ended and len(rest) >= 50
    await until(lambda: not process.is_alive())
    assert process.exitcode == 0


async def test_requests_of_a_dead_server_process_leave(life: Life, client: EngineClient) -> None:
    life.start(step_seconds=0.01)
    await is_ready(client)
    streams = [client.submit(request(client, 1500)) for _ in range(3)]
    await asyncio.gather(*(anext(stream) for stream in streams))
    await until(lambda: client.status is not None and client.status.num_running == 3)
    supervisor = Link(life.endpoint, wire.SUPERVISOR, lambda payload: None, lambda payload: None)
    supervisor.open(1)
    supervisor.send(msgspec.msgpack.encode(ClientGone(client=3)))
    await until(lambda: client.status is not None and client.status.num_running == 0)
    supervisor.close()


async def test_an_aborted_request_leaves_its_row(life: Life, client: EngineClient) -> None:
    life.start(step_seconds=0.01)
    await is_ready(client)
    stream = client.submit(request(client, 1500))
    await anext(stream)
    stream.abort("disconnect")
    other = client.submit(request(client, 2))
    assert await collect(other) == answer(other.submit.prompt, 2)
    await until(lambda: client.status is not None and client.status.num_running == 0)


def refuse(config: EngineConfig, report: StartupReport) -> Loaded:
    raise ModelRefused(f"model {config.model!r}: there is no such thing")


def test_a_refused_model_is_explained_without_a_traceback(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    place = Place(f"ipc://{tmp_path}/engine", 1, tmp_path)
    config = EngineConfig(model="nonsense")
    process = multiprocessing.get_context("spawn").Process(target=run_engine, args=(config, place, refuse))
    process.start()
    process.join(START_SECONDS)
    assert process.exitcode == 1
    assert capfd.readouterr().err == "error: model 'nonsense': there is no such thing\n"
    process.close()


def test_settings_that_do_not_fit_the_runner_are_explained(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    life = Life(tmp_path)
    config = EngineConfig(max_model_len=2048, kv_tokens=1024, threads=1)
    process = life.start(config=config)
    process.join(START_SECONDS)
    assert process.exitcode == 1
    error = capfd.readouterr().err
    assert error.startswith("error: max_model_len = 2048 is not accepted; accepted: 1 to the 1024 tokens")
    assert error.count("\n") == 1
    life.close()


def spawn_and_die(directory: str, sender: "Connection[int, int]") -> None:
    """A parent that leaves an engine behind, killed without a word."""
    life = Life(Path(directory))
    pid = life.start().pid
    assert pid is not None
    sender.send(pid)
    time.sleep(60)


async def test_an_orphan_ends_and_cleans_up(tmp_path: Path) -> None:
    directory = tmp_path / "place"
    directory.mkdir()
    receiver, sender = multiprocessing.Pipe(duplex=False)
    parent = multiprocessing.get_context("spawn").Process(target=spawn_and_die, args=(str(directory), sender))
    parent.start()
    await until(receiver.poll, START_SECONDS)
    orphan = receiver.recv()
    await until(lambda: any(directory.iterdir()), START_SECONDS)
    parent.kill()
    parent.join()
    parent.close()
    await until(lambda: not psutil.pid_exists(orphan) or psutil.Process(orphan).status() == "zombie")
    assert not directory.exists()
    receiver.close()
    sender.close()
