"""Who is next, who is refused, and that those who leave are forgotten."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.request import SamplingParams
from engine.scheduler.blocks import Chain
from engine.scheduler.queue import Request, WaitingQueue
from engine.scheduler.shares import Shares


def make(request_id: int, arrived: float = 0.0, num_tokens: int = 1) -> Request:
    return Request(
        id=request_id,
        client=0,
        sampling=SamplingParams(),
        num_prompt=num_tokens,
        token_ids=np.zeros(num_tokens, np.int32),
        chain=Chain(""),
        key=(arrived, request_id),
        received=0.0,
        num_tokens=num_tokens,
    )


def leave(queue: WaitingQueue[Request]) -> int:
    request = queue.peek()
    assert request is not None
    queue.remove(request)
    return request.id


def test_the_lowest_key_is_next_and_equal_arrivals_keep_their_order() -> None:
    queue = WaitingQueue[Request](10, 100, Shares())
    for request in (make(3, 2.0), make(1, 5.0), make(2, 5.0), make(4, 1.0)):
        queue.push(request)
    assert [leave(queue) for _ in range(4)] == [4, 3, 1, 2]
    assert queue.peek() is None


def test_a_request_that_returns_has_its_old_place() -> None:
    queue = WaitingQueue[Request](10, 100, Shares())
    first, second = make(1, 1.0), make(2, 2.0)
    queue.push(first)
    queue.push(second)
    assert leave(queue) == 1
    queue.push(first)
    assert [leave(queue), leave(queue)] == [1, 2]


def test_the_queue_is_bounded_in_requests_and_in_tokens() -> None:
    queue = WaitingQueue[Request](2, 10, Shares())
    assert queue.refusal("", 1000) is None, "alone, any request may wait"
    queue.push(make(1, num_tokens=6))
    assert queue.refusal("", 4) is None
    assert queue.refusal("", 5) == "queue_tokens"
    queue.push(make(2, num_tokens=1))
    assert queue.refusal("", 1) == "queue_requests"
    leave(queue)
    assert queue.num_tokens == 1
    assert queue.refusal("", 9) is None


def test_requests_that_left_take_no_memory() -> None:
    queue = WaitingQueue[Request](10_000, 10_000, Shares())
    requests = [make(i) for i in range(5_000)]
    for request in requests:
        queue.push(request)
    for request in requests[1:]:
        queue.remove(request)
    assert len(queue) == 1
    assert len(queue._lanes[""].requests._heap) < 50
    assert queue.peek() is requests[0]


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["push", "leave", "abort"]), st.integers(0, 9)), max_size=60))
def test_the_next_request_is_always_the_least_of_those_that_wait(actions: list[tuple[str, int]]) -> None:
    queue = WaitingQueue[Request](100, 100, Shares())
    waiting: list[Request] = []
    for number, (action, value) in enumerate(actions):
        if action == "push":
            waiting.append(make(number, float(value)))
            queue.push(waiting[-1])
        elif action == "abort" and waiting:
            queue.remove(waiting.pop(value % len(waiting)))
        elif waiting:
            least = min(waiting, key=lambda request: request.key)
            assert leave(queue) == least.id
            waiting.remove(least)
        assert len(queue) == queue.num_tokens == len(waiting)
