"""Matrix products of a decode step on a GPU: our skinny kernels and cuBLAS over the same weights, by number of tokens.

    python -m benchmarks.products_gpu --out benchmarks/results/products_gpu.json

The weights of several layers take turns, so that none is found in the cache. A table for people; the last line is one JSON document.
"""

import itertools
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_timer import time_us
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from engine.kernels.gpu.skinny import make_product

READ_RATE = 3.09e12  # bytes a second, measured on an H100
CACHE_BYTES = 256 << 20  # of weights that take turns: several times the cache
NORMED = ("qkv", "gate_up")
SHAPES = {  # out, in
    "8B qkv": (6144, 4096),
    "8B o": (4096, 4096),
    "8B gate_up": (28672, 4096),
    "8B down": (4096, 14336),
    "1B qkv": (3072, 2048),
    "1B gate_up": (16384, 2048),
    "1B down": (2048, 8192),
    "135M qkv": (960, 576),
    "135M down": (576, 1536),
}


@dataclass(frozen=True, slots=True)
class Result:
    product: str
    tokens: int
    ours_us: float
    normed_us: float  # ours, with the norm before it where a block has one there
    cublas_us: float
    floor_us: float  # the weights' bytes over READ_RATE


def main(
    tokens: Annotated[str, typer.Option(help="Tokens of a step.")] = "1,8,16",
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Time of each product of a block, ours and cuBLAS's."""
    library = CupyLibrary(torch.device("cuda", torch.cuda.current_device()))
    results = [_measure(library, name, int(n)) for name in SHAPES for n in tokens.split(",")]
    table = Table(
        "product", "tokens", "ours us", "normed us", "cuBLAS us", "floor us", "/ floor", "cuBLAS / ours"
    )
    for r in results:
        ratios = f"{r.ours_us / r.floor_us:.2f}", f"{r.cublas_us / r.ours_us:.2f}"
        row = (
            r.product,
            str(r.tokens),
            f"{r.ours_us}",
            f"{r.normed_us}",
            f"{r.cublas_us}",
            f"{r.floor_us}",
            *ratios,
        )
        table.add_row(*row)
    Console(width=100).print(table)
    line = json.dumps({"device": torch.cuda.get_device_name(), "results": [asdict(r) for r in results]})
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def _measure(library: KernelLibrary, name: str, num_tokens: int) -> Result:
    num_out, num_in = SHAPES[name]
    num_copies = min(64, max(2, CACHE_BYTES // (num_out * num_in * 2)))
    weights = [torch.randn(num_out, num_in, device="cuda", dtype=torch.bfloat16) for _ in range(num_copies)]
    x = torch.randn(num_tokens, num_in, device="cuda", dtype=torch.bfloat16)
    plain = time_us(_ours(library, weights, x, False))
    normed = time_us(_ours(library, weights, x, True)) if name.endswith(NORMED) else plain
    floor = num_out * num_in * 2 / READ_RATE * 1e6
    cublas = time_us(_cublas(weights, x))
    return Result(name, num_tokens, *(round(us, 2) for us in (plain, normed, cublas, floor)))


def _ours(
    library: KernelLibrary, weights: list[torch.Tensor], x: torch.Tensor, normed: bool
) -> Callable[[], None]:
    """normed: of the residual stream, with the RMSNorm in it."""
    num_out, num_in = weights[0].shape
    product = make_product(library, "STORED", (num_out, num_in), {"NORMED": int(normed)})
    y, turns = x.new_empty(x.shape[0], num_out), itertools.cycle(weights)
    source, norm = (x.float(), torch.ones(num_in, device="cuda")) if normed else (x, None)
    return lambda: product(x.shape[0], next(turns), None, source, norm, 1e-5, y)


def _cublas(weights: list[torch.Tensor], x: torch.Tensor) -> Callable[[], object]:
    turns = itertools.cycle(weights)
    return lambda: F.linear(x, next(turns))


if __name__ == "__main__":
    typer.run(main)
