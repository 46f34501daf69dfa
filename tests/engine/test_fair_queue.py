"""Owners are served by what they were given, whoever floods the queue, and nobody's request is lost."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.request import SamplingParams
from engine.scheduler.blocks import Chain
from engine.scheduler.queue import Request, WaitingQueue
from engine.scheduler.ranking import Ranking
from engine.scheduler.shares import Shares

LONGEST = 50
Action = tuple[str, str, int]  # push, serve or abort; an owner; tokens


class Service:
    """Serves whoever's turn it is, all its tokens at once."""

    def __init__(self, max_requests: int = 10_000, max_tokens: int = 1 << 20) -> None:
        self.shares = Shares()
        self.queue = WaitingQueue[Request](max_requests, max_tokens, self.shares)
        self.waiting: dict[int, Request] = {}
        self.num_pushed = 0

    def push(self, owner: str, num_tokens: int, handicap: float = 0.0, key: float = 0.0) -> str | None:
        refusal = self.queue.refusal(owner, num_tokens)
        if refusal is None:
            self.num_pushed += 1
            request = make(self.num_pushed, owner, num_tokens, handicap, key)
            self.queue.push(request)
            self.waiting[request.id] = request
        return refusal

    def serve(self) -> Request:
        request = self.queue.peek()
        assert request is not None
        self.shares.charge(request.owner, request.num_tokens)
        return self.leave(request)

    def leave(self, request: Request) -> Request:
        self.queue.remove(request)
        del self.waiting[request.id]
        return request


def make(request_id: int, owner: str, num_tokens: int, handicap: float, key: float) -> Request:
    return Request(
        id=request_id,
        client=0,
        sampling=SamplingParams(),
        num_prompt=num_tokens,
        token_ids=np.zeros(0, np.int32),
        chain=Chain(""),
        key=(key, request_id),
        received=0.0,
        num_tokens=num_tokens,
        owner=owner,
        handicap=handicap,
    )


ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["push", "push", "push", "serve", "serve", "abort"]),
        st.sampled_from("abcd"),
        st.integers(1, LONGEST),
    ),
    max_size=150,
)


@settings(max_examples=150, deadline=None)
@given(ACTIONS)
def test_two_that_both_wait_are_given_the_same_but_for_a_request_each(actions: list[Action]) -> None:
    service, given_since = Service(), dict[tuple[str, str], Counter[str]]()
    pairs = [(one, other) for one in "abcd" for other in "abcd" if one < other]
    for action, owner, value in actions:
        if action == "push":
            assert service.push(owner, value) is None
        elif service.waiting and action == "serve":
            served = service.serve()
            for counts in given_since.values():
                counts[served.owner] += served.num_tokens
        elif service.waiting:
            service.leave(list(service.waiting.values())[value % len(service.waiting)])
        owners = {request.owner for request in service.waiting.values()}
        for pair in pairs:
            if not owners.issuperset(pair):
                given_since.pop(pair, None)
                continue
            counts = given_since.setdefault(pair, Counter())
            assert abs(counts[pair[0]] - counts[pair[1]]) <= 2 * LONGEST


@settings(max_examples=100, deadline=None)
@given(ACTIONS)
def test_no_request_is_lost_and_an_owners_own_keep_the_order_of_their_keys(actions: list[Action]) -> None:
    service = Service()
    for action, owner, value in actions:
        if action == "push":
            service.push(owner, value, key=float(value % 5))
        elif service.waiting and action == "serve":
            before = list(service.waiting.values())
            served = service.serve()
            assert served.key == min(request.key for request in before if request.owner == served.owner)
        elif service.waiting:
            service.leave(list(service.waiting.values())[value % len(service.waiting)])
        assert len(service.queue) == len(service.waiting)
        assert service.queue.num_tokens == sum(request.num_tokens for request in service.waiting.values())
        service.shares.check(len(service.waiting))
    for _ in range(len(service.waiting)):
        service.serve()
    assert service.queue.peek() is None
    assert service.shares.work("a") == 0, "once nobody waits, all are level"


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, LONGEST), st.integers(-40, 40)), min_size=1),
    st.integers(0, 200),
)
def test_however_urgent_the_others_are_a_request_is_served_after_a_bounded_amount_of_work(
    others: list[tuple[str, int, int]], handicap: int
) -> None:
    service = Service()
    service.push("late", 1, handicap=handicap)
    work, num_served = 0, 0
    while True:
        for _ in range(3):  # more come than are served
            owner, num_tokens, ahead = others[num_served % len(others)]
            service.push(owner, num_tokens, handicap=ahead)
            num_served += 1
        served = service.serve()
        if served.owner == "late":
            break
        work += served.num_tokens
        assert work <= 3 * (handicap + 40 + 2 * LONGEST)


def test_a_flood_keeps_a_newcomer_waiting_for_one_request() -> None:
    service = Service()
    for _ in range(500):
        service.push("flood", 10)
    for _ in range(100):
        service.serve()
    service.push("quiet", 40)
    assert [service.serve().owner for _ in range(2)].count("quiet") == 1
    service.push("quiet", 40)
    order = [service.serve().owner for _ in range(6)]
    assert order == ["flood"] * 4 + ["quiet", "flood"], "it was given 40 tokens by then, as the others"


def test_what_was_not_used_is_not_saved_up() -> None:
    service = Service()
    for _ in range(100):
        service.push("flood", 10)
    for _ in range(50):
        service.serve()
    for _ in range(50):
        service.push("late", 10)
    assert Counter(service.serve().owner for _ in range(20)) == {"late": 10, "flood": 10}


def test_a_level_of_priority_is_worth_a_fixed_amount_of_work() -> None:
    service = Service()
    for _ in range(40):
        service.push("bulk", 10, handicap=100)
        service.push("chat", 10)
    assert [service.serve().owner for _ in range(10)] == ["chat"] * 10
    assert Counter(service.serve().owner for _ in range(20)) == {"chat": 10, "bulk": 10}


@pytest.mark.parametrize("counts_tokens", [False, True])
def test_an_owner_leaves_places_for_others(counts_tokens: bool) -> None:
    service = Service(1 << 20, 2048) if counts_tokens else Service(2048)
    held = Counter[str]()
    for owner in "abcd":
        while service.push(owner, 1) is None:
            held[owner] += 1
    assert service.push("a", 1) == ("queue_tokens" if counts_tokens else "queue_requests")
    assert held == {"a": 1792, "b": 224, "c": 28, "d": 3}
    for _ in range(2000):
        service.serve()
    assert service.push("a", 1) is None


@pytest.mark.parametrize("owner", ["", "a"])
def test_without_keys_there_is_nobody_to_leave_places_for(owner: str) -> None:
    service = Service(16)
    num_held = sum(service.push(owner, 1) is None for _ in range(20))
    assert num_held == (14 if owner else 16)


def test_the_wait_is_for_ones_own_share_of_what_leaves_the_queue() -> None:
    service = Service()
    assert service.queue.tokens_before("a", 5) == 0
    for _ in range(100):
        service.push("flood", 10)
    assert service.queue.tokens_before("flood", 10) == 1000, "all there is"
    assert service.queue.tokens_before("quiet", 30) == 60, "its own, and as many of the other's"
    service.push("quiet", 30)
    assert service.queue.tokens_before("quiet", 30) == 120
    assert service.queue.tokens_before("third", 5000) == 1030


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["put", "discard"]), st.integers(0, 9), st.integers(0, 9))))
def test_the_first_is_the_lowest_of_the_latest_ranks(actions: list[tuple[str, int, int]]) -> None:
    ranking, ranks = Ranking[int](), dict[int, tuple[int, int]]()
    for number, (action, item, rank) in enumerate(actions):
        if action == "put":
            ranking.put(item, (rank,))
            ranks[item] = rank, number
        else:
            ranking.discard(item)
            ranks.pop(item, None)
        assert len(ranking) == len(ranks)
        assert ranking.first() == min(ranks, key=lambda item: ranks[item], default=None)
        assert len(ranking._heap) <= 2 * len(ranks) + 16
