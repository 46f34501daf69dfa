"""FlashAttention 3 as vLLM ships it, over packed inputs, in the cases of benchmarks.encoder_gpu. One JSON line a case.

Run by that benchmark in a process of its own, whose PYTHONPATH holds the peer.
"""

import json
import sys
from itertools import accumulate

import torch
from vllm.vllm_flash_attn.flash_attn_interface import (  # pyright: ignore[reportMissingImports]
    flash_attn_varlen_func,
)

from benchmarks.gpu_timer import time_us


def main() -> None:
    """Cases as JSON [[length of each input], ...] and the geometry as JSON [heads, head_dim]."""
    cases, (num_heads, head_dim) = (json.loads(argument) for argument in sys.argv[1:])
    for lens in cases:
        print(json.dumps({"lens": lens, "us": round(attend_us(lens, num_heads, head_dim), 2)}), flush=True)


def attend_us(lens: list[int], num_heads: int, head_dim: int) -> float:
    """Microseconds over the packed projections of a layer, fp16."""
    qkv = torch.randn(sum(lens), 3, num_heads, head_dim, device="cuda", dtype=torch.float16)
    starts = torch.tensor([0, *accumulate(lens)], device="cuda", dtype=torch.int32)
    queries, keys, values = qkv.unbind(1)
    longest = max(lens)

    def launch() -> None:
        flash_attn_varlen_func(
            queries, keys, values, max_seqlen_q=longest, cu_seqlens_q=starts, max_seqlen_k=longest,
            cu_seqlens_k=starts, causal=False, fa_version=3,
        )  # fmt: skip

    torch.cuda.synchronize()  # the timer has a stream of its own
    return time_us(launch)


if __name__ == "__main__":
    main()
