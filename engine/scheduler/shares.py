"""How much was computed for whom while somebody wanted more of it: the owner with the least is next."""

from collections import Counter
from typing import Protocol

from engine.scheduler.ranking import Ranking


class Charged(Protocol):
    """A request that is computed in several steps."""

    num_charged: int  # of its tokens, those that its owner was charged for, or need not be

    @property
    def owner(self) -> str: ...


class Shares:
    """Work is tokens computed. An owner claims while it has requests that wait or prompts that are not read.

    Who begins to claim is level with the least served of those who do: what was not used is not saved up, and what
    was used beyond the others' is remembered. Of equals those that were given something come half a token later.
    Once nobody claims, all are level again.
    """

    def __init__(self) -> None:
        self._work: dict[str, float] = {}
        self._claims = Counter[str]()
        self._claiming = Ranking[str]()

    @property
    def tells_apart(self) -> bool:
        """Whether those who claim have names, so that others may come who are due as much."""
        return any(self._claims)

    def work(self, owner: str) -> float:
        """Comparable between owners, from the first claim to the last."""
        least = self._claiming.first()
        level = 0.0 if least is None else self._work[least] // 1
        return max(self._work.get(owner, 0.0), level)

    def claim(self, owner: str) -> None:
        """It wants one thing more."""
        if not self._claims[owner]:
            self._set(owner, self.work(owner), claims=True)
        self._claims[owner] += 1

    def release(self, owner: str) -> None:
        """It wants one thing less."""
        self._claims[owner] -= 1
        if not self._claims[owner]:
            del self._claims[owner]
            self._claiming.discard(owner)
        if not self._claims:
            self._work.clear()

    def charge(self, owner: str, num_tokens: int) -> None:
        """So much is computed for it; nothing is written down while nobody claims."""
        if self._claims and num_tokens > 0:
            self._set(owner, self.work(owner) // 1 + num_tokens + 0.5, claims=owner in self._claims)

    def charge_up_to(self, request: Charged, num_computed: int) -> None:
        """So many of its tokens are computed by now. What is computed again after a preemption is free."""
        self.charge(request.owner, num_computed - request.num_charged)
        request.num_charged = max(request.num_charged, num_computed)

    def _set(self, owner: str, work: float, claims: bool) -> None:
        self._work[owner] = work
        if claims:
            self._claiming.put(owner, (work,))

    def check(self, num_claims: int) -> None:
        """Raise if so many claims are not those there are."""
        if self._claims.total() != num_claims:
            raise RuntimeError(f"owners have {self._claims.total()} claims on the books, but {num_claims}")
