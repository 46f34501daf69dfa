"""The files that all processes count in, as the text that Prometheus reads.

As prometheus_client's own collector does it, whose format the files have, but what a file's keys mean is worked out once and not at
every reading: a reading takes its time from the streams that this process serves.
"""

import json
from bisect import insort
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.utils import floatToGoString


@dataclass(frozen=True, slots=True, order=True)
class Bucket:
    """Of a histogram, as one key of the files names it."""

    bound: float
    key: str
    line: str  # up to the number


@dataclass(slots=True)
class Series:
    """One set of labels of a metric: a number, or buckets and their sum."""

    key: str = ""  # of the number, or of the sum
    line: str = ""
    count_line: str = ""
    buckets: list[Bucket] = field(default_factory=list)

    def lines(self, values: dict[str, float]) -> Iterator[str]:
        """None of a gauge that no living process has set."""
        total = 0.0
        for (
            bucket
        ) in self.buckets:  # each holds what is above the one before: Prometheus wants all below its bound
            total += values.get(bucket.key, 0.0)
            yield f"{bucket.line} {_number(total)}\n"
        if self.buckets:
            yield f"{self.count_line} {_number(total)}\n"
        if self.key in values:
            yield f"{self.line} {_number(values[self.key])}\n"


@dataclass(slots=True)
class Shown:
    """One metric: how it is introduced, and its series by their labels."""

    head: str
    series: dict[str, Series] = field(default_factory=dict)


class Exposition:
    """Of one directory, the one that `share_metrics` was given. For one thread."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: set[str] = set()  # keys
        self._shown: dict[str, Shown] = {}

    def render(self) -> bytes:
        """What all processes have counted; of a gauge, what was set last."""
        values: dict[str, float] = {}
        times: dict[str, float] = {}
        for kind, entries in self._files():
            for key, value, time in entries:
                if key not in self._known:
                    self._learn(kind, key)
                if kind != "gauge":
                    values[key] = values.get(key, 0.0) + value
                elif time > times.get(key, 0.0):
                    values[key], times[key] = value, time
        return "".join(self._text(values)).encode()

    def _files(self) -> Iterator[tuple[str, Iterable[tuple[str, float, float]]]]:
        for path in self._directory.glob("*.db"):
            try:
                entries = MmapedDict.read_all_values_from_file(path)  # type: ignore[no-untyped-call]
            except FileNotFoundError:  # of a process that has just died
                continue
            yield path.name.partition("_")[0], ((key, value, time) for key, value, time, _ in entries)

    def _text(self, values: dict[str, float]) -> Iterator[str]:
        for shown in self._shown.values():
            yield shown.head
            for series in shown.series.values():
                yield from series.lines(values)

    def _learn(self, kind: str, key: str) -> None:
        metric, name, labels, text = json.loads(key)
        name += "_total" if kind == "counter" and not name.endswith("_total") else ""
        exposed = name if kind == "counter" else metric
        if metric not in self._shown:
            head = f"# HELP {exposed} {_escape(text, quotes=False)}\n# TYPE {exposed} {kind}\n"
            self._shown[metric] = Shown(head)
        bound = labels.pop("le", None)
        series = self._shown[metric].series.setdefault(json.dumps(labels, sort_keys=True), Series())
        if bound is None:
            series.key, series.line = key, name + _labels(labels)
            series.count_line = f"{metric}_count{_labels(labels)}"
        else:
            insort(series.buckets, Bucket(float(bound), key, name + _labels(labels | {"le": bound})))
            series.count_line = f"{metric}_count{_labels(labels)}"
        self._known.add(key)


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call]


def _labels(labels: dict[str, str]) -> str:
    inside = ",".join(f'{name}="{_escape(value)}"' for name, value in sorted(labels.items()))
    return f"{{{inside}}}" if inside else ""


def _escape(text: str, quotes: bool = True) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quotes else escaped
