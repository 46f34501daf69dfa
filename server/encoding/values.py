"""From an encoder's values to what is answered: vectors written out, scores, similarities."""

from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from engine.checkpoint import Activation, EncoderConfig, Similarity
from server.errors import bad_request
from server.schema.encoded import Written
from server.schema.encoding import EncodingFormat

Values = npt.NDArray[np.float32]  # of one input, flat; engine.request.Task says what they are


def write(values: Values, encoding_format: EncodingFormat | None) -> Written:
    """As base64 of float32, little-endian, or as (nested) lists of numbers."""
    if encoding_format == "base64":
        return np.ascontiguousarray(values, "<f4").tobytes()
    return msgspec.Raw(msgspec.json.encode(values.tolist()))


def as_is(values: Values) -> Values:
    return values


def cutter(config: EncoderConfig, dimensions: int | None) -> Callable[[Values], Values]:
    """Cuts an embedding to its first `dimensions`, and norms it again if the model does (arXiv 2205.13147).

    Raises ApiError (400) where the model's embeddings mean nothing when they are cut so.
    """
    if dimensions is None or dimensions == config.dim:
        return as_is
    if not config.matryoshka:
        accepted = f"{config.dim}, because this model's embeddings cannot be cut"
        raise bad_request(_refused(dimensions, accepted), "dimensions", "invalid_value")
    if dimensions > config.dim or dimensions not in (config.matryoshka_dims or (dimensions,)):
        accepted = ", ".join(map(str, config.matryoshka_dims)) or f"1 to {config.dim}"
        raise bad_request(_refused(dimensions, accepted), "dimensions", "invalid_value")
    if config.sentence is not None and config.sentence.normalize:
        return lambda values: normalize(values[:dimensions])
    return lambda values: values[:dimensions]


def _refused(dimensions: int, accepted: str) -> str:
    return f"dimensions: {dimensions} is not possible; accepted: {accepted}"


def normalize(values: Values) -> Values:
    """To length 1; a vector of zeros stays one."""
    norm = float(np.linalg.norm(values))
    return values / np.float32(norm) if norm else values


def similarity(kind: Similarity, left: Values, right: Values) -> float:
    """More is nearer. A cosine is from -1 to 1, and 0 where a vector is zero; distances are below 0."""
    match kind:
        case "cosine":
            return float(np.dot(normalize(left), normalize(right)))
        case "dot":
            return float(np.dot(left, right))
        case "euclidean":
            return -float(np.linalg.norm(left - right))
        case "manhattan":
            return -float(np.abs(left - right).sum())


def activate(logits: Values, activation: Activation) -> Values:
    """Scores of logits, over the last axis."""
    match activation:
        case "identity":
            return logits
        case "sigmoid":
            with np.errstate(over="ignore"):
                return np.float32(1) / (np.float32(1) + np.exp(-logits))
        case "softmax":
            powers: Values = np.exp(logits - logits.max(axis=-1, keepdims=True))
            return np.asarray(powers / powers.sum(axis=-1, keepdims=True), np.float32)


def activator(config: EncoderConfig, use_activation: bool | None) -> Callable[[Values], Values]:
    """The model's own activation, unless it is not wanted."""
    if use_activation is False:
        return as_is
    return lambda logits: activate(logits, config.activation)
