"""How cuda/include/attention_mma.cuh cuts attention into tiles, for any architecture from sm_80 on."""

from dataclasses import dataclass

WARP = 32
HEAD_DIMS = (32, 64, 96, 128, 256)


@dataclass(frozen=True, slots=True)
class MmaTile:
    """Queries that a block works on, and the keys it takes at a time."""

    head_dim: int
    num_rows: int
    num_keys: int

    @property
    def num_threads(self) -> int:
        """A warp has 32 rows; with heads of 256 channels their results leave registers for 16."""
        return self.num_rows // (32 if self.head_dim <= 128 else 16) * WARP

    @property
    def shared_bytes(self) -> int:
        """The queries, a tile of values and two of keys, 16 bits an element."""
        return (self.num_rows + 3 * self.num_keys) * self.head_dim * 2

    def defines(self) -> dict[str, int]:
        return {"TILE_M": self.num_rows, "TILE_N": self.num_keys}


def mma_tile(head_dim: int) -> MmaTile:
    """As much as fits in registers, and in the 99 KiB that a block has on every GPU which runs sm_80's code. Errors: ValueError."""
    if head_dim not in HEAD_DIMS:
        raise ValueError(
            f"attention heads of {head_dim} channels; accepted: {', '.join(map(str, HEAD_DIMS))}"
        )
    if head_dim == 256:
        return MmaTile(head_dim, 64, 32)
    return MmaTile(head_dim, 128, 48 if head_dim == 128 else 64)
