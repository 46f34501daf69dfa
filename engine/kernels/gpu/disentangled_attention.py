"""DeBERTa's attention of packed inputs: one launch for any mix of lengths, nothing padded, no matrix of distances in memory."""

from dataclasses import dataclass

import torch

from engine.kernels.encoder_ops import Relative
from engine.kernels.gpu.encoder_shape import PLAN_THREADS, TILE_WORDS, EncoderTiles
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.shape import element_defines

HEAD_DIMS = (32, 64)
TILE_ROWS = 128  # queries of a block
TILE_KEYS = 32  # whose scores a warp has at once
STEP_KEYS = 2 * TILE_KEYS  # loaded at once
THREADS = 128
BLOCKS_A_MULTIPROCESSOR = 2
ELEMENT_BYTES = 2


@dataclass(frozen=True, slots=True)
class DisentangledShape:
    """The geometry of one layer."""

    num_heads: int
    head_dim: int
    element: torch.dtype  # bfloat16 or float16
    content_to_position: bool  # Relative.keys are there
    position_to_content: bool  # Relative.queries are there

    @property
    def shared_bytes(self) -> int:
        """Keys of two steps, values of one, and for each table the rows of a tile's distances, a step's and the next step's."""
        num_tables = self.content_to_position + self.position_to_content
        num_rows = 3 * STEP_KEYS + num_tables * (TILE_ROWS + 2 * STEP_KEYS)
        return num_rows * self.head_dim * ELEMENT_BYTES

    def defines(self) -> dict[str, int]:
        """Errors: ValueError."""
        return {
            "NUM_HEADS": self.num_heads,
            "HEAD_DIM": self.head_dim,
            "CONTENT_TO_POSITION": int(self.content_to_position),
            "POSITION_TO_CONTENT": int(self.position_to_content),
            "TILE_M": TILE_ROWS,
            "TILE_N": TILE_KEYS,
            **element_defines(self.element),
        }


class DisentangledAttention:
    """One shape's kernel, and what it keeps between blocks. Launches that use it may not overlap."""

    def __init__(self, library: KernelLibrary, shape: DisentangledShape) -> None:
        """Errors: ValueError for a shape that the kernel is not made for."""
        if shape.head_dim not in HEAD_DIMS:
            raise ValueError(
                f"disentangled attention heads of {shape.head_dim} channels; accepted: {HEAD_DIMS}"
            )
        self._shape = shape
        self._max_blocks = library.num_multiprocessors * BLOCKS_A_MULTIPROCESSOR
        source, defines = "disentangled_attention.cu", shape.defines()
        self._plan = library.get(source, "plan_disentangled_attention", defines)
        self._attend = library.get(source, "disentangled_attention", defines, shape.shared_bytes)
        self._counters = torch.zeros(2, dtype=torch.int32, device=library.device)

    def plan(self, starts: torch.Tensor, num_tokens: int) -> EncoderTiles:
        """Once a batch. starts int32 [inputs + 1] on the device; its last entry is at most num_tokens."""
        num_inputs = starts.shape[0] - 1
        max_tiles = num_tokens // TILE_ROWS + num_inputs
        tiles = EncoderTiles(starts.new_empty(max_tiles, TILE_WORDS), starts.new_empty(1))
        self._plan(1, PLAN_THREADS, starts, num_inputs, tiles.tiles, tiles.num_tiles)
        return tiles

    def __call__(
        self, qkv: torch.Tensor, relative: Relative, tiles: EncoderTiles, scale: float, out: torch.Tensor
    ) -> None:
        """qkv Element [tokens, 3 * heads * head_dim], out Element [tokens, heads * head_dim]; tokens behind the last input's stay.

        scale: of the scores. No input is longer than relative.places reach.
        """
        grid = min(tiles.tiles.shape[0] * self._shape.num_heads, self._max_blocks)
        positions = relative.keys, relative.queries, relative.places, relative.places.shape[0] // 2
        work = tiles.tiles, tiles.num_tiles, float(scale), self._counters
        self._attend(grid, THREADS, qkv, *positions, *work, out)
