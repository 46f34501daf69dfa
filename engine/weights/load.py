"""From a checkpoint to its tensors."""

from typing import Literal

import torch

from engine.checkpoint import Checkpoint, EncoderConfig
from engine.checkpoint.config import FAMILIES
from engine.weights.dummy import DummySource
from engine.weights.encoder import EncoderSource
from engine.weights.gguf import GgufSource
from engine.weights.safetensors import SafetensorsSource
from engine.weights.source import FileSource
from engine.weights.staging import StagedReader
from engine.weights.weights import Layout, Progress, Weights

LoadFormat = Literal["auto", "dummy"]
CPU = torch.device("cpu")


def open_weights(
    checkpoint: Checkpoint,
    layout: Layout,
    dtype: torch.dtype,
    load_format: LoadFormat = "auto",
    progress: Progress | None = None,
    device: torch.device = CPU,
    quantised: bool = False,
) -> Weights:
    """The tensors of `layout`, ready to be taken. Only GGUF and safetensors are read: nothing is unpickled.

    quantised: matrices stay as they are in the file, where that is known how.

    Errors: CheckpointError naming the file or the tensors at fault, before any tensor is read.
    """
    if load_format == "dummy":
        return Weights(DummySource(layout.shapes), layout, dtype, progress, device)
    source = _open_files(checkpoint, layout)
    staged = StagedReader(source, device) if device.type != "cpu" else None
    find = source.quantised if quantised and isinstance(source, GgufSource) else None
    return Weights(source, layout, dtype, progress, device, staged, find)


def _open_files(checkpoint: Checkpoint, layout: Layout) -> FileSource:
    if checkpoint.gguf is not None:
        permuted = {family.architecture for family in FAMILIES if family.permuted}
        return GgufSource(checkpoint.gguf, checkpoint.decoder, checkpoint.decoder.architecture in permuted)
    if isinstance(checkpoint.config, EncoderConfig):
        sentence = checkpoint.config.sentence
        folders = [] if sentence is None else [layer.folder for layer in sentence.projections]
        return EncoderSource(checkpoint.path, layout, folders)
    return SafetensorsSource(checkpoint.path)
