"""The live rows, and what each owner holds of rows and blocks."""

from collections import Counter
from collections.abc import Iterator

from engine.scheduler.ranking import Ranking
from engine.scheduler.wheel import Row


class Holdings:
    """So much of one thing for each owner. Logarithmic time a change."""

    def __init__(self) -> None:
        self._held = Counter[str]()
        self._most = Ranking[str]()

    @property
    def total(self) -> int:
        return self._held.total()

    @property
    def most(self) -> str:
        """The owner with the most; somebody holds something."""
        owner = self._most.first()
        assert owner is not None
        return owner

    def add(self, owner: str, change: int) -> None:
        self._held[owner] += change
        if self._held[owner]:
            self._most.put(owner, (-self._held[owner],))
        else:
            del self._held[owner]
            self._most.discard(owner)

    def find_above(self, owner: str, num_wanted: int) -> str | None:
        """Who holds most, if that is somebody else and more than this owner would hold with so much more."""
        other = self._most.first()
        if other is None or other == owner or self._held[other] <= self._held[owner] + num_wanted:
            return None
        return other


class LiveRows:
    """By slot."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self.of_owners = Holdings()
        self.blocks_of_owners = Holdings()

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows.values())

    def __getitem__(self, slot: int) -> Row:
        return self._rows[slot]

    def get(self, slot: int | None) -> Row | None:
        return None if slot is None else self._rows.get(slot)

    def add(self, row: Row) -> None:
        self._rows[row.slot] = row
        self.of_owners.add(row.request.owner, 1)
        self.blocks_of_owners.add(row.request.owner, len(row.blocks))

    def remove(self, row: Row) -> None:
        del self._rows[row.slot]
        self.of_owners.add(row.request.owner, -1)
        self.blocks_of_owners.add(row.request.owner, -len(row.blocks))

    def extend(self, row: Row, block: int) -> None:
        """The row gets a block."""
        row.blocks.append(block)
        self.blocks_of_owners.add(row.request.owner, 1)

    def newest(self, owner: str) -> Row:
        """The least urgent of an owner that has rows."""
        return max((row for row in self if row.request.owner == owner), key=lambda row: row.request.key)

    def check(self) -> None:
        """Raise if the owners' rows or blocks are not those there are."""
        counted = self.of_owners.total, self.blocks_of_owners.total
        actual = len(self), sum(len(row.blocks) for row in self)
        if counted != actual:
            raise RuntimeError(f"owners hold {counted} rows and blocks on the books, but there are {actual}")
