"""One product of a decoder's block for 17 to 32 tokens: cuda/skinny_wide.cu."""

import itertools
from dataclasses import dataclass

import torch

from engine.kernels.gpu.decode_attention import max_shared_bytes
from engine.kernels.gpu.module import Argument, Kernel, KernelLibrary

MAX_TOKENS = 32
WARPS, THREADS = 4, 128
TILE = 16  # rows of a weight that one mma takes
MAX_TILES = 7  # whose sums a thread's registers hold
STAGES = (64, 32)  # channels: the first that divides a slice, and of which there is room for MIN_STAGES
MIN_STAGES, MAX_STAGES = 3, 8
SLICED = {"STORED", "ADDED"}  # kinds whose channels may be cut
SLICES = (1, 2, 4)
INPUT_THREADS = 256

# What `Tiling.time_us` expects, of an H100: bytes a microsecond from the memory, from the cache, and to one multiprocessor from both.
READ_RATE, CACHE_RATE, OWN_RATE = 3.09e6, 5.5e6, 0.045e6
FINISH_US, MEETING_US = 0.17, 2.5  # of a tile's sums; of a group's slices


@dataclass(frozen=True, slots=True)
class Tiling:
    """What a block computes at a time, and how it streams what it needs for that."""

    tiles: int  # of TILE rows of the weight
    stage: int  # channels
    num_stages: int
    slices: int = 1  # of the channels, for as many blocks

    def defines(self) -> dict[str, int]:
        ring = {"STAGE": self.stage, "NUM_STAGES": self.num_stages}
        return {"TILES": self.tiles, "SLICES": self.slices, **ring}

    def num_groups(self, num_out: int) -> int:
        return -(-num_out // (TILE * self.tiles))

    def shared_bytes(self) -> int:
        """As skinny_wide.cuh lays it out: sums, each warp's stages."""
        return _sums_bytes() + self.num_stages * _stage_bytes(self.tiles, self.stage)

    def time_us(self, num_out: int, num_in: int, num_multiprocessors: int) -> float:
        """What a product is expected to take: round by round, from where most has to come."""
        rows, channels = TILE * self.tiles, num_in // self.slices
        weights, both = 2 * channels * rows, 2 * channels * (rows + MAX_TOKENS)

        def round_us(num_blocks: int) -> float:
            shared = max(num_blocks * weights / READ_RATE, num_blocks * both / CACHE_RATE)
            return max(shared, both / OWN_RATE) if num_blocks else 0.0

        whole, rest = divmod(self.num_groups(num_out) * self.slices, num_multiprocessors)
        end = self.tiles * FINISH_US + (MEETING_US if self.slices > 1 else 0)
        return whole * round_us(num_multiprocessors) + round_us(rest) + end


def pick_tiling(
    num_out: int, num_in: int, num_multiprocessors: int, limit: int, may_slice: bool = True
) -> Tiling:
    """The one that should be fastest in `limit` bytes of shared memory. num_in: a multiple of 32."""
    counts = itertools.product(range(1, MAX_TILES + 1), SLICES if may_slice else (1,))
    fitting = [tiling for tiles, slices in counts if (tiling := fit_tiling(tiles, num_in, slices, limit))]
    return min(fitting, key=lambda tiling: tiling.time_us(num_out, num_in, num_multiprocessors))


def fit_tiling(tiles: int, num_in: int, slices: int, limit: int) -> Tiling | None:
    """With the ring that has room in `limit` bytes. None: there is too little for so many tiles, or the channels are not to be cut so."""
    for stage in STAGES:
        num_stages = (limit - _sums_bytes()) // _stage_bytes(tiles, stage)
        if num_in % (stage * slices) == 0 and num_stages >= MIN_STAGES:
            return Tiling(tiles, stage, min(num_stages, MAX_STAGES), slices)
    return None


def _stage_bytes(tiles: int, stage: int) -> int:
    """Of all warps."""
    return WARPS * (tiles * TILE + MAX_TOKENS) * stage * 2


def _sums_bytes() -> int:
    sums = WARPS * (TILE * (MAX_TOKENS + 1) + MAX_TOKENS) * 4 + 2 * MAX_TOKENS * 4 + 4
    return -(-sums // 128) * 128


@dataclass(frozen=True, slots=True)
class WideProduct:
    """One product of a block. Launches that share it may not overlap."""

    kernel: Kernel
    grid: int
    meeting: tuple[Argument, ...]  # of slices: their sums and how many have come

    def __call__(self, num_tokens: int, *args: Argument) -> None:
        self.kernel(self.grid, THREADS, *args, num_tokens, *self.meeting)


def make_wide_product(
    library: KernelLibrary,
    kind: str,
    weight: tuple[int, int],
    defines: dict[str, int],
    tiling: Tiling | None = None,
) -> WideProduct:
    """kind: what skinny_wide.cu does with the product of a weight [out, in]. tiling: None picks one."""
    num_out, num_in = weight
    limit, num_multiprocessors = max_shared_bytes(library.architecture), library.num_multiprocessors
    picked = tiling or pick_tiling(num_out, num_in, num_multiprocessors, limit, kind in SLICED)
    own = {kind: 1, "IN": num_in, "OUT": num_out, "TOKENS": MAX_TOKENS, **picked.defines()}
    kernel = library.get("skinny_wide.cu", "skinny_wide", {**defines, **own}, picked.shared_bytes())
    num_groups = picked.num_groups(num_out)
    meeting = _make_meeting(library, picked, num_groups) if kind in SLICED else ()
    return WideProduct(kernel, min(num_groups * picked.slices, num_multiprocessors), meeting)


def _make_meeting(library: KernelLibrary, tiling: Tiling, num_groups: int) -> tuple[Argument, ...]:
    if tiling.slices == 1:
        return None, None
    num_elements = tiling.slices * tiling.tiles * TILE * MAX_TOKENS
    parts = torch.empty(num_groups, num_elements, device=library.device)
    return parts, torch.zeros(num_groups, dtype=torch.int32, device=library.device)


@dataclass(frozen=True, slots=True)
class WideInput:
    """A residual stream as a product that norms it wants it. Written by WideInputs, then by each product that adds to the stream."""

    weighted: torch.Tensor  # dtype [tokens, hidden]: times the norm's weight
    squares: torch.Tensor  # float32 [hidden / 16, MAX_TOKENS]: sums over 16 channels


class WideInputs:
    """Makes them."""

    def __init__(self, library: KernelLibrary, hidden: int, defines: dict[str, int]) -> None:
        all_defines = {"HIDDEN": hidden, "TOKENS": MAX_TOKENS, **defines}
        self._kernel = library.get("skinny_input.cu", "skinny_input", all_defines)

    def __call__(self, x: torch.Tensor, norm: torch.Tensor, dtype: torch.dtype) -> WideInput:
        """x float32 [tokens, hidden], norm float32 [hidden]."""
        num_tokens, hidden = x.shape
        made = WideInput(x.new_empty(x.shape, dtype=dtype), x.new_empty(hidden // TILE, MAX_TOKENS))
        grid = -(-num_tokens * hidden // INPUT_THREADS)
        self._kernel(grid, INPUT_THREADS, x, norm, made.weighted, made.squares, num_tokens)
        return made
