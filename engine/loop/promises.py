"""Who was sent away, and when each may come back: a line behind the queue, so that not all come back at once.

Each owner has a line of its own, so that one's flood sends no other far away. Nobody shows a ticket. A request is known by
what it asks: whoever comes back asks the same again.
"""

from collections import OrderedDict
from dataclasses import dataclass

GRACE_SECONDS = 30.0  # a promise is kept for so long after its time has come
MAX_PROMISES = 1 << 16  # of one owner; more are not remembered
NEWEST = 1 / 64  # weight of the newest promise in the part that is taken up


@dataclass(slots=True)
class Promise:
    due: float
    taken_up: bool = False


class Line:
    """One owner's. Times are seconds of one clock, which the caller reads. Constant time an operation, all told."""

    def __init__(self) -> None:
        self._promises: OrderedDict[int, Promise] = OrderedDict()  # what is due first is first
        self._line = 0.0  # when the last one is due
        self._taken_up = 1.0  # the part of the promises for which somebody comes back

    def __len__(self) -> int:
        """Those whose time is yet to come or has just come."""
        return len(self._promises)

    def give(self, mark: int, now: float, wait: float, seconds: float) -> float:
        """When this request, which will take `seconds` of the queue's time, may come back: in `wait`, behind those before it.

        Whoever comes back too soon keeps its place.
        """
        self._forget(now)
        known = self._promises.get(mark)
        if known is not None and known.due > now:
            return known.due
        due = max(now + wait, self._line)
        self._line = due + seconds * self._taken_up
        if len(self._promises) < MAX_PROMISES:
            self._promises[mark] = Promise(due)
            self._promises.move_to_end(mark)
        return due

    def take_up(self, mark: int, now: float) -> bool:
        """Whether this request was told to come back by now. It may be asked again, for its other choices."""
        self._forget(now)
        promise = self._promises.get(mark)
        if promise is None or promise.due > now:
            return False
        if not promise.taken_up:
            promise.taken_up = True
            self._taken_up += NEWEST * (1.0 - self._taken_up)
        return True

    def is_over(self, now: float) -> bool:
        """Nobody of it is expected any more."""
        self._forget(now)
        return not self._promises

    def _forget(self, now: float) -> None:
        """Those nobody came back for leave their part of the line to others."""
        while self._promises:
            mark, promise = next(iter(self._promises.items()))
            if promise.due + GRACE_SECONDS > now:
                return
            del self._promises[mark]
            if not promise.taken_up:
                self._taken_up -= NEWEST * self._taken_up


class Promises:
    """All owners' lines, as long as somebody is in them."""

    def __init__(self) -> None:
        self._lines: OrderedDict[str, Line] = OrderedDict()  # whose was used last is last

    def has_any(self, owner: str) -> bool:
        """Whether somebody of this owner's was sent away and may come back."""
        return owner in self._lines

    def give(self, owner: str, mark: int, now: float, wait: float, seconds: float) -> float:
        """As Line.give. Owners share what leaves the queue, so that a place takes longer where more of them have lines."""
        self._forget(now)
        line = self._lines.setdefault(owner, Line())
        self._lines.move_to_end(owner)
        return line.give(mark, now, wait, seconds * len(self._lines))

    def take_up(self, owner: str, mark: int, now: float) -> bool:
        """As Line.take_up."""
        line = self._lines.get(owner)
        if line is None:
            return False
        found = line.take_up(mark, now)
        if line.is_over(now):
            del self._lines[owner]
        return found

    def _forget(self, now: float) -> None:
        """Owners who sent nothing since their line was over; they would be counted among those who share."""
        while self._lines:
            owner, line = next(iter(self._lines.items()))
            if not line.is_over(now):
                return
            del self._lines[owner]
