"""The encoder benchmark's findings as tables."""

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

from benchmarks.encoder_findings import (
    MEAN_BATCH,
    Findings,
    Ratios,
    attention_ratios,
    family_ratios,
    layers_ratios,
)

ATTENTION_PEERS = ("unfused", "split", "sdpa", "fa3")
LAYERS_PEERS = ("unfused", "sdpa", "compiled")
MEAN = f"mean, batch {MEAN_BATCH}"
WIDTH = 180


def print_tables(found: Findings) -> None:
    """Those of parts that ran; then the cells that lose."""
    console = Console(width=WIDTH)
    parts = (
        (found.attention, _attention),
        (found.layers, _layers),
        (found.stages, _stages),
        (found.skew, _skew),
        (found.families, _families),
    )
    for times, make in parts:
        if times:
            console.print(make(found))
    for line in found.losing():
        console.print(f"lost: {line}", highlight=False)


def _attention(found: Findings) -> Table:
    columns = "tokens", "ours us", "plan us", "floor us", *_heads(ATTENTION_PEERS, "us"), "difference"
    table = Table("attention", *columns)
    for t in found.attention:
        times = t.ours_us, t.plan_us, t.floor_us, t.unfused_us, t.split_us, t.sdpa_us, t.fa3_us
        ratios = _cells(attention_ratios(t), ATTENTION_PEERS)
        table.add_row(
            f"{t.batch} x {t.max_len}", str(t.tokens), *map(_number, times), *ratios, f"{t.difference}"
        )
    table.add_row(MEAN, *[""] * 8, *_cells(found.attention_means(), ATTENTION_PEERS), "")
    return table


def _layers(found: Findings) -> Table:
    columns = "tokens", "ours ms", "floor ms", "ours / floor", *_heads(LAYERS_PEERS, "ms"), "difference"
    table = Table("12 layers", *columns)
    for t in found.layers:
        times = t.ours_ms, t.floor_ms, t.ours_ms / t.floor_ms, t.unfused_ms, t.sdpa_ms, t.compiled_ms
        ratios = _cells(layers_ratios(t), LAYERS_PEERS)
        table.add_row(
            f"{t.batch} x {t.max_len}", str(t.tokens), *map(_number, times), *ratios, f"{t.difference}"
        )
    table.add_row(MEAN, *[""] * 7, *_cells(found.layers_means(), LAYERS_PEERS), "")
    return table


def _stages(found: Findings) -> Table:
    table = Table("ablation", "stage", "ms", "stage before / this", "padded / this")
    first = before = found.stages[0].ms
    for t in found.stages:
        if t.stage == found.stages[0].stage:
            first = before = t.ms
        ratios = f"{before / t.ms:.3f}", f"{first / t.ms:.2f}"
        table.add_row(f"{t.batch} x {t.max_len}", t.stage, _number(t.ms), *ratios)
        before = t.ms
    return table


def _skew(found: Findings) -> Table:
    peers = "sdpa ms", "compiled ms", "without a mask ms"
    table = Table("mean / longest", "tokens", "ours ms", *peers, "best masked / ours", "packing costs")
    for t in found.skew:
        best = min(ms for ms in (t.sdpa_ms, t.compiled_ms) if ms is not None)
        times = t.ours_ms, t.sdpa_ms, t.compiled_ms, t.unmasked_ms
        ratios = f"{best / t.ours_ms:.2f}", f"{t.packing_cost:.2%}"
        table.add_row(f"{t.mean}", str(t.tokens), *map(_number, times), *ratios)
    return table


def _families(found: Findings) -> Table:
    columns = "cell", "tokens", "ours ms", *_heads(LAYERS_PEERS, "ms"), "least cosine"
    table = Table("transformers", *columns)
    for t in found.families:
        times = t.ours_ms, t.unfused_ms, t.sdpa_ms, t.compiled_ms
        cell, ratios = f"{t.batch} x {t.max_len}", _cells(family_ratios(t), LAYERS_PEERS)
        table.add_row(t.family, cell, str(t.tokens), *map(_number, times), *ratios, f"{t.cosine}")
    return table


def _heads(peers: Sequence[str], unit: str) -> list[str]:
    return [*(f"{peer} {unit}" for peer in peers), *(f"{peer} / ours" for peer in peers)]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _cells(ratios: Ratios, peers: Sequence[str]) -> list[str]:
    return [f"{ratios[peer]:.2f}" if peer in ratios else "" for peer in peers]
