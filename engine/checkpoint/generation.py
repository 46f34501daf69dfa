"""How a model's makers want its tokens picked: what a request gets that does not say."""

from engine.checkpoint.fields import Fields
from engine.request import SamplingParams

_KEYS = "temperature", "top_k", "top_p", "min_p", "repetition_penalty"
_GGUF_KEYS = tuple(f"general.sampling.{key}" for key in ("temp", "top_k", "top_p", "min_p", "penalty_repeat"))
_LEAST = 1e-6  # of what must be above 0


def read_generation(fields: Fields) -> SamplingParams:
    """generation_config.json's. How long an answer may be, a request says alone."""
    return _read(fields, *_KEYS)


def read_gguf_generation(fields: Fields) -> SamplingParams:
    """A GGUF file's."""
    return _read(fields, *_GGUF_KEYS)


def _read(
    fields: Fields, temperature: str, top_k: str, top_p: str, min_p: str, repetition_penalty: str
) -> SamplingParams:
    return SamplingParams(
        temperature=_number(fields, temperature, 1.0, 0.0, 2.0),
        top_k=0 if fields.get(top_k) == -1 else fields.count(top_k, 0),  # both are off
        top_p=_number(fields, top_p, 1.0, _LEAST, 1.0),
        min_p=_number(fields, min_p, 0.0, 0.0, 1.0),
        repetition_penalty=_number(fields, repetition_penalty, 1.0, _LEAST, 1e6),
    )


def _number(fields: Fields, key: str, default: float, low: float, high: float) -> float:
    value = fields.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise fields.refuse(key, value, f"a number from {low:g} to {high:g}")
    return float(value)
