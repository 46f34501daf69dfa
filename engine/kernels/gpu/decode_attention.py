"""Attention of the rows that compute one token: one launch, balanced on the device over any mix of contexts."""

from dataclasses import dataclass

import torch

from engine.batch import DeviceBatch
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.shape import AttentionShape
from engine.kernels.ops import LayerCache

TILE = 16  # tokens
WARP = 32
MAX_GROUP = 16  # query heads of a KV head
SPLIT_TILES, MAX_SPLITS = 32, 8  # of a (row, KV head) in deterministic mode
TILE_WORDS, BARRIER_BYTES = 8, 8  # decode_line.cuh's Tile; a barrier
NUM_EDGES = 2
MAX_WARPS, MIN_STAGES, MAX_STAGES = 8, 3, 6


@dataclass(frozen=True, slots=True)
class DecodePlan:
    """How a block of the kernel is made up: as many warps, and tiles ahead of each, as shared memory has room for."""

    num_warps: int
    num_stages: int
    shared_bytes: int


class DecodeAttention:
    """One shape's kernel and what it keeps between blocks. Launches that use it may not overlap.

    deterministic: a row's result does not depend on the other rows of its batch. Costs float32 parts of max_rows rows in device memory.
    """

    def __init__(
        self, library: KernelLibrary, shape: AttentionShape, deterministic: bool = False, max_rows: int = 0
    ) -> None:
        """max_rows: of a batch; needed where deterministic. Errors: ValueError."""
        if deterministic and max_rows <= 0:
            raise ValueError("deterministic decode attention needs max_rows")
        plan = plan_decode(shape, library.architecture)
        self._shape = shape
        self._max_rows = max_rows if deterministic else None
        self._grid, self._block = library.num_multiprocessors, plan.num_warps * WARP
        defines = decode_defines(shape, plan, deterministic)
        self._kernel = library.get("decode_attention.cu", "decode_attention", defines, plan.shared_bytes)
        num_pairs = max_rows * shape.num_kv_heads
        num_parts = num_pairs * MAX_SPLITS if deterministic else self._grid * NUM_EDGES
        num_counters = num_pairs if deterministic else self._grid
        self._parts = torch.empty(num_parts, _part_floats(shape), device=library.device)
        self._counters = torch.zeros(num_counters, dtype=torch.int32, device=library.device)

    def __call__(self, qkv: torch.Tensor, batch: DeviceBatch, cache: LayerCache, out: torch.Tensor) -> None:
        """qkv Element [tokens, width], out Element [tokens, heads * head_dim]; tokens of other rows are left as they are.

        Errors: ValueError for more rows than max_rows.
        """
        if self._max_rows is not None and batch.num_rows > self._max_rows:
            raise ValueError(f"a batch of {batch.num_rows} rows; there are at most {self._max_rows}")
        tables = batch.block_tables
        rows = batch.query_starts, batch.context_lens, batch.row_slots, tables, tables.shape[1]
        scale = float(self._shape.scale), float(self._shape.softcap)
        self._kernel(
            *(self._grid, self._block, qkv, cache.keys, cache.values),
            *(batch.counts, batch.num_rows, batch.decode_starts, *rows, batch.decode_tiles, *scale, out),
            *(self._parts, self._counters),
        )


def plan_decode(shape: AttentionShape, architecture: str) -> DecodePlan:
    """Many warps share out short work, many stages keep memory busy: as many warps as leave MIN_STAGES tiles to each.

    Errors: ValueError for a shape that the kernel is not made for.
    """
    group = shape.num_heads // shape.num_kv_heads
    if group > MAX_GROUP or group * shape.num_kv_heads != shape.num_heads:
        raise ValueError(
            f"{shape.num_heads} query heads over {shape.num_kv_heads} KV heads;"
            f" accepted: multiples up to {MAX_GROUP}"
        )
    limit = max_shared_bytes(architecture)
    num_warps = MAX_WARPS
    while num_warps > 1 and _num_stages(shape, num_warps, limit) < MIN_STAGES:
        num_warps //= 2
    num_stages = min(_num_stages(shape, num_warps, limit), MAX_STAGES)
    stages = num_warps * num_stages * _stage_bytes(shape)
    return DecodePlan(num_warps, num_stages, stages + _other_bytes(shape, num_warps))


def max_shared_bytes(architecture: str) -> int:
    """What a block may ask for on every GPU that runs this architecture's code (CUDA C++ Programming Guide, compute capabilities)."""
    return (227 if architecture in ("sm_90a", "sm_100") else 99) << 10


def _num_stages(shape: AttentionShape, num_warps: int, limit: int) -> int:
    """Tiles a warp can have in shared memory."""
    return (limit - _other_bytes(shape, num_warps)) // (num_warps * _stage_bytes(shape))


def _stage_bytes(shape: AttentionShape) -> int:
    """A tile's keys and values, its description and its barrier."""
    return 2 * TILE * shape.head_dim * shape.element.itemsize + TILE_WORDS * 4 + BARRIER_BYTES


def _other_bytes(shape: AttentionShape, num_warps: int) -> int:
    """Two parts a warp with their descriptions, the block's edges and two flags."""
    return num_warps * 2 * (_part_floats(shape) + TILE_WORDS) * 4 + NUM_EDGES * (TILE_WORDS + 1) * 4


def _part_floats(shape: AttentionShape) -> int:
    """Of one pair's partial result: a row of head_dim values, maximum, sum and two of padding for each query head."""
    return shape.num_heads // shape.num_kv_heads * (shape.head_dim + 4)


def decode_defines(shape: AttentionShape, plan: DecodePlan, deterministic: bool) -> dict[str, int]:
    """Of the kernel, and of cuda/decode_tiles.cu."""
    return {
        **shape.defines(),
        "WINDOW": shape.window,
        "SOFTCAP": int(shape.softcap > 0),
        "NUM_WARPS": plan.num_warps,
        "NUM_STAGES": plan.num_stages,
        "MIN_TILES": plan.num_warps,
        "DETERMINISTIC": int(deterministic),
        "SPLIT_TILES": SPLIT_TILES,
        "MAX_SPLITS": MAX_SPLITS,
    }
