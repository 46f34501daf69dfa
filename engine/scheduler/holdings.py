"""The live rows, and what each owner holds of rows and blocks."""

from collections import Counter
from collections.abc import Iterator

from engine.scheduler.ranking import Ranking
from engine.scheduler.wheel import Row


class Holdings:
    """So much of one thing for each owner. Constant time a change: who has most is looked for only when it is asked."""

    def __init__(self) -> None:
        self._held = Counter[str]()
        self._most = Ranking[str]()
        self._changed: dict[str, None] = {}  # owners whose rank is not what they hold

    @property
    def total(self) -> int:
        return self._held.total()

    @property
    def most(self) -> str:
        """The owner with the most; somebody holds something."""
        owner = self._find_first()
        assert owner is not None
        return owner

    def add(self, owner: str, change: int) -> None:
        self._held[owner] += change
        self._changed[owner] = None

    def find_above(self, owner: str, num_wanted: int) -> str | None:
        """Who holds most, if that is somebody else and more than this owner would hold with so much more."""
        other = self._find_first()
        if other is None or other == owner or self._held[other] <= self._held[owner] + num_wanted:
            return None
        return other

    def _find_first(self) -> str | None:
        for owner in self._changed:
            if self._held[owner]:
                self._most.put(owner, (-self._held[owner],))
            else:
                del self._held[owner]
                self._most.discard(owner)
        self._changed.clear()
        return self._most.first()


class LiveRows:
    """By slot."""

    def __init__(self) -> None:
        self._rows: dict[int, Row] = {}
        self._least_urgent: dict[str, Ranking[Row]] = {}  # by owner
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
        owner, (arrived, number) = row.request.owner, row.request.key
        self._least_urgent.setdefault(owner, Ranking()).put(row, (-arrived, -number))
        self.of_owners.add(owner, 1)
        self.blocks_of_owners.add(owner, len(row.blocks))

    def remove(self, row: Row) -> None:
        del self._rows[row.slot]
        owner = row.request.owner
        self._least_urgent[owner].discard(row)
        if not self._least_urgent[owner]:
            del self._least_urgent[owner]
        self.of_owners.add(owner, -1)
        self.blocks_of_owners.add(owner, -len(row.blocks))

    def extend(self, row: Row, block: int) -> None:
        """The row gets a block."""
        row.blocks.append(block)
        self.blocks_of_owners.add(row.request.owner, 1)

    def newest(self, owner: str) -> Row:
        """The least urgent of an owner that has rows."""
        row = self._least_urgent[owner].first()
        assert row is not None, "an owner without rows has no ranking"
        return row

    def check(self) -> None:
        """Raise if the owners' rows or blocks are not those there are."""
        ranked = sum(len(rows) for rows in self._least_urgent.values())
        counted = self.of_owners.total, ranked, self.blocks_of_owners.total
        actual = len(self), len(self), sum(len(row.blocks) for row in self)
        if counted != actual:
            raise RuntimeError(
                f"owners hold {counted} rows, ranked rows and blocks on the books, but there are {actual}"
            )
