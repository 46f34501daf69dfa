"""How kernels share out rows as wide as the vocabulary: cuda/include/vocab_row.cuh and listing.cuh."""

import torch

THREADS = 512  # a block's
BLOCKS_A_MULTIPROCESSOR = 2  # at once
MAX_PARTS = 32  # blocks that share a row: as many as a warp has lanes
MAX_LISTED = 4096  # tokens of a row that one block keeps in shared memory
GROUP = 4  # tokens looked at together, 16 bytes
MIN_GROUPS = 128  # in a part
LIST_BYTES = 8 * MAX_LISTED + 4 * THREADS  # a row's list, and the largest logit of each class of its tokens


def vocab_defines(vocab_size: int, work_bytes: int) -> dict[str, int]:
    """work_bytes: what the kernel keeps of a row between launches."""
    return {
        "VOCAB": vocab_size,
        "THREADS": THREADS,
        "MAX_PARTS": MAX_PARTS,
        "MAX_LISTED": MAX_LISTED,
        "WORK_BYTES": work_bytes,
    }


def num_parts(num_rows: int, vocab_size: int, num_multiprocessors: int) -> int:
    """Blocks a row, a power of two: as many as run at once, as long as each has something to do."""
    wanted = min(
        BLOCKS_A_MULTIPROCESSOR * num_multiprocessors // num_rows,
        vocab_size // (GROUP * MIN_GROUPS),
        MAX_PARTS,
    )
    return 1 << max(1, wanted).bit_length() - 1


def check_logits(logits: torch.Tensor, vocab_size: int, max_rows: int) -> None:
    """Raises ValueError for what is not float32 [at most max_rows, vocab_size] with rows that the kernels can load."""
    num_rows, vocab = logits.shape
    if logits.dtype != torch.float32 or logits.stride(1) != 1 or vocab != vocab_size:
        raise ValueError(
            f"logits are {logits.dtype} [rows, {vocab}], stride {logits.stride(1)}; "
            f"accepted: torch.float32 [rows, {vocab_size}], stride 1"
        )
    if vocab % GROUP == 0 and (logits.stride(0) % GROUP or logits.data_ptr() % 16):
        raise ValueError("rows of logits begin at odd places; accepted: multiples of 16 bytes")
    if num_rows > max_rows:
        raise ValueError(f"{num_rows} rows of logits; there are at most {max_rows}")
