"""An encoder's process with a scripted runner, seen from a client over the real sockets."""

import asyncio

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector

from engine.client.client import EngineClient, EngineDied, RequestFailed, RequestRejected
from engine.request import Encode, SamplingParams, Submit
from tests.engine.engine_end import until
from tests.engine.life import START_SECONDS, Life, is_ready
from tests.engine.scripted_encoder import FAULT, POISON, answer_of


def message(client: EngineClient, num_tokens: int = 5, first: int = 1) -> Encode:
    return Encode(id=client.next_id(), token_ids=tuple(range(first, first + num_tokens)))


def read_metrics(life: Life) -> dict[str, float]:
    registry = CollectorRegistry()
    MultiProcessCollector(registry, str(life.directory))  # type: ignore[no-untyped-call]
    return {sample.name: sample.value for family in registry.collect() for sample in family.samples}


async def test_many_inputs_get_what_each_must_get(life: Life, client: EngineClient) -> None:
    life.start_encoder()
    await is_ready(client)
    info = client.info
    assert info is not None
    assert (info.task, info.kv_tokens, info.block_size) == ("embed", 0, 0)
    assert info.memory == {"weights": 1234}
    messages = [message(client, num_tokens, first=3 * num_tokens) for num_tokens in range(1, 120)]
    bad = client.encode(Encode(id=client.next_id(), token_ids=(1, POISON)))
    answers = [client.encode(asked) for asked in messages]
    got = await asyncio.gather(*(answer.result() for answer in answers))
    assert [values.tolist() for values in got] == [
        np.array(answer_of(asked), np.float32).tolist() for asked in messages
    ]
    assert all(answer.started is not None and answer.started.queued >= 0 for answer in answers)
    with pytest.raises(RequestFailed, match=FAULT):
        await bad.result()
    await until(lambda: client.status is not None and client.status.num_running == 0)
    assert client.status is not None and client.status.kv_usage == 0.0


async def test_killed_before_it_answered_the_next_one_is_asked(life: Life, client: EngineClient) -> None:
    process = life.start_encoder(step_seconds=5.0)  # one that came late is accepted after it
    await is_ready(client)
    answers = [client.encode(message(client, num_tokens)) for num_tokens in (40, 50, 60)]
    await asyncio.gather(*(answer.accepted() for answer in answers))
    process.kill()
    process.join()
    client.down("was killed")
    client.up(2)
    life.start_encoder(epoch=2)
    for answer in answers:
        values = await asyncio.wait_for(answer.result(), START_SECONDS)
        assert isinstance(answer.message, Encode)
        assert values.tolist() == answer_of(answer.message)
    assert client.status is not None and client.status.epoch == 2


async def test_steps_are_in_the_metrics_and_no_cache_is(life: Life, client: EngineClient) -> None:
    life.start_encoder()
    await is_ready(client)
    answers = [client.encode(message(client, num_tokens)) for num_tokens in (5, 6, 70)]
    await asyncio.gather(*(answer.result() for answer in answers))
    # A step is counted a moment after its answers left, one metric after the other: its time is the last.
    await until(lambda: read_metrics(life)["tokenloom:step_rows_sum"] == 3)
    await until(lambda: read_metrics(life)["tokenloom:step_time_seconds_count"] >= 2)
    found = read_metrics(life)
    assert found["tokenloom:iteration_tokens_total_sum"] == 81
    assert found["tokenloom:kv_cache_usage_perc"] == 0
    assert "tokenloom:cache_config_info" not in found


async def test_a_prompt_sent_to_an_encoder_fails_in_words(life: Life, client: EngineClient) -> None:
    life.start_encoder()
    await is_ready(client)
    stream = client.submit(Submit(id=client.next_id(), prompt=(1, 2), sampling=SamplingParams()))
    with pytest.raises(RequestFailed, match="generates no text"):
        await anext(stream)
    asked = message(client)
    assert (await client.encode(asked).result()).tolist() == answer_of(asked)


async def test_an_input_sent_to_a_decoder_fails_in_words(life: Life, client: EngineClient) -> None:
    life.start()
    await is_ready(client)
    with pytest.raises(RequestFailed, match="encodes no inputs"):
        await client.encode(message(client)).result()
    assert client.state == "ready"


async def test_sigterm_answers_what_waits_and_refuses_what_comes(life: Life, client: EngineClient) -> None:
    process = life.start_encoder(step_seconds=0.2)
    await is_ready(client)
    answers = [client.encode(message(client, 60)) for _ in range(4)]  # a step each
    await asyncio.gather(*(answer.accepted() for answer in answers))
    process.terminate()
    await until(lambda: client.state == "draining")
    with pytest.raises(RequestRejected, match="draining"):
        await client.encode(message(client)).result()
    got = await asyncio.gather(*(answer.result() for answer in answers))
    assert [values[0] for values in got] == [60.0] * 4
    await until(lambda: not process.is_alive())
    assert process.exitcode == 0


async def test_closing_the_client_ends_every_wait(life: Life, client: EngineClient) -> None:
    life.start_encoder(step_seconds=5.0)
    await is_ready(client)
    reader = asyncio.create_task(client.encode(message(client)).result())
    await asyncio.sleep(0.01)
    client.close()
    with pytest.raises(EngineDied, match="shutting down"):
        await reader
