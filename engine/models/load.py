"""From an opened checkpoint to a model that can compute."""

import torch

from engine.checkpoint import Checkpoint
from engine.kernels.ops import Ops
from engine.models import find_model
from engine.models.model import Model
from engine.weights import CPU, LoadFormat, Progress, open_weights


def load_model(
    checkpoint: Checkpoint,
    ops: Ops,
    dtype: torch.dtype,
    max_positions: int,
    load_format: LoadFormat = "auto",
    progress: Progress | None = None,
    device: torch.device = CPU,
) -> Model:
    """Build the model for contexts of up to max_positions tokens, packing each weight as soon as it is read.

    Errors: CheckpointError for tensors that are missing, left over, damaged, or of the wrong shape or dtype.
    """
    config = checkpoint.decoder
    model_type = find_model(config.architecture)
    layout, quantised = model_type.layout(config), ops.takes_quantised(dtype)
    weights = open_weights(checkpoint, layout, dtype, load_format, progress, device, quantised)
    model = model_type(config, weights, ops, max_positions)
    weights.finish()
    assert not weights.left, f"the model did not take {weights.left}"
    return model
