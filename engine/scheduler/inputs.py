"""Which inputs an encoder reads next: whole ones, packed back to back under the budget of a step."""

from dataclasses import dataclass

from engine.config import EngineConfig
from engine.encode_step import EncodeInput
from engine.scheduler.queue import WaitingQueue, enter
from engine.scheduler.shares import Shares


@dataclass(frozen=True, slots=True, eq=False)
class InputRequest:
    """One input, from its arrival to its end. `key`, `owner` and `handicap` are as a Request's."""

    id: int
    client: int
    input: EncodeInput
    num_tokens: int
    key: tuple[float, int]
    received: float  # when it reached the engine
    owner: str = ""
    handicap: float = 0.0


class InputScheduler:
    """Owns the queue, to be read by others, and the inputs of the steps in flight."""

    def __init__(self, config: EngineConfig) -> None:
        self._max_inputs = config.max_requests
        self._max_batch_tokens = config.max_batch_tokens
        self._shares = Shares()
        limits = config.max_queued_inputs, config.max_queued_input_tokens
        self.queue = WaitingQueue[InputRequest](*limits, self._shares)
        self._requests: dict[int, InputRequest] = {}  # waiting or in flight, by id
        self._in_flight: dict[int, InputRequest] = {}

    @property
    def num_running(self) -> int:
        """Inputs of the steps in flight that somebody still waits for."""
        return len(self._in_flight)

    def requests_of(self, client: int) -> tuple[int, ...]:
        """The ids of a client's requests that have not ended."""
        return tuple(request.id for request in self._requests.values() if request.client == client)

    def add(self, request: InputRequest) -> str | None:
        """A request begins to wait, or why the queue refuses it."""
        return enter(request, self._requests, self.queue)

    def abort(self, request_id: int) -> bool:
        """The request ends; an input that is being read is read to its end for nobody. False if it had ended."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return False
        if self._in_flight.pop(request_id, None) is None:
            self.queue.remove(request)
        return True

    def plan(self) -> tuple[InputRequest, ...]:
        """The next step's inputs, each owner's in the order of their keys; none if nobody waits.

        The first that does not fit ends the step, so that no later one overtakes it. One longer than the budget goes alone.
        """
        chosen: list[InputRequest] = []
        budget = self._max_batch_tokens
        while len(chosen) < self._max_inputs:
            request = self.queue.peek()
            if request is None or (chosen and request.num_tokens > budget):
                break
            self._shares.charge(request.owner, request.num_tokens)
            self.queue.remove(request)
            self._in_flight[request.id] = request
            chosen.append(request)
            budget -= request.num_tokens
        return tuple(chosen)

    def end(self, request: InputRequest) -> bool:
        """Its step's result was read. False if the request was aborted meanwhile."""
        if self._in_flight.get(request.id) is not request:
            return False
        del self._in_flight[request.id], self._requests[request.id]
        return True

    def check(self) -> None:
        """Raise if a request has been lost."""
        known = len(self._in_flight) + len(self.queue)
        if len(self._requests) != known:
            raise RuntimeError(f"{len(self._requests)} requests are live, but {known} run or wait")
        self._shares.check(len(self.queue))
