"""What must hold between the numbers of a configuration, whatever file they came from."""

import math

from engine.checkpoint.config import FrequencyFactors, ModelConfig
from engine.checkpoint.error import CheckpointError

# No model has more; a damaged file may say so.
MAX_LAYERS = 1024
MAX_VOCAB = 1 << 24
MAX_CONTEXT = 2**31 - 1


def check_geometry(config: ModelConfig, source: str) -> ModelConfig:
    """The configuration itself. Errors: CheckpointError for numbers that do not fit together."""
    if config.num_heads % config.num_kv_heads:
        raise CheckpointError(
            f"{source}: {config.num_kv_heads} key-value heads; accepted: a divisor of {config.num_heads}"
        )
    check_sizes(config.num_layers, config.vocab_size, source)
    if config.head_dim % 2:
        raise CheckpointError(f"{source}: the head size is {config.head_dim}; accepted: an even number")
    match config.rope.scaling:
        case FrequencyFactors(factors) if len(factors) != config.head_dim // 2 or not all(
            0 < factor < math.inf for factor in factors
        ):
            raise CheckpointError(
                f"{source}: {len(factors)} rope factors; accepted: {config.head_dim // 2} above 0"
            )
    for token_id in (*config.eos_ids, *(() if config.bos_id is None else (config.bos_id,))):
        if token_id >= config.vocab_size:
            raise CheckpointError(
                f"{source}: special token id {token_id}; accepted: below {config.vocab_size}, the vocabulary"
            )
    return config


def check_sizes(num_layers: int, vocab_size: int, source: str) -> None:
    """Errors: CheckpointError for those that only a damaged file has."""
    if num_layers > MAX_LAYERS:
        raise CheckpointError(f"{source}: {num_layers} layers; accepted: up to {MAX_LAYERS}")
    if not 0 < vocab_size <= MAX_VOCAB:
        raise CheckpointError(f"{source}: a vocabulary of {vocab_size}; accepted: 1 to {MAX_VOCAB}")


def stretched(context: int, factor: float, original: int) -> int:
    """The context of a model whose rotary embedding was scaled."""
    return max(context, int(min(factor * original, MAX_CONTEXT)))


def yarn_attention_factor(factor: float, scale: float = 1.0) -> float:
    """The factor on cosines and sines that YaRN recommends (arXiv 2309.00071, equation 22)."""
    return 1.0 if factor <= 1 else 0.1 * scale * math.log(factor) + 1.0
