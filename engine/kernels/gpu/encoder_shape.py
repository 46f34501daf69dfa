"""What the kernels of an encoder's attention are compiled for, and what they are given to do."""

from dataclasses import dataclass

import torch

from engine.kernels.gpu.shape import element_defines

PLAN_THREADS = 1024
TILE_WORDS = 4  # attention_inputs.cuh's InputTile


@dataclass(frozen=True, slots=True)
class EncoderShape:
    """The geometry of one attention layer of an encoder."""

    num_heads: int
    head_dim: int
    element: torch.dtype  # bfloat16 or float16
    window: int  # a token sees those at most window // 2 away; 0: all of its input
    scale: float  # of the scores

    def defines(self) -> dict[str, int]:
        """Errors: ValueError."""
        return {
            "NUM_HEADS": self.num_heads,
            "HEAD_DIM": self.head_dim,
            "WINDOW": self.window,
            "SOFTCAP": 0,
            **element_defines(self.element),
        }


@dataclass(frozen=True, slots=True)
class EncoderTiles:
    """A batch's work, for all layers of one head size: those that take longest first."""

    tiles: torch.Tensor  # int32 [at least num_tiles, TILE_WORDS]
    num_tiles: torch.Tensor  # int32 [1]
