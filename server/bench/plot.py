"""One picture of a load: how latencies are spread, and what happened when."""

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from server.bench.record import Record
from server.bench.summary import chunk_times, chunk_tokens

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_INSTALL = "--plot needs matplotlib: pip install 'tokenloom[plot]'"


def is_available() -> bool:
    return importlib.util.find_spec("matplotlib") is not None


def check_format(path: Path) -> None:
    """Raises ValueError for a path whose suffix says no format that can be drawn."""
    from matplotlib.backend_bases import FigureCanvasBase

    formats = FigureCanvasBase.get_supported_filetypes()
    if path.suffix[1:].lower() not in formats:
        raise ValueError(
            f"--plot {path}: accepted is a name that ends in one of {', '.join(sorted(formats))}"
        )


def save_plot(records: Sequence[Record], title: str, path: Path) -> None:
    """Write an image in the format of the path's suffix, one that `check_format` lets through."""
    from matplotlib.figure import Figure

    done = sorted((record for record in records if not record.error), key=lambda record: record.start)
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = list(figure.subplots(3, 2).flat)
    figure.suptitle(title)
    _distribution(axes[0], "time to first token", [record.ttft for record in done])
    _distribution(
        axes[1], "time per output token", [record.tpot for record in done if record.tpot is not None]
    )
    _distribution(axes[2], "between chunks", [gap for record in done for gap in record.gaps])
    _distribution(axes[3], "whole request", [record.e2el for record in done])
    _timeline(axes[4], done)
    _throughput(axes[5], done)
    figure.savefig(path)


def _distribution(axes: "Axes", title: str, seconds: Sequence[float]) -> None:
    """The share of values below each."""
    values = np.sort(np.asarray(seconds)) * 1000
    axes.plot(values, (np.arange(len(values)) + 1) / max(1, len(values)), drawstyle="steps-post")
    axes.set_title(title)
    axes.set_xlabel("ms")
    axes.set_ylabel("share of them below")
    axes.set_ylim(0, 1)
    axes.grid(alpha=0.3)


def _timeline(axes: "Axes", done: Sequence[Record]) -> None:
    """A line a request: light while it waits for its first token, dark while tokens come."""
    origin = done[0].start if done else 0.0
    for row, record in enumerate(done):
        axes.hlines(row, record.start - origin, record.first - origin, color="0.75", linewidth=1)
        axes.hlines(row, record.first - origin, record.last - origin, color="C0", linewidth=1)
    axes.set_title("requests: waiting, then answering")
    axes.set_xlabel("s")
    axes.set_ylabel("request")


def _throughput(axes: "Axes", done: Sequence[Record]) -> None:
    axes.set_title("output tokens in each second")
    axes.set_xlabel("s")
    axes.set_ylabel("tok/s")
    if done:
        times = np.concatenate([chunk_times(record) for record in done]) - done[0].start
        weights = np.concatenate([chunk_tokens(record) for record in done])
        axes.plot(np.bincount(times.astype(np.int64), weights=weights), drawstyle="steps-post")
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3)
