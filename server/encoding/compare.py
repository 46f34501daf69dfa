"""How much texts have to do with one another: by their embeddings, or by a cross-encoder."""

from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import Request

from server.context import AppContext, Reading
from server.encoding.encoding import encode
from server.encoding.prepare import want_pairs, want_sides
from server.encoding.values import activator, as_is, similarity
from server.encoding.wanted import Wanted
from server.schema.rerank import RerankRequest
from server.schema.score import ScoreRequest
from server.text.truncation import TextInput


@dataclass(frozen=True, slots=True)
class Sides:
    """Texts to compare: one with each of the others, or as many with as many, one by one."""

    names: tuple[str, str]  # the fields they came in
    left: Sequence[str]
    right: Sequence[str]
    max_right: int | None = None  # tokens that a text on the right keeps


@dataclass(frozen=True, slots=True)
class Compared:
    """One score a text on the right."""

    scores: list[float]
    wanted: Wanted


async def compare(
    context: AppContext,
    reading: Reading,
    http: Request,
    request: RerankRequest | ScoreRequest,
    sides: Sides,
) -> Compared:
    """Raises ApiError or ClientGone."""
    if reading.config.task == "embed":
        return await _by_embeddings(context, reading, http, request, sides)
    lefts = list(sides.left) * (len(sides.right) if len(sides.left) == 1 else 1)
    pairs: list[TextInput] = list(zip(lefts, sides.right, strict=True))
    wanted = await want_pairs(context, reading, request, sides.names[1], pairs, sides.max_right)
    activate = activator(reading.config, request.activated)
    scores = await encode(context, http, wanted, lambda logits: float(activate(logits)[0]))
    return Compared(scores, wanted)


async def _by_embeddings(
    context: AppContext,
    reading: Reading,
    http: Request,
    request: RerankRequest | ScoreRequest,
    sides: Sides,
) -> Compared:
    """By how near two embeddings are, in the way the model was trained for."""
    both = (sides.left, sides.right)
    wanted = await want_sides(context, reading, request, sides.names, both, sides.max_right)
    vectors = await encode(context, http, wanted, as_is)
    lefts, rights = vectors[: len(sides.left)], vectors[len(sides.left) :]
    lefts *= len(rights) if len(lefts) == 1 else 1
    kind = reading.config.similarity
    scores = [similarity(kind, left, right) for left, right in zip(lefts, rights, strict=True)]
    return Compared(scores, wanted)
