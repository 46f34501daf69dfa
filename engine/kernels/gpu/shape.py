"""What the attention kernels are compiled for."""

from dataclasses import dataclass

import torch

from engine.kernels.ops import Heads

ELEMENTS = (torch.bfloat16, torch.float16)


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """The geometry of one attention layer and of its paged cache."""

    num_heads: int
    num_kv_heads: int
    head_dim: int
    block_size: int  # tokens of a cache block, a multiple of 16
    element: torch.dtype  # bfloat16 or float16
    window: int  # a token sees at most this many tokens, itself included; 0: all before it
    scale: float  # of the scores
    softcap: float = 0.0  # scores become softcap * tanh(score / softcap); 0: off

    @property
    def width(self) -> int:
        """Elements of a token's queries, keys and values together."""
        return (self.num_heads + 2 * self.num_kv_heads) * self.head_dim

    def defines(self) -> dict[str, int]:
        """For the compiler; what is no integer is passed at the launch."""
        return {
            "NUM_HEADS": self.num_heads,
            "NUM_KV_HEADS": self.num_kv_heads,
            "HEAD_DIM": self.head_dim,
            "BLOCK_SIZE": self.block_size,
            **element_defines(self.element),
        }


def element_defines(element: torch.dtype) -> dict[str, int]:
    """The define that picks the kernels' 16-bit type. Errors: ValueError."""
    if element not in ELEMENTS:
        raise ValueError(f"the kernels compute in bfloat16 or float16, not {element}")
    return {"ELEMENT_FP16": 1} if element == torch.float16 else {}


def attention_shape(heads: Heads, block_size: int, element: torch.dtype) -> AttentionShape:
    return AttentionShape(
        heads.num_heads,
        heads.num_kv_heads,
        heads.head_dim,
        block_size,
        element,
        heads.window,
        heads.scale,
    )
