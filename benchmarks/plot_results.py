"""The results beside peers as one picture, benchmarks/results/peers.svg, from the files beside it.

python -m benchmarks.plot_results
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

if TYPE_CHECKING:
    from matplotlib.axes import Axes

RESULTS = Path(__file__).parent / "results"
PICTURE = RESULTS / "peers.svg"
BATCH = 16
# One colour a server in all panels; grey is what memory and products alone take.
COLOURS = {
    "tokenloom": "#1b6ca8",
    "tokenloom float32": "#8fc1e3",
    "llama-server, 4 bits": "#e8a33d",
    "transformers": "#7d5a4a",
    "transformers float32": "#c3a799",
    "vLLM": "#c0504d",
    "padded, SDPA": "#7f9f5f",
    "padded, compiled": "#9d7bb8",
    "floor": "#d9d9d9",
}
SERVERS_ON_CPU = {
    "tokenloom bfloat16": "tokenloom",
    "tokenloom float32": "tokenloom float32",
    "llama-server Q4_1": "llama-server, 4 bits",
    "transformers serve bfloat16": "transformers",
    "transformers serve float32": "transformers float32",
}


class Panel(TypedDict):
    label: str  # of the axis
    places: list[str]  # on it
    bars: dict[str, list[float]]  # a height at each place


def find_panels() -> dict[str, Panel]:
    return {
        "Two cores: output tokens a second (more is better)": cpu_throughput(),
        "H100, Llama-3.2-1B: ms of a step (less is better)": decode_steps(),
        f"H100, BERT-base, {BATCH} inputs: ms (less is better)": encoder_layers(),
    }


def draw(picture: Path) -> None:
    """As SVG, which also holds the figures: whether they are today's can be read from it."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.fonttype"] = "none"
    matplotlib.rcParams["svg.hashsalt"] = "tokenloom"  # the same figures make the same file
    figure = Figure(figsize=(12, 3.6), layout="constrained", facecolor="white")
    panels = find_panels()
    for axes, (title, panel) in zip(figure.subplots(1, len(panels)), panels.items(), strict=True):
        _draw(axes, title, panel)
    figure.savefig(picture, metadata={"Date": None, "Description": json.dumps(panels)})


def cpu_throughput() -> Panel:
    results = _document("cpu_avx512.json")["results"]
    bars: dict[str, list[float]] = {shown: [] for shown in SERVERS_ON_CPU.values()}
    for result in results:
        bars[SERVERS_ON_CPU[result["server"]]].append(result["output_throughput"])
    places = dict.fromkeys(str(result["concurrency"]) for result in results)
    return {"label": "requests at once", "places": list(places), "bars": bars}


def decode_steps() -> Panel:
    found = _document("step_h100_1b.json")
    steps = found["steps"]
    peer = {p["batch"]: p["step_ms"] for p in found["peer"] if p.get("prompt") == steps[0]["prompt"]}
    bars = {
        "floor": [step["floor_ms"] for step in steps],
        "tokenloom": [step["step_ms"] for step in steps],
        "vLLM": [peer[step["rows"]] for step in steps],
    }
    return {"label": "rows", "places": [str(step["rows"]) for step in steps], "bars": bars}


def encoder_layers() -> Panel:
    cells = [cell for cell in _document("encoder_h100.json")["layers"] if cell["batch"] == BATCH]
    bars = {
        "floor": [cell["floor_ms"] for cell in cells],
        "tokenloom": [cell["ours_ms"] for cell in cells],
        "padded, compiled": [cell["compiled_ms"] for cell in cells],
        "padded, SDPA": [cell["sdpa_ms"] for cell in cells],
    }
    return {
        "label": "longest input, tokens",
        "places": [str(cell["max_len"]) for cell in cells],
        "bars": bars,
    }


def _document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / name).read_text(encoding="utf-8"))
    return found


def _draw(axes: "Axes", title: str, panel: Panel) -> None:
    """A group of bars at each place."""
    places, bars = panel["places"], panel["bars"]
    width = 0.8 / len(bars)
    for number, (name, heights) in enumerate(bars.items()):
        lefts = [place + number * width for place in range(len(places))]
        axes.bar(lefts, heights, width, label=name, color=COLOURS[name])
    axes.set_xticks([place + 0.4 - width / 2 for place in range(len(places))], places)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(panel["label"])
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
    axes.margins(y=0.35)  # the legend stands over the bars
    axes.legend(loc="upper left", fontsize=8)


if __name__ == "__main__":
    draw(PICTURE)
