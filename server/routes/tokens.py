"""POST /tokenize and POST /detokenize."""

import asyncio

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.context import AppContext
from server.generation.prepare import bad_text, render_chat
from server.generation.respond import body_schema, json_response, receive
from server.schema.answer import Text, Tokens
from server.schema.tokens import DetokenizeRequest, TokenizeRequest


def token_routes(context: AppContext) -> APIRouter:
    router = APIRouter()

    @router.post("/tokenize", openapi_extra=body_schema(TokenizeRequest))
    async def tokenize(http: Request) -> Response:
        """The token ids of a text, or of a conversation as the model's template renders it."""
        request = await receive(context, http, TokenizeRequest)
        context.check_model(request.model)
        ids = await _encode(context, request)
        pieces = await asyncio.to_thread(_pieces, context, ids) if request.return_token_strs else None
        max_model_len = context.engine_info().max_model_len
        return json_response(
            Tokens(count=len(ids), max_model_len=max_model_len, tokens=ids, token_strs=pieces)
        )

    @router.post("/detokenize", openapi_extra=body_schema(DetokenizeRequest))
    async def detokenize(http: Request) -> Response:
        """The text of token ids, special tokens included."""
        request = await receive(context, http, DetokenizeRequest)
        context.check_model(request.model)
        with bad_text("tokens"):
            return json_response(Text(prompt=await asyncio.to_thread(_decode, context, request.tokens)))

    return router


def _pieces(context: AppContext, ids: list[int]) -> list[str]:
    return [context.tokenizer.token_piece(token_id) for token_id in ids]


def _decode(context: AppContext, ids: list[int]) -> str:
    context.tokenizer.check_ids(ids, "tokens")
    return context.tokenizer.decode(ids, skip_special_tokens=False)


async def _encode(context: AppContext, request: TokenizeRequest) -> list[int]:
    """By default special tokens are added to a text, and not to a conversation, whose template has them."""
    if request.prompt is not None:
        with bad_text("prompt"):
            return await context.encoder.encode(request.prompt, request.add_special_tokens is not False)
    with bad_text("messages"):
        text = await render_chat(
            context,
            request.messages or [],
            tools=request.tools,
            documents=None,
            opens_answer=not request.continue_final_message and request.add_generation_prompt is not False,
            continues=bool(request.continue_final_message),
            template_kwargs=request.chat_template_kwargs,
        )
        return await context.encoder.encode(text, bool(request.add_special_tokens))
