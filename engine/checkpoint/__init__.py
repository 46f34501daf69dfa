"""What a model's files say of it: shape, tokenizer, template.

Reads metadata only, and imports neither torch nor numpy, so that a server process may use it.
"""

from engine.checkpoint.checkpoint import Checkpoint, SpecialTokens
from engine.checkpoint.config import (
    FrequencyFactors,
    LinearScaling,
    Llama3Scaling,
    ModelConfig,
    Rope,
    RopeScaling,
    YarnScaling,
)
from engine.checkpoint.encoder import (
    Activation,
    Disentangled,
    EncoderConfig,
    Modern,
    Nonlinearity,
    Pooling,
    Projection,
    Sentence,
    Sharing,
    Similarity,
)
from engine.checkpoint.error import CheckpointError, fit_to_show
from engine.checkpoint.open import open_checkpoint
from engine.checkpoint.tokenizer import GgufTokenizer, GgufVocabulary, TokenizerFile

__all__ = [
    "Activation",
    "Checkpoint",
    "CheckpointError",
    "Disentangled",
    "EncoderConfig",
    "FrequencyFactors",
    "GgufTokenizer",
    "GgufVocabulary",
    "LinearScaling",
    "Llama3Scaling",
    "Modern",
    "ModelConfig",
    "Nonlinearity",
    "Pooling",
    "Projection",
    "Rope",
    "RopeScaling",
    "Sentence",
    "Sharing",
    "Similarity",
    "SpecialTokens",
    "TokenizerFile",
    "YarnScaling",
    "fit_to_show",
    "open_checkpoint",
]
