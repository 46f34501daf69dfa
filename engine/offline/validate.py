"""Checks of prompts and sampling parameters, for those that enter without the HTTP schema."""

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from engine.config import check_types
from engine.request import MAX_STOP_IDS, SamplingParams

Message = Mapping[str, object]
INFINITY = math.inf
BOUNDS: dict[str, tuple[float, float]] = {
    "max_tokens": (1, INFINITY),
    "min_tokens": (0, INFINITY),
    "temperature": (0, 2),
    "top_k": (0, INFINITY),
    "top_p": (1e-9, 1),
    "min_p": (0, 1),
    "repetition_penalty": (1e-9, 1e9),
    "presence_penalty": (-2, 2),
    "frequency_penalty": (-2, 2),
    "seed": (-(1 << 63), (1 << 63) - 1),
}


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """What bounds a request."""

    vocab_size: int
    max_model_len: int
    max_logprobs: int


def check_sampling(params: SamplingParams, limits: ModelLimits) -> None:
    """Raises ValueError that names the field, its value and what is accepted."""
    for name, (low, high) in BOUNDS.items():
        _check_number(name, getattr(params, name), low, high)
    _check_number("min_tokens", params.min_tokens, 0, params.max_tokens)
    for name, count in (("logprobs", params.logprobs), ("prompt_logprobs", params.prompt_logprobs)):
        if count is not None:
            _check_number(name, count, 0, limits.max_logprobs)
    for bias in params.logit_bias.values():
        _check_number("logit_bias", bias, -100, 100)
    _check_ids("logit_bias", params.logit_bias, limits)
    _check_ids("allowed_token_ids", params.allowed_token_ids, limits)
    _check_ids("banned_token_ids", params.banned_token_ids, limits)
    _check_ids("stop_token_ids", params.stop_token_ids, limits)


def check_stop_ids(own: tuple[int, ...], eos_ids: tuple[int, ...]) -> None:
    """Raises ValueError for more than fit beside the model's own."""
    num_eos = len(set(eos_ids))
    count = len({*own, *eos_ids}) - num_eos
    if count > MAX_STOP_IDS - num_eos:
        raise ValueError(
            f"stop_token_ids has {count} ids; accepted: at most {MAX_STOP_IDS - num_eos} "
            f"beside the model's own {num_eos}"
        )


def check_prompt(place: int, token_ids: tuple[int, ...], max_tokens: int, limits: ModelLimits) -> None:
    """Raises ValueError for a prompt without tokens, with foreign ones, or without room for an answer."""
    if not token_ids:
        raise ValueError(f"prompt {place} has no tokens; accepted: at least 1")
    _check_ids(f"prompt {place}", token_ids, limits)
    room = limits.max_model_len - len(token_ids)
    if max_tokens > room:
        raise ValueError(
            f"prompt {place} has {len(token_ids)} tokens and max_tokens is {max_tokens}; "
            f"accepted: together at most {limits.max_model_len}"
        )


def check_input(place: int, token_ids: Sequence[int], limits: ModelLimits) -> None:
    """Raises ValueError for an encoder's input without tokens, with foreign ones, or with too many."""
    if not 0 < len(token_ids) <= limits.max_model_len:
        raise ValueError(f"input {place} has {len(token_ids)} tokens; accepted: 1 to {limits.max_model_len}")
    _check_ids(f"input {place}", token_ids, limits)


def read_ids(place: int, body: object) -> tuple[int, ...]:
    """The token ids of what is no text; numpy's and torch's integers too. Raises ValueError for anything else."""
    try:
        if isinstance(body, Iterable) and not isinstance(body, bytes):
            return tuple(map(operator.index, body))
    except TypeError:
        pass
    raise ValueError(f"prompt {place} is {body!r:.80}; accepted: a text, or a list of token ids")


def read_conversations(messages: Sequence[Message] | Sequence[Sequence[Message]]) -> list[list[Message]]:
    """One conversation, or several. Raises ValueError for what is neither."""
    one = [entry for entry in messages if isinstance(entry, Mapping)]
    several = [list(entry) for entry in messages if not isinstance(entry, Mapping | str)]
    if len(several) == len(messages):
        return several
    if len(one) == len(messages):
        return [one]
    raise ValueError(
        f"messages is {messages!r:.80}; accepted: [{{'role': 'user', 'content': 'Hi'}}], or a list of such lists"
    )


def spread_params(params: SamplingParams | Sequence[SamplingParams], count: int) -> list[SamplingParams]:
    """One for each of `count` prompts; one for all is repeated. Raises ValueError for any other number or type."""
    given = [params] if isinstance(params, SamplingParams) else list(params)
    for entry in given:
        if not isinstance(entry, SamplingParams):
            raise ValueError(f"params is or has {entry!r:.80}; accepted: SamplingParams, one or one a prompt")
        check_types(entry)
    if isinstance(params, SamplingParams):
        return given * count
    if len(given) != count:
        raise ValueError(
            f"params has {len(given)} entries for {count} prompts; accepted: one, or one a prompt"
        )
    return given


def _check_number(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ValueError(f"{name} = {value!r} is not accepted; accepted: {low:g} to {high:g}")


def _check_ids(name: str, token_ids: Iterable[int], limits: ModelLimits) -> None:
    for token_id in token_ids:
        if not 0 <= token_id < limits.vocab_size:
            raise ValueError(
                f"{name} = {token_id!r} is not a token id; accepted: 0 to {limits.vocab_size - 1}"
            )
