"""From a checked request to what the engine is asked for: prompts, encoded and cut, and parameters."""

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal

from engine.request import SamplingParams
from server.context import AppContext
from server.errors import bad_request
from server.generation.sampling import prompt_params, sampling_params
from server.generation.wanted import WHOLE, Prompt, TextOptions, Wanted
from server.limits import Limits
from server.schema.chat import ChatRequest
from server.schema.completion import CompletionRequest
from server.schema.fields import Prompt as PromptField
from server.schema.message import Message, Tool
from server.schema.sampling import SamplingRequest
from server.text.echo import echo_prompt
from server.text.errors import TextError
from server.text.template_limits import TooSlow
from server.text.tokenizer import Tokenizer
from server.text.truncation import truncate

DEFAULT_COMPLETION_TOKENS = 16
QUICK_SECONDS = 0.02  # a template may hold up the event loop
QUICK_PARTS = 500  # messages, or parts of them, that are rendered there


async def want_completion(context: AppContext, request: CompletionRequest) -> Wanted:
    """Raises ApiError: 400 for what the model cannot take, 503 when there is no engine."""
    limits = context.limits()
    limits.check_choices(len(request.prompt), request.num_choices)
    limits.check_logprobs("logprobs", request.logprobs)
    limits.check_logprobs("prompt_logprobs", request.prompt_logprobs)
    with bad_text("prompt"):
        encoded = await asyncio.gather(*(_encode(context, request, prompt) for prompt in request.prompt))
    shared = sampling_params(request, limits, context.tokenizer, len(request.prompt))
    prompts = [
        _completion_prompt(context.tokenizer, limits, request, shared, prompt, ids)
        for prompt, ids in zip(request.prompt, encoded, strict=True)
    ]
    return _wanted(context, request, prompts, drops_output=request.max_tokens == 0)


async def want_chat(context: AppContext, request: ChatRequest) -> Wanted:
    """Raises ApiError: 400 for what the model or its template cannot take, 503 when there is no engine."""
    limits = context.limits()
    limits.check_choices(1, request.num_choices)
    limits.check_logprobs("top_logprobs", request.top_logprobs)
    limits.check_logprobs("prompt_logprobs", request.prompt_logprobs)
    with bad_text("messages"):
        text = await render_chat(
            context,
            request.messages,
            tools=request.tools,
            documents=request.documents,
            opens_answer=request.opens_answer,
            continues=bool(request.continue_final_message),
            template_kwargs=request.chat_template_kwargs,
        )
        ids = await context.encoder.encode(text, bool(request.add_special_tokens))
    ids = _cut(request, limits, ids, request.limit or 1, context.tokenizer.first_id)
    sampling = prompt_params(
        sampling_params(request, limits, context.tokenizer, 1),
        max_tokens=limits.room("messages", len(ids), request.limit, None),
        logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        prompt_logprobs=request.prompt_logprobs,
    )
    prompt = Prompt(tuple(ids), sampling, echo=_last_words(request) if request.echo else "")
    return _wanted(context, request, [prompt])


async def render_chat(
    context: AppContext,
    messages: Sequence[Message],
    *,
    tools: Sequence[Tool] | None,
    documents: Sequence[dict[str, str]] | None,
    opens_answer: bool,
    continues: bool,
    template_kwargs: dict[str, object] | None,
) -> str:
    """The prompt's text. Raises TextError, also for tools or documents that the template leaves out.

    What takes longer than the others should wait is begun again in a thread.
    """

    def render_within(
        seconds: float | None,
        tools: list[dict[str, object]] | None,
        documents: Sequence[dict[str, str]] | None,
    ) -> str:
        return context.template.render(
            [message.rendered() for message in messages],
            tools=tools,
            documents=documents,
            add_generation_prompt=opens_answer,
            continue_final_message=continues,
            template_kwargs=template_kwargs,
            max_seconds=seconds,
        )

    async def render(
        tools: list[dict[str, object]] | None, documents: Sequence[dict[str, str]] | None
    ) -> str:
        if num_parts > QUICK_PARTS:
            return await asyncio.to_thread(render_within, None, tools, documents)
        try:
            return render_within(QUICK_SECONDS, tools, documents)
        except TooSlow:
            return await asyncio.to_thread(render_within, None, tools, documents)

    num_parts = sum(len(m.content) if isinstance(m.content, list) else 1 for m in messages)
    described = [tool.model_dump(exclude_unset=True) for tool in tools] if tools else None
    text = await render(described, documents)
    if described and await render(None, documents) == text:
        raise TextError("tools: the chat template of this model leaves tools out", field="tools")
    if documents and await render(described, None) == text:
        raise TextError("documents: the chat template of this model leaves documents out", field="documents")
    return text


@contextmanager
def bad_text(field: str) -> Iterator[None]:
    """A fault of the request's text is the caller's, and belongs to `field` unless it says otherwise."""
    try:
        yield
    except TextError as error:
        raise bad_request(str(error), error.field or field, "invalid_value") from error


async def _encode(context: AppContext, request: CompletionRequest, prompt: PromptField) -> list[int]:
    if isinstance(prompt, str):
        return await context.encoder.encode(prompt, request.add_special_tokens is not False)
    context.tokenizer.check_ids(prompt, "prompt")
    return list(prompt)


def _completion_prompt(
    tokenizer: Tokenizer,
    limits: Limits,
    request: CompletionRequest,
    shared: SamplingParams,
    prompt: PromptField,
    ids: list[int],
) -> Prompt:
    asked = 1 if request.max_tokens == 0 else request.max_tokens
    first_id = tokenizer.first_id if isinstance(prompt, str) else None
    kept = _cut(request, limits, ids, asked or DEFAULT_COMPLETION_TOKENS, first_id)
    echoes_logprobs = bool(request.echo) and request.logprobs is not None
    wanted = (request.logprobs if echoes_logprobs else None, request.prompt_logprobs)
    sampling = prompt_params(
        shared,
        max_tokens=limits.room("prompt", len(kept), asked, DEFAULT_COMPLETION_TOKENS),
        logprobs=None if request.max_tokens == 0 else request.logprobs,
        prompt_logprobs=max((count for count in wanted if count is not None), default=None),
    )
    if not request.echo:
        return Prompt(tuple(kept), sampling)
    echo = echo_prompt(tokenizer, kept)
    is_whole_text = isinstance(prompt, str) and len(kept) == len(ids)
    text = prompt if isinstance(prompt, str) and is_whole_text else echo.text
    return Prompt(tuple(kept), sampling, text, tuple(echo.offsets) if echoes_logprobs else ())


def _cut(
    request: SamplingRequest, limits: Limits, ids: list[int], reserve: int, first_id: int | None
) -> list[int]:
    """The prompt within truncate_prompt_tokens; -1 keeps what leaves room for `reserve` tokens.

    Where it begins with `first_id`, that stays.
    """
    if request.truncate_prompt_tokens is None:
        return ids
    fits = max(1, limits.max_model_len - reserve)
    count = fits if request.truncate_prompt_tokens == -1 else request.truncate_prompt_tokens
    side: Literal["left", "right"] = "right" if request.truncation_side == "right" else "left"
    kept = truncate(ids, count, side)
    return [*ids[:1], *kept[1:]] if ids[:1] == [first_id] else kept


def _last_words(request: ChatRequest) -> str:
    """The text of a final assistant message, which an echo begins with."""
    final = request.messages[-1]
    if final.role != "assistant" or final.content is None:
        return ""
    parts = final.content if isinstance(final.content, list) else [{"text": final.content}]
    return "\n".join(str(part.get("text", "")) for part in parts)


def _wanted(
    context: AppContext, request: SamplingRequest, prompts: list[Prompt], *, drops_output: bool = False
) -> Wanted:
    text = TextOptions(
        stop=request.stop or (),
        include_stop=bool(request.include_stop_str_in_output),
        skip_special_tokens=request.skip_special_tokens is not False,
        user_stop_ids=frozenset(request.stop_token_ids or ()),
        interval=(request.stream_interval or 1) if request.stream else WHOLE,
        drops_output=drops_output,
    )
    return Wanted(
        prompts=tuple(prompts),
        num_choices=request.num_choices,
        text=text,
        priority=request.priority or 0,
        cache_salt=request.cache_salt or "",
        timeout=request.timeout or context.config.server.request_timeout or None,
    )
