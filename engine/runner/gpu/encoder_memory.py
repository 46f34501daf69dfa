"""Whether an encoder and its largest step fit on the GPU, by arithmetic before anything is allocated."""

import torch

from engine.checkpoint import EncoderConfig
from engine.config import EngineConfig
from engine.runner.gpu.buckets import EncoderBucket
from engine.runner.gpu.memory import (
    RUNTIME_BYTES,
    WORD,
    GpuMemory,
    GpuMemoryTooSmall,
    explain,
    weight_bytes,
)
from engine.weights import Layout

ADVICE = "max_batch_tokens or max_model_len"


def check_memory(
    config: EngineConfig,
    encoder: EncoderConfig,
    layout: Layout,
    dtype: torch.dtype,
    largest: EncoderBucket,
    memory: GpuMemory,
) -> None:
    """For a settled configuration. Raises GpuMemoryTooSmall with the arithmetic in it."""
    needs = {
        "weights": weight_bytes(layout, dtype) + _position_bytes(encoder, dtype),
        # Twice: a captured graph's own, and that of steps which are not captured.
        "steps": 2 * _step_bytes(encoder, dtype, largest),
        "kernels and libraries": RUNTIME_BYTES,
    }
    if sum(needs.values()) > memory.usable(config.gpu_memory):
        raise GpuMemoryTooSmall(explain(needs, config, memory, ADVICE))


def _position_bytes(encoder: EncoderConfig, dtype: torch.dtype) -> int:
    """DeBERTa's positions, projected by each layer's weights, and the table that says where a distance's are."""
    shape = encoder.disentangled
    if shape is None or not shape.relative:
        return 0
    num_tables = encoder.num_layers * (shape.content_to_position + shape.position_to_content)
    return num_tables * 2 * shape.span * encoder.hidden_size * dtype.itemsize + 2 * WORD * encoder.max_len


def _step_bytes(encoder: EncoderConfig, dtype: torch.dtype, largest: EncoderBucket) -> int:
    """What lives at once in the largest step: the widest activations of a block, the stream, ids, the answers."""
    gates = 2 if encoder.modern is not None else 1
    elements = 4 * encoder.hidden_size + (gates + 1) * encoder.intermediate_size
    stream, ids = 2 * WORD * encoder.hidden_size, 5 * WORD
    return largest.num_tokens * (elements * dtype.itemsize + stream + ids) + _answer_bytes(encoder, largest)


def _answer_bytes(encoder: EncoderConfig, largest: EncoderBucket) -> int:
    match encoder.task:
        case "fill_mask":
            return WORD * largest.num_tokens * encoder.vocab_size
        case "token_classify":
            return WORD * largest.num_tokens * len(encoder.labels)
        case "classify":
            return WORD * largest.num_inputs * len(encoder.labels)
        case _:
            return WORD * largest.num_inputs * encoder.dim
