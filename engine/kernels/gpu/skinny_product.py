"""One product of a decoder's block for up to 16 tokens: cuda/skinny_linear.cu."""

from dataclasses import dataclass

from engine.kernels.gpu.decode_attention import max_shared_bytes
from engine.kernels.gpu.module import Argument, Kernel, KernelLibrary

WARPS, THREADS = 8, 256
TILE = 16  # rows of a weight that one mma takes
CHUNK = 32  # channels that a weight's rows are a multiple of
SIZES = (8, 16)  # tokens a kernel is compiled for


@dataclass(frozen=True, slots=True)
class Ring:
    """How a kernel streams its weights: as much in flight as the memory needs to be busy."""

    stage: int  # channels
    num_stages: int

    def defines(self) -> dict[str, int]:
        return {"STAGE": self.stage, "NUM_STAGES": self.num_stages}

    def shared_bytes(self, num_in: int, size: int, normed: bool) -> int:
        """As skinny_linear.cu lays it out: sums, the whole of a normed input, each warp's stages."""
        sums = WARPS * (TILE * (size + 1) + size) * 4 + 2 * size * 4
        whole = size * (num_in + CHUNK) * 2 if normed else 0
        rows = TILE if normed else TILE + size
        stages = WARPS * self.num_stages * rows * (self.stage + CHUNK) * 2
        return -(-sums // 128) * 128 + whole + stages


# From the fastest on an H100 down.
RINGS = tuple(Ring(*sizes) for sizes in ((128, 3), (64, 4), (64, 3), (32, 4), (32, 3)))


@dataclass(frozen=True, slots=True)
class SkinnyProduct:
    """One product of a block."""

    kernels: tuple[tuple[int, Kernel], ...]  # by the most tokens that each takes, ascending
    grid: int

    @property
    def max_tokens(self) -> int:
        return max((size for size, _ in self.kernels), default=0)

    def __call__(self, num_tokens: int, *args: Argument) -> None:
        kernel = next(kernel for size, kernel in self.kernels if num_tokens <= size)
        kernel(self.grid, THREADS, *args, num_tokens)


def make_product(
    library: KernelLibrary,
    kind: str,
    weight: tuple[int, int],
    defines: dict[str, int],
    ring: Ring | None = None,
) -> SkinnyProduct:
    """kind: what skinny_linear.cu does with the product of a weight [out, in]. ring: None picks one."""
    num_out, num_in = weight
    own = {kind: 1, "IN": num_in, "OUT": num_out, **defines}
    kernels = []
    for size in SIZES:
        normed = bool(defines["NORMED"])
        fitting = ring or pick_ring(num_in, size, normed, max_shared_bytes(library.architecture))
        if fitting is not None:
            all_defines = {**own, **fitting.defines(), "TOKENS": size}
            num_bytes = fitting.shared_bytes(num_in, size, normed)
            kernels.append((size, library.get("skinny_linear.cu", "skinny_linear", all_defines, num_bytes)))
    return SkinnyProduct(tuple(kernels), min(num_out // TILE, library.num_multiprocessors))


def pick_ring(num_in: int, size: int, normed: bool, limit: int) -> Ring | None:
    """The first whose stages divide a row, and that fits in `limit` bytes."""
    for ring in RINGS:
        if num_in % ring.stage == 0 and ring.shared_bytes(num_in, size, normed) <= limit:
            return ring
    return None
