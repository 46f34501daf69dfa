"""From records to the numbers people compare. Definitions are those of `vllm bench serve`."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from server.bench.load import Run
from server.bench.record import Record

LIMITS = ("ttft", "tpot", "e2el")


@dataclass(frozen=True, slots=True)
class Spread:
    """Milliseconds."""

    mean: float
    median: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Summary:
    """One load against one server. Latencies and tokens are of the requests that completed."""

    completed: int
    failed: int
    errors: Mapping[str, int]  # by cause
    seconds: float
    interrupted: bool
    input_tokens: int
    output_tokens: int
    request_throughput: float  # completed requests a second
    output_throughput: float  # tokens a second
    total_throughput: float  # tokens a second, prompts included
    peak_output_throughput: float  # tokens in the best whole second
    peak_concurrency: int
    goodput: float | None  # requests a second that met every limit; None when there were no limits
    ttft_ms: Spread | None  # time to first token
    tpot_ms: Spread | None  # time per output token after the first
    itl_ms: Spread | None  # between chunks, over all requests
    e2el_ms: Spread | None  # from sending to the last chunk


def summarise(run: Run, limits: Mapping[str, float]) -> Summary:
    """`limits`: the most milliseconds of ttft, tpot and e2el that count as good."""
    done = [record for record in run.records if not record.error]
    output_tokens = sum(record.num_output_tokens for record in done)
    input_tokens = sum(record.num_prompt_tokens for record in done)
    return Summary(
        completed=len(done),
        failed=len(run.records) - len(done),
        errors=Counter(record.error for record in run.records if record.error),
        seconds=run.seconds,
        interrupted=run.interrupted,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        request_throughput=len(done) / run.seconds,
        output_throughput=output_tokens / run.seconds,
        total_throughput=(input_tokens + output_tokens) / run.seconds,
        peak_output_throughput=peak_throughput(done),
        peak_concurrency=peak_concurrency(done),
        goodput=sum(is_good(record, limits) for record in done) / run.seconds if limits else None,
        ttft_ms=spread(record.ttft for record in done),
        tpot_ms=spread(record.tpot for record in done if record.tpot is not None),
        itl_ms=spread(gap for record in done for gap in record.gaps),
        e2el_ms=spread(record.e2el for record in done),
    )


def spread(seconds: Iterable[float]) -> Spread | None:
    """None of nothing."""
    values = np.fromiter(seconds, dtype=np.float64) * 1000
    if not values.size:
        return None
    median, p90, p99 = (float(p) for p in np.percentile(values, (50, 90, 99)))
    return Spread(mean=float(values.mean()), median=median, p90=p90, p99=p99)


def is_good(record: Record, limits: Mapping[str, float]) -> bool:
    """Whether the request met every limit; an answer of one token has no tpot to miss."""
    measured = {"ttft": record.ttft, "tpot": record.tpot or 0.0, "e2el": record.e2el}
    return all(measured[name] * 1000 <= limit for name, limit in limits.items())


def peak_throughput(records: Sequence[Record]) -> float:
    """Tokens in the best second of the clock; a request's tokens are spread over its chunks."""
    if not records:
        return 0.0
    times = np.concatenate([chunk_times(record) for record in records])
    weights = np.concatenate([chunk_tokens(record) for record in records])
    return float(np.bincount((times - times.min()).astype(np.int64), weights=weights).max())


def chunk_times(record: Record) -> npt.NDArray[np.float64]:
    return record.first + np.cumsum([0.0, *record.gaps])


def chunk_tokens(record: Record) -> npt.NDArray[np.float64]:
    num_chunks = 1 + len(record.gaps)
    return np.full(num_chunks, record.num_output_tokens / num_chunks)


def peak_concurrency(records: Sequence[Record]) -> int:
    """The most requests in flight at any moment."""
    events = sorted([(record.start, 1) for record in records] + [(record.last, -1) for record in records])
    live = np.cumsum([change for _, change in events])
    return int(live.max(initial=0))


def parse_limits(texts: Sequence[str]) -> dict[str, float]:
    """`ttft:200 tpot:50` (milliseconds). Raises ValueError that says what is accepted."""
    limits: dict[str, float] = {}
    for text in " ".join(texts).replace(",", " ").split():
        name, _, number = text.partition(":")
        try:
            limits[name] = float(number)
        except ValueError:
            name = ""
        if name not in LIMITS or not limits[name] > 0:
            raise ValueError(f"{text!r} is not a limit; accepted: ttft:MS, tpot:MS, e2el:MS")
    return limits
