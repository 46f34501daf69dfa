"""Rows whose prompts have more than one token to be computed, and how they are read."""

from engine.config import PIECE_TOKENS, EngineConfig
from engine.scheduler.draft import Draft
from engine.scheduler.prefixes import Prefixes
from engine.scheduler.shares import Shares
from engine.scheduler.wheel import Row, Wheel


class Unread:
    """Each is a claim of its owner's. Once at most one of a row's tokens is pending, it goes to the wheel."""

    def __init__(self, config: EngineConfig, shares: Shares, prefixes: Prefixes, wheel: Wheel) -> None:
        self.piece = PIECE_TOKENS if config.deterministic else 0  # 0: prompts are cut where the budget ends
        self._shares = shares
        self._prefixes = prefixes
        self._wheel = wheel
        self._rows: dict[int, Row] = {}  # by slot, in the order they were admitted

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def slots(self) -> list[int]:
        return list(self._rows)

    def in_turn(self) -> list[Row]:
        """Those of the owner that was given the least first; an owner's own as they were admitted."""
        return sorted(self._rows.values(), key=lambda row: self._shares.work(row.request.owner))

    def add(self, row: Row) -> None:
        self._rows[row.slot] = row
        self._shares.claim(row.request.owner)

    def remove(self, row: Row) -> None:
        del self._rows[row.slot]
        self._shares.release(row.request.owner)

    def chunk_size(self, num_computed: int, num_tokens: int, budget: int) -> int:
        """How many of a request's pending tokens a step computes; 0: its piece is more than the budget."""
        num_pending = num_tokens - num_computed
        if not self.piece:
            return min(num_pending, budget)
        piece = min(num_pending, self.piece - num_computed % self.piece)
        return piece if piece <= budget else 0

    def read(self, row: Row, draft: Draft) -> None:
        """Spend the budget on a row."""
        num_tokens = self.chunk_size(row.num_computed, row.request.num_tokens, draft.budget)
        if num_tokens == 0:
            return
        draft.budget -= num_tokens
        draft.chunks.append((row.slot, num_tokens))
        row.num_computed += num_tokens
        self._prefixes.register(row, row.num_computed)
        self._shares.charge_up_to(row.request, row.num_computed)
        if row.num_computed >= row.request.num_tokens - 1:
            self.remove(row)
            self._wheel.add(row, draft.step + 1)
