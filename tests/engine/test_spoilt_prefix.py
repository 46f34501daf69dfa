"""A request that fails on a prefix which another spoilt: its client has it computed again, with nothing that others made."""

import msgspec
import pytest

from engine.client.client import EngineClient, RequestFailed
from engine.request import Emit, Finish, SamplingParams, Started, Submit
from tests.engine.engine_end import EngineEnd, tokens_of

REASON = "the model's logits are not finite"


def request(client: EngineClient) -> Submit:
    return Submit(id=client.next_id(), prompt=(1, 2, 3), sampling=SamplingParams(), cache_salt="own")


def failure(submit: Submit, num_cached: int) -> Emit:
    """It got a row, and then it failed."""
    started = Started(id=submit.id, num_cached=num_cached, queued=0.0)
    return Emit(step=1, started=(started,), failed={submit.id: REASON})


async def test_it_is_sent_again_with_a_salt_of_its_own(client: EngineClient, engine: EngineEnd) -> None:
    streams = [client.submit(request(client)) for _ in range(2)]
    submits = [await engine.received() for _ in streams]
    for stream in streams:
        engine.emit(failure(stream.submit, 16))
    again = [await engine.received() for _ in streams]
    salts = set()
    for first, second in zip(submits, again, strict=True):
        assert isinstance(first, Submit) and isinstance(second, Submit)
        assert second == msgspec.structs.replace(first, cache_salt=second.cache_salt)
        assert second.cache_salt.startswith("own ")
        salts.add(second.cache_salt)
    assert len(salts) == 2
    engine.emit(tokens_of(2, *((stream.submit.id, 7, Finish.STOP) for stream in streams)))
    for stream in streams:
        assert [output.token_ids async for output in stream] == [[7]]
    assert client.num_streams == 0


async def test_once(client: EngineClient, engine: EngineEnd) -> None:
    stream = client.submit(request(client))
    engine.emit(failure(stream.submit, 16))
    engine.emit(failure(stream.submit, 0))  # under that salt nothing is found
    with pytest.raises(RequestFailed, match="not finite"):
        await anext(stream)
    assert client.num_streams == 0


async def test_what_read_nothing_of_others_or_had_a_token_failed(
    client: EngineClient, engine: EngineEnd
) -> None:
    alone, begun = client.submit(request(client)), client.submit(request(client))
    engine.emit(failure(alone.submit, 0))
    engine.emit(tokens_of(1, (begun.submit.id, 5, Finish.RUNNING)))
    engine.emit(failure(begun.submit, 16))
    with pytest.raises(RequestFailed):
        await anext(alone)
    assert (await anext(begun)).token_ids == [5]
    with pytest.raises(RequestFailed):
        await anext(begun)
