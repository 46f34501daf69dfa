"""What passes between the scheduler, the loop and the runner: one Plan in, one StepResult out, a step."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from engine.request import SamplingParams

TokenIds = npt.NDArray[np.int32]
Launch = Literal[
    "eager", "captured", "replayed"
]  # kernel by kernel, or as a graph: one that was made for it, or one that was there


@dataclass(frozen=True, slots=True)
class Admit:
    """A request gets a row. Its first `num_cached` tokens already have keys and values in `blocks`."""

    slot: int  # stable id in the engine, below max_requests
    token_ids: TokenIds  # [tokens] prompt, then what it had generated before a preemption
    num_prompt: int
    num_cached: int
    blocks: tuple[int, ...]
    sampling: SamplingParams


@dataclass(frozen=True, slots=True)
class Plan:
    """What changes at one step, applied in the order of the fields. Rows with exactly one pending token need no mention: they run.

    A row that finished in the step before is already gone from the device; anything said of it here is ignored.
    """

    step: int
    evict: tuple[int, ...] = ()  # slots: aborted or preempted
    admit: tuple[Admit, ...] = ()
    blocks: tuple[tuple[int, int], ...] = ()  # (slot, block id) appended to the row's block table
    chunks: tuple[
        tuple[int, int], ...
    ] = ()  # (slot, tokens to compute): rows with more than one pending token

    @property
    def changes_rows(self) -> bool:
        return bool(self.evict or self.admit or self.blocks or self.chunks)

    @property
    def num_chunk_tokens(self) -> int:
        return sum(n for _, n in self.chunks)


@dataclass(frozen=True, slots=True)
class Logprobs:
    """[k] entries of the rows that asked, padded to the widest row's `num_top`."""

    places: npt.NDArray[np.int32]  # [k] index into the step's arrays (or the prompt position)
    token_ids: npt.NDArray[np.int32]  # [k]
    logprobs: npt.NDArray[np.float32]  # [k]
    ranks: npt.NDArray[np.int32]  # [k]
    num_top: npt.NDArray[np.int32]  # [k] how many of the columns this row asked for
    top_ids: npt.NDArray[np.int32]  # [k, top]
    top_logprobs: npt.NDArray[np.float32]  # [k, top]


@dataclass(frozen=True, slots=True)
class StepResult:
    """One step's tokens. Rows whose prompt is not finished have no entry."""

    step: int
    slots: npt.NDArray[np.int32]  # [n]
    tokens: npt.NDArray[np.int32]  # [n]
    finishes: npt.NDArray[np.uint8]  # [n]
    num_rows: int  # rows that computed anything
    num_tokens: int  # tokens computed
    seconds: float  # the step itself
    gap: float | None = None  # seconds the device stood still before it, where the device tells
    launch: Launch = "eager"
    num_moves: int = 0  # rows that moved to close the holes of those that ended
    logprobs: Logprobs | None = None
    prompt_logprobs: dict[int, Logprobs] = field(default_factory=dict)  # by slot
    failed: dict[int, str] = field(
        default_factory=dict
    )  # by slot: rows that ended with Finish.ERROR, and why


class Pending(Protocol):
    """A launched step."""

    def result(self) -> StepResult: ...

    def done(self) -> bool: ...


class Runner(Protocol):
    """Computes steps, strictly in the order they were launched. `launch` returns at once."""

    @property
    def num_blocks(self) -> int: ...

    def launch(self, plan: Plan) -> Pending: ...

    def close(self) -> None: ...
