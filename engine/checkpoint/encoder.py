"""The shape of an encoder. Every value is one the engine computes with, or one that says what its answers mean."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from engine.request import Task

Activation = Literal["softmax", "sigmoid", "identity"]  # what makes scores of logits
Nonlinearity = Literal["identity", "gelu", "gelu_tanh", "relu", "tanh"]
Similarity = Literal["cosine", "dot", "euclidean", "manhattan"]
Pooling = Literal["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]


@dataclass(frozen=True, slots=True)
class Sharing:
    """ALBERT's layers (arXiv 1909.11942): num_layers / num_groups turns of each group's blocks."""

    num_groups: int
    num_blocks: int  # of one group


@dataclass(frozen=True, slots=True)
class Disentangled:
    """DeBERTa's relative positions (arXiv 2006.03654, 2111.09543)."""

    relative: bool  # False: attention sees no positions
    num_buckets: int  # distances above half of it share rows by their logarithm; 0: one row a distance
    max_distance: int
    content_to_position: bool
    position_to_content: bool
    shared: bool  # positions are projected by the weights of the content
    normed: bool  # the position table is normed before it is projected
    legacy_head: bool  # which of the two heads fills masks

    @property
    def span(self) -> int:
        """Half the rows of the position table."""
        return self.num_buckets or self.max_distance


@dataclass(frozen=True, slots=True)
class Modern:
    """ModernBERT's layers (arXiv 2412.13663)."""

    windowed: tuple[bool, ...]  # by layer: attention is local
    window: int  # a local layer's token sees those at most window // 2 away
    theta: float
    windowed_theta: float
    attention_bias: bool
    mlp_bias: bool
    norm_bias: bool
    head_bias: bool
    decoder_bias: bool


@dataclass(frozen=True, slots=True)
class Projection:
    """A layer behind the pooling, with tensors in a folder of its own."""

    folder: str
    num_inputs: int
    num_outputs: int
    bias: bool
    activation: Nonlinearity


@dataclass(frozen=True, slots=True)
class Sentence:
    """From token vectors to one of the whole input, as sentence-transformers' files tell it."""

    pooling: tuple[Pooling, ...]  # more than one: their vectors side by side
    projections: tuple[Projection, ...] = ()
    normalize: bool = False
    num_kept: int | None = None  # the first numbers of a vector; None: all


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """An encoder and its head."""

    architecture: str
    family: str  # bert | roberta | albert | distilbert | deberta | modernbert
    task: Task
    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    head_dim: int
    norm_eps: float
    hidden_act: Nonlinearity
    max_len: int  # tokens of the longest input, special ones included
    embedding_size: int  # of a token; projected where it is not hidden_size
    num_positions: int = 0  # rows of the table of absolute positions; 0: there is none
    first_position: int = 0  # row of an input's first token
    num_types: int = 0  # segments
    tie_embeddings: bool = True
    sharing: Sharing | None = None
    disentangled: Disentangled | None = None
    modern: Modern | None = None
    head_act: Nonlinearity = "tanh"  # of the layer before a classifier
    head_pooling: Pooling = "cls"  # likewise
    sentence: Sentence | None = None  # of task embed
    labels: tuple[str, ...] = ()  # of tasks classify and token_classify
    activation: Activation = "identity"
    mask_id: int | None = None  # of task fill_mask
    similarity: Similarity = "cosine"  # of two embeddings
    prompts: Mapping[str, str] = field(default_factory=dict)  # by name: put before a text
    default_prompt_name: str | None = None
    matryoshka: bool = False  # vectors may be cut short (arXiv 2205.13147)
    matryoshka_dims: tuple[int, ...] = ()  # to these sizes alone; empty: to any

    @property
    def dim(self) -> int:
        """Size of an embedding."""
        if self.sentence is None:
            return self.hidden_size
        size = self.hidden_size * len(self.sentence.pooling)
        if self.sentence.projections:
            size = self.sentence.projections[-1].num_outputs
        return size if self.sentence.num_kept is None else min(size, self.sentence.num_kept)


@dataclass(frozen=True, slots=True)
class EncoderFamily:
    """How one family's files are told from the others'."""

    name: str
    model_type: str
    class_name: str  # its architectures' names begin so
    hidden_act: str = "gelu"  # where config.json does not say, as the next two
    num_types: int = 2
    head_act: Nonlinearity = "tanh"
    mask_token: str = "[MASK]"  # where no tokenizer file says


ENCODER_FAMILIES = (
    EncoderFamily("bert", "bert", "Bert"),
    EncoderFamily("roberta", "roberta", "Roberta", mask_token="<mask>"),
    EncoderFamily("roberta", "xlm-roberta", "XLMRoberta", mask_token="<mask>"),
    EncoderFamily("albert", "albert", "Albert", hidden_act="gelu_new"),
    EncoderFamily("distilbert", "distilbert", "DistilBert", num_types=0, head_act="relu"),
    EncoderFamily("deberta", "deberta-v2", "DebertaV2", num_types=0, head_act="gelu"),
    EncoderFamily("modernbert", "modernbert", "ModernBert", num_types=0, head_act="gelu"),
)
ENCODER_TASKS: Mapping[str, Task] = {
    "Model": "embed",
    "ForSequenceClassification": "classify",
    "ForTokenClassification": "token_classify",
    "ForMaskedLM": "fill_mask",
}
