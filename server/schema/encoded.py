"""What an encoder's routes send back, in the shapes of OpenAI's and vLLM's. Bytes are written as base64."""

from msgspec import UNSET, Raw, Struct, UnsetType

Written = bytes | Raw  # numbers: as base64 of float32, little-endian, or as JSON already


class InputUsage(Struct, frozen=True):
    """Tokens of one HTTP request, special ones included."""

    prompt_tokens: int
    total_tokens: int


class Embedding(Struct, frozen=True, kw_only=True):
    object: str = "embedding"
    index: int
    embedding: Written


class EmbeddingList(Struct, frozen=True, kw_only=True):
    """The answer of POST /v1/embeddings."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Embedding]
    usage: InputUsage


class Pooled(Struct, frozen=True, kw_only=True):
    index: int
    object: str = "pooling"
    data: Written


class PooledList(Struct, frozen=True, kw_only=True):
    """The answer of POST /pooling."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Pooled]
    usage: InputUsage


class Document(Struct, frozen=True):
    text: str


class Ranked(Struct, frozen=True, kw_only=True):
    index: int
    document: Document | UnsetType = UNSET
    relevance_score: float


class Rank(Struct, frozen=True, kw_only=True):
    """As text-embeddings-inference has it: the answer is a list of them."""

    index: int
    score: float
    text: str | UnsetType = UNSET


class Ranking(Struct, frozen=True, kw_only=True):
    """The answer of POST /v1/rerank; the best comes first."""

    id: str
    model: str
    usage: InputUsage
    results: list[Ranked]


class Score(Struct, frozen=True, kw_only=True):
    index: int
    object: str = "score"
    score: float


class ScoreList(Struct, frozen=True, kw_only=True):
    """The answer of POST /v1/score."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Score]
    usage: InputUsage


class Classified(Struct, frozen=True, kw_only=True):
    index: int
    label: str
    probs: list[float]
    num_classes: int


class ClassifiedList(Struct, frozen=True, kw_only=True):
    """The answer of POST /classify."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Classified]
    usage: InputUsage


class Prediction(Struct, frozen=True, kw_only=True):
    """The answer of POST /predict has a list of them, the likeliest first, for each input."""

    score: float
    label: str


class Filling(Struct, frozen=True, kw_only=True):
    """A token for a mask, and the whole text with it."""

    score: float
    token: int
    token_str: str
    sequence: str


class Filled(Struct, frozen=True, kw_only=True):
    """One input: for each of its masks the best tokens, best first."""

    index: int
    object: str = "fill_mask"
    masks: list[list[Filling]]


class FilledList(Struct, frozen=True, kw_only=True):
    """The answer of POST /fill_mask."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[Filled]
    usage: InputUsage
