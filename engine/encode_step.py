"""What passes between an encoder's scheduler, loop and runner: whole inputs in, one array an input out."""

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import numpy.typing as npt

from engine.request import Task
from engine.step import Launch, TokenIds

Output = npt.NDArray[np.float32]  # its shape: engine.request.Task


@dataclass(frozen=True, slots=True)
class EncodeInput:
    """One input."""

    token_ids: TokenIds  # [tokens]
    type_ids: TokenIds | None  # [tokens]; None: all 0


@dataclass(frozen=True, slots=True)
class EncodePlan:
    """The inputs of one step, packed in this order."""

    step: int
    inputs: tuple[EncodeInput, ...]


@dataclass(frozen=True, slots=True)
class EncodeResult:
    """One step's answers, in the order of its plan."""

    step: int
    outputs: tuple[Output, ...]
    num_tokens: int
    seconds: float  # the step itself
    launch: Launch = "eager"
    failed: dict[int, str] = field(default_factory=dict)  # by place: inputs without an answer, and why


class PendingEncode(Protocol):
    """A launched step."""

    def result(self) -> EncodeResult: ...

    def done(self) -> bool: ...


class EncoderRunner(Protocol):
    """Computes steps, strictly in the order they were launched. `launch` returns at once."""

    @property
    def task(self) -> Task: ...

    def launch(self, plan: EncodePlan) -> PendingEncode: ...

    def close(self) -> None: ...
