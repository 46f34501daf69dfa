"""Encoders on a GPU without padding: ByteTransformer's experiment (arXiv 2210.03052), BERT-base in float16.

    python -m benchmarks.encoder_gpu --peer-path FOLDER --out benchmarks/results/encoder_h100.json --plot encoder_h100.svg

FOLDER holds vLLM and what it needs, for FlashAttention 3; without it the rest is timed. Attention alone, then all layers, over batches
of 1, 8 and 16 inputs of up to 64 to 1024 tokens, lengths uniform from a fifth of that on; peers pad to the longest that may be, as the
paper's do. Then one fusion after the other, skewed lengths, and whole models of other families beside transformers. A part that fails
says why, and the others go on. Tables for people; the last line is one JSON document.
"""

import json
from functools import partial
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks import encoder_plot
from benchmarks.encoder_attention_gpu import AttentionBench, time_fa3
from benchmarks.encoder_cells import BATCHES, MAX_LENS, Cell, draw_cell
from benchmarks.encoder_families_gpu import FAMILIES, FamilyBench
from benchmarks.encoder_findings import Findings
from benchmarks.encoder_layers_gpu import LayersBench
from benchmarks.encoder_tables import print_tables
from benchmarks.encoder_timer import Budget, attempt
from engine.kernels.gpu.encoder_ops import GpuEncoderOps
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary

QUICK_BATCHES, QUICK_MAX_LENS = (16,), (128, 512)
SKEWED = 16, 512
FAMILY_CELLS = ((16, 512), (16, 128))
PARTS = "attention,layers,ablation,skew,families"


def main(
    parts: Annotated[str, typer.Option(help="What is measured.")] = PARTS,
    quick: Annotated[bool, typer.Option(help="A few cells of each part.")] = False,
    seconds: Annotated[
        float, typer.Option(help="Once so many have passed, nothing more is compiled by torch.")
    ] = 100.0,
    peer_path: Annotated[Path | None, typer.Option(help="A folder with vLLM in it.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw a picture there.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write the JSON document there too.")] = None,
) -> None:
    """Time of encoders' attention and layers, packed and padded, on one GPU."""
    if plot is not None and not encoder_plot.is_available():
        raise typer.BadParameter(encoder_plot.HOW_TO_INSTALL)
    budget = Budget(35.0 if quick else seconds)
    with torch.no_grad():
        found = _measure(parts.split(","), quick, peer_path, budget)
    print_tables(found)
    device = torch.cuda.get_device_name()
    if plot is not None:
        attempt("picture", lambda: encoder_plot.save_plot(found, f"BERT-base, float16, {device}", plot))
    facts = {"device": device, "torch": torch.__version__, "seconds": round(budget.passed, 1)}
    line = json.dumps(facts | found.document())
    if out is not None:
        out.write_text(line + "\n")
    print(line)


def _measure(parts: list[str], quick: bool, peer_path: Path | None, budget: Budget) -> Findings:
    """The largest batches first, and what must be compiled for other families before the rest of the layers."""
    found = Findings()
    library = CupyLibrary(torch.device("cuda", torch.cuda.current_device()))
    batches, max_lens = (QUICK_BATCHES, QUICK_MAX_LENS) if quick else (BATCHES, MAX_LENS)
    cells = [draw_cell(batch, max_len) for batch in batches for max_len in max_lens]
    if "attention" in parts:
        _add_attention(found, library, cells, peer_path)
    bench = attempt("weights", lambda: LayersBench(GpuEncoderOps(library), library.device, budget))
    first = [cell for cell in cells if cell.batch == batches[0]]
    if bench is not None and "layers" in parts:
        _add_layers(found, bench, first)
    if bench is not None and "ablation" in parts:
        _add_stages(found, bench, first)
    if bench is not None and "skew" in parts:
        found.skew += attempt("skew", lambda: bench.skew(*SKEWED)) or []
    if "families" in parts:
        _add_families(found, quick, budget)
    if bench is not None and "layers" in parts:
        _add_layers(found, bench, cells[len(first) :])
    return found


def _add_attention(
    found: Findings, library: KernelLibrary, cells: list[Cell], peer_path: Path | None
) -> None:
    fa3: dict[tuple[int, ...], float] = {}
    if peer_path is not None:
        fa3 = attempt("FlashAttention 3", lambda: time_fa3(peer_path, cells)) or {}
    bench = AttentionBench(library)
    for cell in cells:
        measure = partial(bench.measure, cell, fa3.get(cell.lens))
        time = attempt(f"attention {cell.name}", measure)
        found.attention += [] if time is None else [time]


def _add_layers(found: Findings, bench: LayersBench, cells: list[Cell]) -> None:
    for cell in cells:
        time = attempt(f"layers {cell.name}", partial(bench.measure, cell))
        found.layers += [] if time is None else [time]


def _add_stages(found: Findings, bench: LayersBench, cells: list[Cell]) -> None:
    for cell in cells:
        found.stages += attempt(f"ablation {cell.name}", partial(bench.ablate, cell)) or []


def _add_families(found: Findings, quick: bool, budget: Budget) -> None:
    """All of them at the first size before any at the second."""
    made = [attempt(name, partial(FamilyBench, name)) for name in FAMILIES]
    benches = [bench for bench in made if bench is not None]
    for cell in [draw_cell(*size) for size in FAMILY_CELLS[: 1 if quick else None]]:
        times = [attempt(f"families {cell.name}", partial(bench.measure, cell, budget)) for bench in benches]
        found.families += [time for time in times if time is not None]
    for bench in benches:
        bench.close()


if __name__ == "__main__":
    typer.run(main)
