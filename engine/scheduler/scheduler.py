"""Which tokens are computed next. No prefill and no decoding here: a row has pending tokens, one or more.

Plans are made one step ahead: plan k + 1 is launched before the result of step k is read. A live row advances
by one token a step, so its length is known anyway; a row that ended in step k is gone from the device, and
what plan k + 1 says of it is void. Work is proportional to what changes: a row with one pending token is met
once a block.

Where deterministic, a request is computed in the same pieces whatever else there is: its prompt is cut at
multiples of PIECE_TOKENS, a step computes one piece of it, whole, or none, and it has all its blocks from the
start, so that it is never preempted and computed again otherwise.

Owners are served by what they were given (shares.py): whose request begins next, whose prompt is read next, and
who gives up a row, or blocks, for an owner that has less and for whom there are none.
"""

from collections.abc import Iterable

from engine.config import EngineConfig
from engine.scheduler.blocks import BlockPool
from engine.scheduler.draft import Draft
from engine.scheduler.holdings import LiveRows
from engine.scheduler.prefixes import Prefixes, Tokens
from engine.scheduler.queue import Request, WaitingQueue, enter
from engine.scheduler.room import Room
from engine.scheduler.shares import Shares
from engine.scheduler.unread import Unread
from engine.scheduler.wheel import Row, RowState, Wheel
from engine.step import Admit, Plan


class Scheduler:
    """Owns the queue, the rows, the slots and the blocks. `max_model_len` bounds prompt and output."""

    def __init__(self, config: EngineConfig, max_model_len: int, num_blocks: int, tokens: Tokens) -> None:
        self._block_size = config.block_size
        self._max_requests = config.max_requests
        self._max_batch_tokens = config.max_batch_tokens
        self._tokens = tokens
        self._pool = BlockPool(num_blocks)
        self._prefixes = Prefixes(self._pool, tokens, config.block_size, config.prefix_cache)
        self._room = Room(config, self._pool, max_model_len)
        self._shares = Shares()
        limits = config.max_queued_requests, config.max_queued_tokens
        self._queue = WaitingQueue[Request](*limits, self._shares)
        self._requests: dict[int, Request] = {}
        self._rows = LiveRows()
        self._wheel = Wheel(config.block_size)
        self._unread = Unread(config, self._shares, self._prefixes, self._wheel)
        self._free_slots = list(range(config.max_requests - 1, -1, -1))
        self._aborted: list[Row] = []  # the next plan evicts them
        self._leaving: list[Row] = []  # evicted; a step in flight may still name them
        self._planned = 0
        self._committed = 0
        self._num_preemptions = 0

    @property
    def num_running(self) -> int:
        return len(self._rows)

    @property
    def num_waiting(self) -> int:
        return len(self._queue)

    @property
    def kv_usage(self) -> float:
        return self._pool.usage

    @property
    def has_work(self) -> bool:
        return bool(self._queue or self._rows or self._aborted)

    def request_at(self, slot: int) -> Request:
        """The request of a live row."""
        return self._rows[slot].request

    def requests_of(self, client: int) -> tuple[int, ...]:
        return tuple(request.id for request in self._requests.values() if request.client == client)

    def tokens_before(self, owner: str, num_tokens: int) -> int:
        """Tokens that leave the queue before so many more of this owner's would."""
        return self._queue.tokens_before(owner, num_tokens)

    def take_preemptions(self) -> int:
        """How many rows were preempted since this was last asked."""
        count, self._num_preemptions = self._num_preemptions, 0
        return count

    def add(self, request: Request) -> str | None:
        """A request begins to wait, or why the queue refuses it. Its prompt is shorter than max_model_len."""
        return enter(request, self._requests, self._queue)

    def abort(self, request_id: int) -> Request | None:
        """The request ends, whatever stage it is at; the next plan evicts its row. None if it had ended."""
        request = self._requests.pop(request_id, None)
        if request is None:
            return None
        row = self._rows.get(request.slot)
        if row is None:
            self._queue.remove(request)
        else:
            self._drop(row, RowState.ABORTED, self._planned + 1)
            self._aborted.append(row)
        return request

    def plan(self, max_chunk_tokens: int | None = None, step_tokens: int | None = None) -> Plan | None:
        """The next step, or None when there is nothing to compute and nothing to tell the device.

        Rows that wait for their next token, and owners who may come, are kept waiting by `max_chunk_tokens` of
        prompts at most, or by a piece where that is more. Prompts are read while the step has no more than `step_tokens`,
        those of the rows that wait included. None: no such limit.
        """
        assert self._committed >= self._planned - 1, "plans are at most one step ahead of the results"
        draft = Draft(self._planned + 1)
        self._evict_aborted(draft)
        for row in self._wheel.due(draft.step):
            if row.state is RowState.LIVE:
                self._turn(row, draft)
        self._make_room(draft)
        draft.budget = self._max_batch_tokens - len(self._wheel)
        if step_tokens is not None:
            self._limit_chunks(draft, step_tokens - len(self._wheel))
        if max_chunk_tokens is not None and (len(self._wheel) or self._shares.tells_apart):
            self._limit_chunks(draft, max_chunk_tokens)
        self._read_on(draft)
        while self._may_admit(draft) and self._admit(draft):
            pass
        if not self._rows and not draft.evict:
            return None
        self._planned = draft.step
        return draft.freeze()

    def commit(self, step: int, finished: Iterable[int], failed: Iterable[int]) -> None:
        """A step's result was read: these slots' requests ended. Its tokens are in the history already."""
        assert step == self._committed + 1, "results are committed in order"
        self._committed = step
        for slot in failed:
            self._end(slot, forget=True)
        for slot in finished:
            self._end(slot, forget=False)
        self._settle()

    def check(self) -> None:
        """Raise if a block, a slot or a row has been lost or given twice."""
        self._pool.check(row.blocks for row in self._rows)
        leaving = [row.slot for row in self._aborted] + [row.slot for row in self._leaving]
        live = sorted(row.slot for row in self._rows)
        slots = sorted(self._free_slots + leaving + live)
        if slots != list(range(self._max_requests)):
            raise RuntimeError(f"slots are not accounted for: {slots}")
        placed = sorted([row.slot for row in self._wheel] + self._unread.slots)
        if placed != live:
            raise RuntimeError(f"rows {live} are not the ones that compute: {placed}")
        known = len(live) + len(self._queue)
        if len(self._requests) != known:
            raise RuntimeError(f"{len(self._requests)} requests are live, but {known} run or wait")
        self._rows.check()
        self._shares.check(len(self._queue) + len(self._unread))

    def _limit_chunks(self, draft: Draft, num_tokens: int) -> None:
        """A piece may always be read."""
        draft.budget = min(draft.budget, max(num_tokens, self._unread.piece))

    def _evict_aborted(self, draft: Draft) -> None:
        for row in self._aborted:
            draft.evict.append(row.slot)
            self._leaving.append(row)
        self._aborted.clear()

    def _turn(self, row: Row, draft: Draft) -> None:
        """A row comes to a block's end: full blocks may be shared, and the tokens to come need one."""
        num_computed = row.num_computed_before(draft.step)
        self._prefixes.register(row, num_computed)
        self._shares.charge_up_to(row.request, num_computed)
        num_held = len(row.blocks) * self._block_size
        if num_held + 1 >= row.limit:  # it ends with these blocks, whatever the results will be
            return
        if num_held > num_computed and self._pool.num_available < len(self._rows):
            self._wheel.delay(row)  # what it does not need yet may be missing elsewhere
            return
        while not self._pool.num_available:
            victim = self._rows.newest(self._rows.blocks_of_owners.most)
            self._preempt(victim, draft)
            if victim is row:
                return
        block = self._pool.take()
        self._rows.extend(row, block)
        draft.blocks[row.slot] = block

    def _make_room(self, draft: Draft) -> None:
        """Where the request whose turn it is found no row, or too few blocks, somebody who holds more loses the newest."""
        request = self._queue.peek()
        if request is None or self._leaving or self._unread.piece:
            return
        owner = self._room.find_holder(request, self._rows, has_slot=bool(self._free_slots))
        if owner is None:
            return
        row = self._rows.newest(owner)
        self._shares.charge_up_to(row.request, row.num_computed_before(draft.step))
        if self._queue.would_follow(row.request):
            self._preempt(row, draft)

    def _preempt(self, row: Row, draft: Draft) -> None:
        """The request waits again with all it has generated, a token of the step in flight included."""
        row.request.num_tokens = row.num_tokens_before(draft.step)
        self._drop(row, RowState.PREEMPTED, draft.step)
        self._queue.push(row.request)
        self._leaving.append(row)
        draft.evict.append(row.slot)
        draft.blocks.pop(row.slot, None)
        draft.preempted = True
        self._num_preemptions += 1

    def _read_on(self, draft: Draft) -> None:
        """Prompts that were begun come before those that wait, but not before those of an owner that was given less."""
        for row in self._unread.in_turn():
            while self._queue.leads(row.request.owner) and self._may_admit(draft) and self._admit(draft):
                pass
            if draft.budget == 0:
                return
            self._unread.read(row, draft)

    def _may_admit(self, draft: Draft) -> bool:
        return draft.budget > 0 and not draft.preempted and bool(self._free_slots)

    def _admit(self, draft: Draft) -> bool:
        """Give a row to the request whose turn it is, if its tokens have room. Nobody overtakes it."""
        request = self._queue.peek()
        if request is None:
            return False
        shared = self._prefixes.find(request)
        if not self._unread.chunk_size(len(shared) * self._block_size, request.num_tokens, draft.budget):
            return False
        blocks = self._room.take(request, shared, self._rows)
        if blocks is None:
            return False
        self._place(request, blocks, len(shared), draft)
        return True

    def _place(self, request: Request, blocks: list[int], num_shared: int, draft: Draft) -> None:
        slot = self._free_slots.pop()
        num_cached = num_shared * self._block_size
        row = Row(request, slot, blocks, num_cached, self._room.limit(request), num_registered=num_shared)
        request.num_charged = max(request.num_charged, num_cached)
        self._tokens.write(slot, request.token_ids)
        request.slot = slot
        self._rows.add(row)
        token_ids, sampling = request.token_ids, request.sampling
        draft.admit.append(Admit(slot, token_ids, request.num_prompt, num_cached, tuple(blocks), sampling))
        if request.num_tokens - num_cached == 1:
            draft.budget -= 1
            self._wheel.add(row, draft.step)
            self._queue.remove(request)
            self._shares.charge_up_to(request, request.num_tokens)
        else:
            self._unread.add(row)
            self._queue.remove(request)
            self._unread.read(row, draft)

    def _end(self, slot: int, forget: bool) -> None:
        """A request ended in the committed step; since then it may have been aborted or preempted."""
        row = self._rows.get(slot)
        if row is not None:
            self._drop(row, RowState.ENDED, self._committed + 1)
            self._free_slots.append(slot)
        else:
            row = next((row for row in self._leaving if row.slot == slot and self._waits(row)), None)
            if row is None:
                return
            self._queue.remove(row.request)
        del self._requests[row.request.id]
        if forget:
            self._pool.forget(row.request.chain.hashes)

    def _waits(self, row: Row) -> bool:
        """Its request was preempted and has not been aborted since."""
        return row.state is RowState.PREEMPTED and self._requests.get(row.request.id) is row.request

    def _drop(self, row: Row, state: RowState, step: int) -> None:
        """From this step on the row is off the books; its full blocks stay known until they are needed for others."""
        num_computed = row.num_computed_before(step)
        self._prefixes.register(row, num_computed)
        self._shares.charge_up_to(row.request, num_computed)
        row.state = state
        self._rows.remove(row)
        if row.start is None:
            self._unread.remove(row)
        else:
            self._wheel.remove(row)
        self._pool.release(row.blocks)

    def _settle(self) -> None:
        """The last result that could name the slots of the rows evicted so far was committed."""
        for row in self._leaving:
            if self._waits(row):  # and has all its tokens now
                row.request.token_ids = self._tokens.read(row.slot, 0, row.request.num_tokens).copy()
                row.request.slot = None
            self._free_slots.append(row.slot)
        self._leaving.clear()
