"""An encoder without its head, and what one family of them is."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.batch import EncoderBatch
from engine.checkpoint import EncoderConfig, Nonlinearity
from engine.models.encoders.tensors import Shapes, Tensors


class Trunk(Protocol):
    """Embeddings and layers."""

    @property
    def words(self) -> torch.Tensor:
        """dtype [vocab, embedding]: a head that fills masks may share it."""
        ...

    def __call__(self, batch: EncoderBatch) -> torch.Tensor:
        """[tokens, hidden], float32 or EncoderOps.stream_dtype."""
        ...


@dataclass(frozen=True, slots=True)
class HeadShape:
    """A head: perhaps a dense layer, perhaps a norm, then the outputs. Names are those of modules."""

    out: str
    dense: str | None = None
    act: Nonlinearity = "identity"
    norm: str | None = None
    size: int = 0  # outputs of the dense layer; 0: hidden_size
    dense_bias: bool = True
    norm_bias: bool = True
    out_bias: bool = True
    tied: bool = False  # out's weight is the trunk's words
    alias: str | None = None  # another name of out's bias


@dataclass(frozen=True, slots=True)
class EncoderType:
    """One family."""

    shapes: Callable[[EncoderConfig], Shapes]  # of the trunk
    build: Callable[[EncoderConfig, Tensors], Trunk]
    head: Callable[[EncoderConfig], HeadShape]  # of the configuration's task; any but embed
    prefix: str  # before the trunk's names where there is a head
    fused: Mapping[str, tuple[str, ...]]
    unused: tuple[str, ...] = ()  # modules of heads that serve nothing here
