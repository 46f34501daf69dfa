"""From the fields of a request to the engine's sampling parameters."""

import secrets

import msgspec

from engine.request import MAX_STOP_IDS, SamplingParams
from server.errors import bad_request, shown
from server.limits import Limits
from server.schema.sampling import SamplingRequest
from server.text.tokenizer import Tokenizer

MAX_SEED = 2**63 - 1


def sampling_params(
    request: SamplingRequest, limits: Limits, tokenizer: Tokenizer, num_prompts: int
) -> SamplingParams:
    """What a request's prompts share, checked against the model. Raises ApiError (400)."""
    _check(request, limits, num_prompts * request.num_choices)
    own = limits.sampling
    params = SamplingParams(
        min_tokens=request.min_tokens or 0,
        temperature=_temperature(request, own.temperature),
        top_k=_top_k(own.top_k if request.top_k is None else request.top_k, limits.vocab_size),
        top_p=_default(request.top_p, own.top_p),
        min_p=_default(request.min_p, own.min_p),
        repetition_penalty=_default(request.repetition_penalty, own.repetition_penalty),
        presence_penalty=_default(request.presence_penalty, 0.0),
        frequency_penalty=_default(request.frequency_penalty, 0.0),
        logit_bias=request.logit_bias or {},
        allowed_token_ids=_unique(request.allowed_token_ids),
        banned_token_ids=_banned(request.bad_words, tokenizer),
        stop_token_ids=_stop_ids(request, tokenizer),
        seed=_seed(request.seed),
    )
    _check_leaves_tokens(params)
    return params


def prompt_params(
    shared: SamplingParams, *, max_tokens: int, logprobs: int | None, prompt_logprobs: int | None
) -> SamplingParams:
    """One prompt's parameters. Raises ApiError (400)."""
    if shared.min_tokens > max_tokens:
        message = f"min_tokens: must be at most max_tokens ({max_tokens}), got {shared.min_tokens}"
        raise bad_request(message, "min_tokens", "invalid_value")
    return msgspec.structs.replace(
        shared, max_tokens=max_tokens, logprobs=logprobs, prompt_logprobs=prompt_logprobs
    )


def seed_of_choice(seed: int, choice: int) -> int:
    """Each of n choices draws its own numbers, and the first the same as a request with n=1."""
    return (seed + choice) & MAX_SEED


def _check(request: SamplingRequest, limits: Limits, num_requests: int) -> None:
    limits.check_entries("logit_bias", len(request.logit_bias or ()), num_requests)
    limits.check_entries("allowed_token_ids", len(request.allowed_token_ids or ()), num_requests)
    limits.check_token_ids("logit_bias", request.logit_bias or ())
    limits.check_token_ids("allowed_token_ids", request.allowed_token_ids or ())
    limits.check_token_ids("stop_token_ids", request.stop_token_ids or ())
    limits.check_priority(request.priority)


def _check_leaves_tokens(params: SamplingParams) -> None:
    """Stop tokens cannot be picked while fewer than min_tokens were."""
    barred = {*params.banned_token_ids, *(params.stop_token_ids if params.min_tokens else ())}
    if params.allowed_token_ids and barred.issuperset(params.allowed_token_ids):
        message = "allowed_token_ids: bad_words and min_tokens leave none of them to pick"
        raise bad_request(message, "allowed_token_ids", "invalid_value")


def _stop_ids(request: SamplingRequest, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The request's own behind the model's, unless those are to be ignored."""
    eos_ids = () if request.ignore_eos else _unique(list(tokenizer.special.eos_ids))
    both = _unique([*eos_ids, *(request.stop_token_ids or ())])
    if len(both) > MAX_STOP_IDS:
        message = f"stop_token_ids: at most {MAX_STOP_IDS - len(eos_ids)} are accepted"
        message += f" beside the model's own {len(eos_ids)}" if eos_ids else ""
        got = len(both) - len(eos_ids)
        raise bad_request(f"{message}, got {got}", "stop_token_ids", "invalid_value")
    return both


def _default(value: float | None, default: float) -> float:
    return default if value is None else value


def _temperature(request: SamplingRequest, own: float) -> float:
    return 0.0 if request.is_greedy else _default(request.temperature, own)


def _top_k(value: int, vocab_size: int) -> int:
    """A k of the whole vocabulary cuts nothing off."""
    return 0 if value < 1 or value >= vocab_size else value


def _unique(ids: list[int] | None) -> tuple[int, ...]:
    return tuple(dict.fromkeys(ids or ()))


def _seed(seed: int | None) -> int:
    return secrets.randbits(63) if seed is None or seed == -1 else seed & MAX_SEED


def _banned(words: list[str] | None, tokenizer: Tokenizer) -> tuple[int, ...]:
    """The tokens of words to keep out, with and without a space before them. Longer words are refused."""
    banned = [_word_token(word, place, tokenizer) for place, word in enumerate(words or ())]
    return _unique([token for pair in banned for token in pair])


def _word_token(word: str, place: int, tokenizer: Tokenizer) -> tuple[int, ...]:
    bare = word.lstrip(" ")
    spellings = [tokenizer.encode(text, add_special_tokens=False) for text in (bare, " " + bare)]
    if any(len(ids) != 1 for ids in spellings):
        message = (
            f"bad_words: item {place}, {shown(word)}, is not one token with and one without a space before"
        )
        raise bad_request(f"{message}; only such words are accepted", "bad_words", "unsupported_value")
    return tuple(ids[0] for ids in spellings)
