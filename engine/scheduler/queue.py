"""Requests that wait for a row: bounded, and fair to their owners.

The owner that was given the least is next, and of its requests the one with the lowest key. Keys never change, so
that among an owner's own requests a wait only gets shorter.
"""

from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from engine.request import SamplingParams
from engine.scheduler.blocks import Chain
from engine.scheduler.ranking import Rank, Ranking
from engine.scheduler.shares import Shares
from engine.step import TokenIds

LEFT_FREE = 8  # an owner leaves one in so many of the places free that it could have


@dataclass(slots=True, eq=False)
class Request:
    """A request from its arrival to its end. The scheduler changes it; the loop keeps the last two fields.

    `key` is (arrival in seconds with priority, order of arrival): of an owner's requests the lowest goes first, the
    highest is preempted.
    """

    id: int
    client: int
    sampling: SamplingParams
    num_prompt: int
    token_ids: TokenIds  # the prompt and what was generated, as of when it last began to wait
    chain: Chain
    key: tuple[float, int]
    received: float  # when it reached the engine
    num_tokens: int  # of token_ids; known before they are when it was preempted with a step in flight
    owner: str = ""  # whose share of the engine it takes
    handicap: float = 0.0  # tokens that other owners may be given before it; below 0: it before them
    num_charged: int = 0  # of its tokens, those that were found in the cache or its owner was charged for
    slot: int | None = None
    started: bool = False
    num_prompt_logprobs: int = (
        0  # prompt positions below it were reported; a recomputed prompt has them again
    )


class Waiter(Protocol):
    """What the queue knows of a request."""

    @property
    def id(self) -> int: ...

    @property
    def owner(self) -> str: ...

    @property
    def key(self) -> tuple[float, int]: ...

    @property
    def handicap(self) -> float: ...

    @property
    def num_tokens(self) -> int: ...


W = TypeVar("W", bound=Waiter)


@dataclass(slots=True, eq=False)
class Lane(Generic[W]):
    """One owner's requests that wait."""

    requests: Ranking[W] = field(default_factory=Ranking)
    num_tokens: int = 0

    @property
    def head(self) -> W:
        head = self.requests.first()
        assert head is not None, "an owner without requests has no lane"
        return head


class WaitingQueue(Generic[W]):
    """`shares` says what each owner was given. With one owner: first come, first served, or by priority."""

    def __init__(self, max_requests: int, max_tokens: int, shares: Shares) -> None:
        self._max_requests = max_requests
        self._max_tokens = max_tokens
        self._shares = shares
        self._lanes: dict[str, Lane[W]] = {}
        self._turns = Ranking[str]()
        self._num_requests = 0
        self._num_tokens = 0

    def __len__(self) -> int:
        return self._num_requests

    @property
    def num_tokens(self) -> int:
        return self._num_tokens

    def refusal(self, owner: str, num_tokens: int) -> str | None:
        """Why one more request of this owner cannot wait, or None. In an empty queue any can, whatever its length."""
        lane = self._lanes.get(owner, Lane[W]())
        if not _has_place(owner, len(lane.requests), 1, self._max_requests - self._num_requests):
            return "queue_requests"
        free_tokens = self._max_tokens - self._num_tokens
        if self._num_requests and not _has_place(owner, lane.num_tokens, num_tokens, free_tokens):
            return "queue_tokens"
        return None

    def tokens_before(self, owner: str, num_tokens: int) -> int:
        """Tokens that leave the queue before so many more of this owner's would: the others get no more each."""
        lane = self._lanes.get(owner)
        held, num_owners = (lane.num_tokens, len(self._lanes)) if lane else (0, len(self._lanes) + 1)
        return min(self._num_tokens, num_owners * (held + num_tokens))

    def push(self, request: W) -> None:
        lane = self._lanes.setdefault(request.owner, Lane[W]())
        lane.requests.put(request, request.key)
        lane.num_tokens += request.num_tokens
        self._count(request, 1)
        self._shares.claim(request.owner)
        self._turns.put(request.owner, self._rank(lane.head))

    def peek(self) -> W | None:
        """The request whose turn it is."""
        while (owner := self._turns.first()) is not None:
            head = self._lanes[owner].head
            rank = self._rank(head)
            if rank == self._turns.rank(owner):
                return head
            self._turns.put(owner, rank)  # its owner was charged since
        return None

    def remove(self, request: W) -> None:
        """It got its row, or it left."""
        lane = self._lanes[request.owner]
        lane.requests.discard(request)
        lane.num_tokens -= request.num_tokens
        self._count(request, -1)
        self._shares.release(request.owner)
        if lane.requests:
            self._turns.put(request.owner, self._rank(lane.head))
        else:
            del self._lanes[request.owner]
            self._turns.discard(request.owner)

    def leads(self, owner: str) -> bool:
        """Whether it is another owner's turn, which was given no more than this one."""
        head = self.peek()
        if head is None or head.owner == owner:
            return False
        return self._shares.work(head.owner) + head.handicap <= self._shares.work(owner)

    def would_follow(self, request: W) -> bool:
        """Whether it is, and stays, another request's turn should this one come to wait."""
        head = self.peek()
        return head is not None and self._rank(head) < self._rank(request)

    def _rank(self, request: W) -> Rank:
        return self._shares.work(request.owner) + request.handicap, *request.key

    def _count(self, request: W, change: int) -> None:
        self._num_requests += change
        self._num_tokens += change * request.num_tokens


def _has_place(owner: str, num_held: int, num_new: int, num_free: int) -> bool:
    """Whether so many more fit, and leave others their part of what this owner could have. Requests of no owner have
    nobody beside them, and what has not begun to wait may take any place."""
    num_left = num_free - num_new
    leaves_enough = LEFT_FREE * num_left >= num_held + num_new + num_left
    return num_left >= 0 and (not owner or not num_held or leaves_enough)


def enter(request: W, live: dict[int, W], queue: WaitingQueue[W]) -> str | None:
    """A new request begins to wait, one of all the live ones by id; or why the queue refuses it."""
    if request.id in live:
        raise ValueError(f"request id {request.id} is in the engine already")
    reason = queue.refusal(request.owner, request.num_tokens)
    if reason is None:
        live[request.id] = request
        queue.push(request)
    return reason
