"""From a checked request to what an encoder is asked for: texts, prompts before them, encoded and cut."""

from collections.abc import Callable, Iterable, Sequence

from server.context import AppContext, Reading
from server.encoding.wanted import Wanted
from server.errors import bad_request, shown
from server.generation.prepare import bad_text
from server.limits import Limits
from server.schema.encoding import EncodingRequest, InputRequest
from server.schema.sampling import INT32_MAX
from server.text.input_tokenizer import Encoded
from server.text.truncation import Cut, TextInput, truncate

_QUERY, _DOCUMENT = ("query",), ("document", "passage", "corpus")  # prompts that models bring for them


async def want_inputs(
    context: AppContext,
    reading: Reading,
    request: InputRequest,
    prompt_name: str | None = None,
    field: str = "input",
) -> Wanted:
    """One input each. `prompt_name`: the model's prompt to put before texts; None: its default, if it has one.

    Raises ApiError: 400 for what the model cannot take, 503 when there is no engine.
    """
    limits = _limits(context, request, field, len(request.input))
    prompt = _prompt(reading, prompt_name)
    texts = [prompt + text for text in request.input if isinstance(text, str)]
    add_special_tokens = request.add_special_tokens is not False
    cut = _cut(request, limits)
    with bad_text(field):
        read = iter(await reading.inputs.encode(texts, add_special_tokens, cut))
        inputs = [
            next(read) if isinstance(text, str) else _given(reading, text, cut, field)
            for text in request.input
        ]
    _check(limits, field, inputs, "item {}".format)
    return _wanted(context, reading, request, inputs)


async def want_pairs(
    context: AppContext,
    reading: Reading,
    request: EncodingRequest,
    field: str,
    pairs: Sequence[TextInput],
    max_last: int | None = None,
) -> Wanted:
    """One input a pair, or a text alone. `field` has the second texts, which keep at most `max_last` tokens."""
    limits = _limits(context, request, field, len(pairs))
    with bad_text(field):
        inputs = await reading.inputs.encode(pairs, True, _cut(request, limits, max_last))
    _check(limits, field, inputs, "item {} with its other half".format)
    return _wanted(context, reading, request, inputs)


async def want_sides(
    context: AppContext,
    reading: Reading,
    request: EncodingRequest,
    names: tuple[str, str],
    sides: tuple[Sequence[str], Sequence[str]],
    max_last: int | None = None,
) -> Wanted:
    """One input a text, those of the left side first: queries, then documents, with the prompts for them."""
    limits = _limits(context, request, names[1], len(sides[0]) + len(sides[1]))
    inputs: list[Encoded] = []
    for field, texts, roles, kept in zip(names, sides, (_QUERY, _DOCUMENT), (None, max_last), strict=True):
        prompt = _role_prompt(reading, roles)
        with bad_text(field):
            texts = [prompt + text for text in texts]
            read = await reading.inputs.encode(texts, True, _cut(request, limits, kept))
        _check(limits, field, read, "item {}".format)
        inputs += read
    return _wanted(context, reading, request, inputs)


def _limits(context: AppContext, request: EncodingRequest, field: str, count: int) -> Limits:
    limits = context.limits()
    limits.check_inputs(field, count)
    limits.check_priority(request.priority)
    return limits


def _cut(request: EncodingRequest, limits: Limits, max_last: int | None = None) -> Cut | None:
    count = request.max_tokens
    if count is None and max_last is None:
        return None
    max_tokens = INT32_MAX if count is None else limits.max_model_len if count == -1 else count
    return Cut(max_tokens, request.cut_side, max_last)


def _given(reading: Reading, token_ids: tuple[int, ...], cut: Cut | None, field: str) -> Encoded:
    """Token ids are taken as they are: special ones are the caller's affair."""
    reading.tokenizer.check_ids(token_ids, field)
    kept = list(token_ids)
    return Encoded(kept if cut is None else truncate(kept, cut.max_tokens, cut.side), [])


def _check(limits: Limits, field: str, inputs: Iterable[Encoded], subject: Callable[[int], str]) -> None:
    for place, encoded in enumerate(inputs):
        limits.check_input(field, subject(place), len(encoded.token_ids))


def _prompt(reading: Reading, name: str | None) -> str:
    prompts, default = reading.config.prompts, reading.config.default_prompt_name
    if name is None:
        return prompts.get(default, "") if default is not None else ""
    if name not in prompts:
        known = ", ".join(sorted(prompts)) or "none, for this model"
        raise bad_request(
            f"prompt_name: {shown(name)} is unknown; accepted: {known}", "prompt_name", "invalid_value"
        )
    return prompts[name]


def _role_prompt(reading: Reading, roles: Iterable[str]) -> str:
    for role in roles:
        if role in reading.config.prompts:
            return reading.config.prompts[role]
    return _prompt(reading, None)


def _wanted(
    context: AppContext, reading: Reading, request: EncodingRequest, inputs: Sequence[Encoded]
) -> Wanted:
    return Wanted(
        inputs=tuple(_with_known_types(reading, encoded) for encoded in inputs),
        priority=request.priority or 0,
        timeout=request.timeout or context.config.server.request_timeout or None,
    )


def _with_known_types(reading: Reading, encoded: Encoded) -> Encoded:
    """A tokenizer tells segments apart for models that do not, too."""
    if not encoded.type_ids or reading.config.num_types > 1:
        return encoded
    return Encoded(encoded.token_ids, [])
