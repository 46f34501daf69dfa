"""FlashAttention 3 as vLLM ships it, on the cases of benchmarks.attention_gpu. One JSON line a case.

Run by that benchmark in a process of its own, whose PYTHONPATH holds the peer.
"""

import json
import sys

import torch
import triton.testing  # pyright: ignore[reportMissingImports]
from vllm.vllm_flash_attn.flash_attn_interface import (  # pyright: ignore[reportMissingImports]
    flash_attn_varlen_func,
)

NUM_HEADS, NUM_KV_HEADS, HEAD_DIM, BLOCK_SIZE = 32, 8, 128, 16


def decode(rows: int, context: int) -> float:
    """Microseconds of one new token for each row."""
    num_blocks = rows * context // BLOCK_SIZE
    keys = _normal(num_blocks, BLOCK_SIZE, NUM_KV_HEADS, HEAD_DIM)
    values = torch.randn_like(keys)
    tables = torch.randperm(num_blocks, device="cuda", dtype=torch.int32).view(rows, -1)
    queries = _normal(rows, NUM_HEADS, HEAD_DIM)
    starts = torch.arange(rows + 1, device="cuda", dtype=torch.int32)
    contexts = torch.full((rows,), context, device="cuda", dtype=torch.int32)

    def launch() -> None:
        flash_attn_varlen_func(
            queries, keys, values, max_seqlen_q=1, cu_seqlens_q=starts, max_seqlen_k=context,
            seqused_k=contexts, block_table=tables, causal=True, fa_version=3,
        )  # fmt: skip

    launch()
    return float(triton.testing.do_bench_cudagraph(launch, return_mode="median")) * 1e3


def prompt(rows: int, context: int) -> float:
    """Microseconds of whole prompts, causal."""
    queries = _normal(rows * context, NUM_HEADS, HEAD_DIM)
    keys = _normal(rows * context, NUM_KV_HEADS, HEAD_DIM)
    values = torch.randn_like(keys)
    starts = torch.arange(0, rows * context + 1, context, device="cuda", dtype=torch.int32)

    def launch() -> None:
        flash_attn_varlen_func(
            queries, keys, values, max_seqlen_q=context, cu_seqlens_q=starts, max_seqlen_k=context,
            cu_seqlens_k=starts, causal=True, fa_version=3,
        )  # fmt: skip

    launch()
    return float(triton.testing.do_bench(launch, return_mode="median")) * 1e3


def _normal(*shape: int) -> torch.Tensor:
    return torch.randn(shape, device="cuda", dtype=torch.bfloat16)


def main() -> None:
    """Cases as decode:rows:context or prompt:rows:context."""
    for case in sys.argv[1:]:
        kind, rows, context = case.split(":")
        measure = decode if kind == "decode" else prompt
        print(json.dumps({"case": case, "us": round(measure(int(rows), int(context)), 1)}), flush=True)


if __name__ == "__main__":
    main()
