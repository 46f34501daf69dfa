"""The scheduler's rows, and the wheel that says at which step a row gets its next block."""

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from math import gcd

from engine.scheduler.queue import Request

NUM_ROUNDS = 2  # a block: fewer would keep blocks idle for longer, and make more work of one step


class RowState(enum.Enum):
    LIVE = enum.auto()
    PREEMPTED = enum.auto()  # gone from the next plan on; its last token may still come
    ABORTED = enum.auto()  # the same, and nobody waits for that token
    ENDED = enum.auto()


@dataclass(slots=True, eq=False)
class Row:
    """A request's place on the device, as the host knows it without having read the last step."""

    request: Request
    slot: int
    blocks: list[int]
    num_computed: int  # until it turns on the wheel
    limit: int  # tokens at which it ends, if nothing ends it before
    start: int | None = None  # on the wheel: the step of its first token, had it always computed one a step
    turn: int = 0  # on the wheel: its bucket
    num_registered: int = 0  # blocks whose contents are known to the prefix cache
    state: RowState = RowState.LIVE

    def num_computed_before(self, step: int) -> int:
        return self.num_computed if self.start is None else step - self.start

    def num_tokens_before(self, step: int) -> int:
        return self.request.num_tokens if self.start is None else step - self.start + 1


class Wheel:
    """Rows with one pending token. Each step advances each by one, so a row comes to a block's end every
    `block_size` steps: it stays in one bucket, and a step looks at one bucket only.

    Rows turn in rounds, some steps early: the device is told of all their blocks at once, since telling it costs
    the host as much as tens of blocks. In most steps there is nothing to tell, however many rows there are.
    """

    def __init__(self, block_size: int) -> None:
        self._round = block_size // gcd(block_size, NUM_ROUNDS)
        self._buckets: list[dict[int, Row]] = [{} for _ in range(block_size)]
        self._num_rows = 0

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[Row]:
        return (row for bucket in self._buckets for row in bucket.values())

    def add(self, row: Row, step: int) -> None:
        """From `step` on the row runs with one pending token."""
        row.start = step - row.num_computed
        end = row.start + len(row.blocks) * len(self._buckets)  # the step in which its next block is missing
        turn = end - end % self._round
        self._put(row, turn if turn > step else end)
        self._num_rows += 1

    def remove(self, row: Row) -> None:
        del self._buckets[row.turn][row.slot]
        self._num_rows -= 1

    def due(self, step: int) -> list[Row]:
        """The rows whose next block is missing in this step, or soon. They turn again before the one after that is."""
        rows = list(self._buckets[step % len(self._buckets)].values())
        if early := step % self._round:
            for row in rows:
                self._move(row, step - early)
        return rows

    def delay(self, row: Row) -> None:
        """A row that is due turns again in the very step in which its next block is missing."""
        assert row.start is not None
        self._move(row, row.start)

    def _move(self, row: Row, turn: int) -> None:
        del self._buckets[row.turn][row.slot]
        self._put(row, turn)

    def _put(self, row: Row, turn: int) -> None:
        row.turn = turn % len(self._buckets)
        self._buckets[row.turn][row.slot] = row
