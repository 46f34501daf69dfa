"""The encoder benchmark's findings as one picture."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.encoder_findings import MEAN_BATCH, Findings, Ratios, attention_ratios, layers_ratios
from benchmarks.encoder_layers_gpu import SkewTime, StageTime

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_INSTALL = "--plot needs matplotlib: pip install 'tokenloom[plot]'"


def is_available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def save_plot(found: Findings, title: str, path: Path) -> None:
    """In the format of the path's suffix. Errors: ValueError for an unknown one."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 9), layout="constrained")
    figure.suptitle(title)
    axes = list(figure.subplots(2, 2).flat)
    attention = {t.max_len: attention_ratios(t) for t in found.attention if t.batch == MEAN_BATCH}
    layers = {t.max_len: layers_ratios(t) for t in found.layers if t.batch == MEAN_BATCH}
    _ratios(axes[0], f"attention alone, batch {MEAN_BATCH}", attention)
    _ratios(axes[1], f"12 layers, batch {MEAN_BATCH}", layers)
    _stages(axes[2], found.stages)
    _skew(axes[3], found.skew)
    figure.savefig(path)


def _ratios(axes: "Axes", title: str, by_len: dict[int, Ratios]) -> None:
    """A line a peer."""
    for peer in dict.fromkeys(name for ratios in by_len.values() for name in ratios):
        points = [(max_len, ratios[peer]) for max_len, ratios in by_len.items() if peer in ratios]
        axes.plot(*zip(*points, strict=True), marker="o", label=peer)
    axes.axhline(1, color="0.5", linewidth=1)
    axes.set_xscale("log", base=2)
    axes.set_xticks(list(by_len), [str(max_len) for max_len in by_len])
    axes.set_yscale("log", base=2)
    axes.set_title(title)
    axes.set_xlabel("longest input, tokens")
    axes.set_ylabel("its time over ours")
    axes.grid(alpha=0.3)
    if by_len:
        axes.legend()


def _stages(axes: "Axes", stages: Sequence[StageTime]) -> None:
    """A group of bars a cell: each stage's speed over the padded one's."""
    names = list(dict.fromkeys(t.stage for t in stages))
    cells = list(dict.fromkeys((t.batch, t.max_len) for t in stages))
    ms = {(t.batch, t.max_len, t.stage): t.ms for t in stages}
    for place, name in enumerate(names):
        speeds = [ms[*cell, names[0]] / ms[*cell, name] for cell in cells]
        axes.bar([i + 0.16 * place for i in range(len(cells))], speeds, width=0.15, label=name)
    axes.set_xticks([i + 0.32 for i in range(len(cells))], [f"{batch} x {n}" for batch, n in cells])
    axes.set_title("12 layers, one fusion after the other")
    axes.set_ylabel("speed over padded, unfused")
    axes.grid(alpha=0.3, axis="y")
    if names:
        axes.legend()


def _skew(axes: "Axes", skew: Sequence[SkewTime]) -> None:
    means = [t.mean for t in skew]
    axes.plot(means, [t.ours_ms for t in skew], marker="o", label="ours")
    axes.plot(means, [t.sdpa_ms for t in skew], marker="o", label="padded, sdpa")
    compiled = [(t.mean, t.compiled_ms) for t in skew if t.compiled_ms is not None]
    if compiled:
        axes.plot(*zip(*compiled, strict=True), marker="o", label="padded, sdpa, compiled")
    axes.set_title("12 layers, by skew of the lengths")
    axes.set_xlabel("mean length over the longest")
    axes.set_ylabel("ms")
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
    axes.legend()
