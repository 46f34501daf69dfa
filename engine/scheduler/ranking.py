"""Who is first, among items that come, go and change their rank."""

import heapq
from typing import Generic, TypeVar

T = TypeVar("T")
Rank = tuple[float, ...]
Entry = tuple[Rank, int, T]


class Ranking(Generic[T]):
    """The lowest rank is first, of equal ones the one that was put there first. Logarithmic time a change.

    A heap in which only an item's latest entry counts. Others go when met, or once they are the most.
    """

    def __init__(self) -> None:
        self._heap: list[Entry[T]] = []
        self._entries: dict[T, Entry[T]] = {}
        self._num_puts = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, item: T, rank: Rank) -> None:
        """It has this rank from now on, and no other."""
        self._num_puts += 1
        entry = (rank, self._num_puts, item)
        self._entries[item] = entry
        heapq.heappush(self._heap, entry)
        self._trim()

    def discard(self, item: T) -> None:
        if self._entries.pop(item, None) is not None:
            self._trim()

    def first(self) -> T | None:
        while self._heap and not self._counts(self._heap[0]):
            heapq.heappop(self._heap)
        return self._heap[0][2] if self._heap else None

    def rank(self, item: T) -> Rank:
        return self._entries[item][0]

    def _trim(self) -> None:
        if len(self._heap) > 2 * len(self._entries) + 16:
            self._heap = list(self._entries.values())
            heapq.heapify(self._heap)

    def _counts(self, entry: Entry[T]) -> bool:
        return self._entries.get(entry[2]) is entry
