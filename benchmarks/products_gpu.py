"""Matrix products of a decode step on a GPU: our skinny kernels and cuBLAS over the same weights, by number of tokens.

    python -m benchmarks.products_gpu --out benchmarks/results/products_gpu.json
    python -m benchmarks.products_gpu --tokens 32 --ways 1x1,2x1,2x2,4x2,4x4

The weights of several layers take turns, so that none is found in the cache. A table for people; the last line is one JSON document.
"""

import itertools
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import torch
import torch.nn.functional as F
import typer
from rich.console import Console
from rich.table import Table

from benchmarks.gpu_timer import time_us
from engine.kernels.gpu import skinny_product, skinny_wide
from engine.kernels.gpu.decode_attention import max_shared_bytes
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from engine.kernels.gpu.skinny_wide import Tiling, fit_tiling

READ_RATE = 3.09e12  # bytes a second, measured on an H100
CACHE_BYTES = 256 << 20  # of weights that take turns: several times the cache
NORMED = ("qkv", "gate_up")
Launch = Callable[[], object]
SHAPES = {  # out, in
    "8B qkv": (6144, 4096),
    "8B o": (4096, 4096),
    "8B gate_up": (28672, 4096),
    "8B down": (4096, 14336),
    "1B qkv": (3072, 2048),
    "1B o": (2048, 2048),
    "1B gate_up": (16384, 2048),
    "1B down": (2048, 8192),
    "135M qkv": (960, 576),
    "135M gate_up": (3072, 576),
    "135M down": (576, 1536),
}


@dataclass(frozen=True, slots=True)
class Result:
    product: str
    tokens: int
    way: str  # tiles x slices, where it was not picked
    ours_us: float
    fused_us: float  # ours, with the norm before it or the addition behind it that a block has there
    cublas_us: float
    floor_us: float  # the weights' bytes over READ_RATE


def main(
    tokens: Annotated[str, typer.Option(help="Tokens of a step.")] = "1,8,16,32",
    ways: Annotated[str, typer.Option(help="Tiles x slices to try for more than 16 tokens too.")] = "",
    shapes: Annotated[str, typer.Option(help="Measure products whose names begin so.")] = "",
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Time of each product of a block, ours and cuBLAS's."""
    library = CupyLibrary(torch.device("cuda", torch.cuda.current_device()))
    names = [name for name in SHAPES if name.startswith(shapes)]
    results = [
        result
        for name, n in itertools.product(names, map(int, tokens.split(",")))
        for result in _measure(library, name, n, ways.split(",") if ways else [])
    ]
    _show(results)
    line = json.dumps({"device": torch.cuda.get_device_name(), "results": [asdict(r) for r in results]})
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def _show(results: list[Result]) -> None:
    columns = (
        "product",
        "tokens",
        "way",
        "ours us",
        "fused us",
        "cuBLAS us",
        "floor us",
        "/ floor",
        "cuBLAS / ours",
    )
    table = Table(*columns)
    for r in results:
        times = r.ours_us, r.fused_us, r.cublas_us, r.floor_us
        ratios = f"{r.ours_us / r.floor_us:.2f}", f"{r.cublas_us / r.ours_us:.2f}"
        table.add_row(r.product, str(r.tokens), r.way, *(f"{us}" for us in times), *ratios)
    Console(width=110).print(table)


def _measure(library: KernelLibrary, name: str, num_tokens: int, ways: list[str]) -> Iterator[Result]:
    num_out, num_in = SHAPES[name]
    num_copies = min(64, max(2, CACHE_BYTES // (num_out * num_in * 2)))
    weights = [torch.randn(num_out, num_in, device="cuda", dtype=torch.bfloat16) for _ in range(num_copies)]
    x = torch.randn(num_tokens, num_in, device="cuda", dtype=torch.bfloat16)
    cublas, floor = time_us(_cublas(weights, x)), num_out * num_in * 2 / READ_RATE * 1e6
    normed = name.endswith(NORMED)
    for way in ["", *(ways if num_tokens > max(skinny_product.SIZES) else [])]:
        pair = _pair(library, weights, x, normed, way)
        if pair is not None:
            ours, fused = map(time_us, pair)
            yield Result(name, num_tokens, way, *(round(us, 2) for us in (ours, fused, cublas, floor)))


def _pair(
    library: KernelLibrary, weights: list[torch.Tensor], x: torch.Tensor, normed: bool, way: str
) -> tuple[Launch, Launch] | None:
    """The product alone, and fused. None: it cannot be computed in that way."""
    if x.shape[0] <= max(skinny_product.SIZES):
        return _few(library, weights, x, False), _few(library, weights, x, normed)
    num_out, num_in = weights[0].shape
    limit, num_multiprocessors = max_shared_bytes(library.architecture), library.num_multiprocessors
    if not way:
        tiling = skinny_wide.pick_tiling(num_out, num_in, num_multiprocessors, limit, not normed)
        return _wide(library, weights, x, tiling), _wide_fused(library, weights, x, tiling, normed)
    tiles, slices = map(int, way.split("x"))
    tried = fit_tiling(tiles, num_in, slices, limit)
    if tried is None or (normed and slices > 1):
        return None
    return _wide(library, weights, x, tried), _wide_fused(library, weights, x, tried, normed)


def _few(library: KernelLibrary, weights: list[torch.Tensor], x: torch.Tensor, normed: bool) -> Launch:
    """normed: of the residual stream, with the RMSNorm in it."""
    num_out, num_in = weights[0].shape
    product = skinny_product.make_product(library, "STORED", (num_out, num_in), {"NORMED": int(normed)})
    y, turns = x.new_empty(x.shape[0], num_out), itertools.cycle(weights)
    source, norm = (x.float(), torch.ones(num_in, device="cuda")) if normed else (x, None)
    return lambda: product(x.shape[0], next(turns), None, source, norm, 1e-5, y)


def _wide(library: KernelLibrary, weights: list[torch.Tensor], x: torch.Tensor, tiling: Tiling) -> Launch:
    num_out, num_in = weights[0].shape
    product = skinny_wide.make_wide_product(library, "STORED", (num_out, num_in), {}, tiling)
    y, turns = x.new_empty(x.shape[0], num_out), itertools.cycle(weights)
    return lambda: product(x.shape[0], next(turns), None, x, y)


def _wide_fused(
    library: KernelLibrary, weights: list[torch.Tensor], x: torch.Tensor, tiling: Tiling, normed: bool
) -> Launch:
    """normed: with the RMSNorm before and SwiGLU behind it; else added to the residual stream, for the norm that follows."""
    num_out, num_in = weights[0].shape
    kind = "GATED" if normed else "ADDED"
    product = skinny_wide.make_wide_product(library, kind, (num_out, num_in), {}, tiling)
    turns, norm = itertools.cycle(weights), torch.ones(max(num_in, num_out), device="cuda")
    stream = torch.zeros(x.shape[0], num_in if normed else num_out, device="cuda")
    begin = skinny_wide.WideInputs(library, stream.shape[1], {})
    made, y = begin(stream, norm, x.dtype), x.new_empty(x.shape[0], num_out // 2)
    if normed:
        return lambda: product(x.shape[0], next(turns), None, made.weighted, made.squares, 1e-5, y)
    return lambda: product(x.shape[0], next(turns), None, x, stream, norm, made.weighted, made.squares)


def _cublas(weights: list[torch.Tensor], x: torch.Tensor) -> Launch:
    turns = itertools.cycle(weights)
    return lambda: F.linear(x, next(turns))


if __name__ == "__main__":
    typer.run(main)
