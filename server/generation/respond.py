"""From an understood request to the response, whole or as a stream, as long as its client is there."""

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import Any, Protocol, TypeVar

import msgspec
from msgspec import UNSET, UnsetType
from starlette.requests import Request
from starlette.responses import Response

from server.auth.call import call_of
from server.context import AppContext
from server.exchange import note_work
from server.generation.choice import Piece
from server.generation.generate import Generation
from server.generation.wanted import Wanted
from server.guard import guarded
from server.limits import read_body
from server.openapi import REF
from server.schema.answer import Usage
from server.schema.parse import RequestModel, parse
from server.schema.sampling import SamplingRequest, StreamOptions
from server.sse import EventStream, event

RequestT = TypeVar("RequestT", bound=RequestModel)


class Shape(Protocol):
    """How an endpoint writes its answer."""

    def chunks(self, piece: Piece, usage: Usage | None | UnsetType) -> list[msgspec.Struct]:
        """The events of a stream that tell one piece."""
        ...

    def usage_chunk(self, usage: Usage) -> msgspec.Struct:
        """The event that tells the usage alone."""
        ...

    def whole(self, pieces: list[Piece], usage: Usage) -> msgspec.Struct:
        """The answer in one: a piece a choice, in order."""
        ...


async def receive(context: AppContext, http: Request, model: type[RequestT]) -> RequestT:
    """The request's body, checked. Raises ApiError (400, 413, 415)."""
    return parse(model, await read_body(http, context.config.server.max_body_bytes))


def body_schema(model: type[RequestModel]) -> dict[str, Any]:
    """What the OpenAPI document says of a body that the route reads by itself."""
    content = {"application/json": {"schema": model.model_json_schema(ref_template=REF.format("{model}"))}}
    return {"requestBody": {"required": True, "content": content}}


def json_response(answer: msgspec.Struct | Sequence[object]) -> Response:
    return Response(msgspec.json.encode(answer), media_type="application/json")


async def respond(
    context: AppContext,
    http: Request,
    request: SamplingRequest,
    wanted: Wanted,
    shape_of: Callable[[Generation], Shape],
) -> Response:
    """Sends it to the engine and answers it. Raises ApiError for what fails before an answer begins."""
    call = call_of(http)
    priority = call.admit(wanted.num_prompt_tokens, wanted.priority)
    salt = call.salted(wanted.cache_salt)
    generation = Generation(context, replace(wanted, priority=priority, cache_salt=salt, owner=call.key_name))
    call.attach(generation)
    note_work(http, generation)
    shape = shape_of(generation)
    if not request.stream:
        pieces = await guarded(http, generation, _read_whole(generation))
        return json_response(shape.whole(pieces, generation.usage()))
    await guarded(http, generation, generation.accepted())
    return EventStream(
        _events(generation, shape, request.stream_options or StreamOptions()),
        deadline=generation.deadline,
        ping_seconds=context.config.server.ping_seconds,
        on_fault=generation.fault,
        on_close=lambda gone: generation.close("disconnect" if gone else "ended"),
    )


async def _read_whole(generation: Generation) -> list[Piece]:
    await generation.accepted()
    async with aclosing(generation.pieces()) as pieces:
        return sorted([piece async for piece in pieces], key=lambda piece: piece.index)


async def _events(
    generation: Generation, shape: Shape, options: StreamOptions
) -> AsyncGenerator[bytes, None]:
    no_usage = None if options.include_usage else UNSET
    async with aclosing(generation.pieces()) as pieces:
        async for piece in pieces:
            usage = generation.usage() if options.continuous_usage_stats else no_usage
            yield b"".join([event(chunk) for chunk in shape.chunks(piece, usage)])
    if options.include_usage:
        yield event(shape.usage_chunk(generation.usage()))
