"""The rows on the device beside their twin on the CPU: both are fed the same plans, and must say the same after every step."""

from dataclasses import fields
from random import Random

import torch

from engine.batch import DeviceBatch
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.row_shape import DECODE_TILE, StepShape
from engine.request import Finish
from engine.runner.gpu.delta import build_delta
from engine.runner.gpu.ring import ResultRing
from engine.runner.gpu.row_kernels import RowKernels
from engine.runner.gpu.rows import DeviceRows
from engine.runner.gpu.step_buffers import StepBuffers
from engine.runner.pack import Packed, count_tokens, pack
from engine.runner.rows import RowBuffers
from engine.sampler.sampler import NO_TOKEN, decide_finish
from engine.step import Plan

POISON = -77
ENTRIES = ("history_entry", "bias_entry")  # the device's are given back a step later, so their numbers differ


class RowTwin:
    """Drives both, and compares them."""

    def __init__(
        self, library: KernelLibrary, shape: StepShape, max_requests: int, max_model_len: int, vocab_size: int
    ) -> None:
        self.shape = shape
        self.max_blocks = -(-max_model_len // shape.block_size)
        limits = max_requests, max_model_len, self.max_blocks, vocab_size
        self.rows = RowBuffers(*limits, torch.device("cpu"))
        self.device_rows = DeviceRows(*limits, library.device)
        self.max_tokens = max_requests * max_model_len + 2
        self.buffers = StepBuffers(max_requests, self.max_tokens, self.device_rows.block_tables)
        self.ring = ResultRing(max_requests, library.device)
        self.kernels = RowKernels(library, self.device_rows, self.buffers, self.ring, shape)
        self._ended: list[tuple[int, list[int]]] = []  # steps, and the slots that ended in them

    def step(self, plan: Plan, random: Random) -> set[int]:
        """Both take the step, with codes drawn by lot. The slots that ended in it."""
        self._poison()
        self._apply(plan)
        counts = count_tokens(self.rows, plan.chunks)
        packed = pack(self.rows, counts, self.shape.block_size)
        batch = self._plan(packed, random)
        self._check_rows(packed, batch)
        self._check_tokens(packed, batch)
        codes = [random.choice((*range(self.device_rows.vocab_size), -1, -2)) for _ in packed.sampled_rows]
        ended = self._finish(plan.step, packed, torch.tensor(codes, dtype=torch.int32))
        self._check_state()
        return ended

    def _poison(self) -> None:
        for name in ("counts", "began", "codes", "samples", *(f.name for f in fields(DeviceBatch))):
            if name not in ("block_tables", "decode_tiles"):
                getattr(self.buffers, name).fill_(POISON)

    def _apply(self, plan: Plan) -> None:
        self.rows.evict(plan.evict)
        for admit in plan.admit:
            self.rows.admit(admit)
        self.rows.append_blocks(plan.blocks)
        self.kernels.apply(build_delta(plan, self.device_rows))
        for step, slots in self._ended:  # as the host reads a step once the next one is launched
            self.device_rows.vocab.end(slots, step)
        self._ended.clear()

    def _plan(self, packed: Packed, random: Random) -> DeviceBatch:
        """In a bucket that is larger than it has to be, or not."""
        max_rows = self.device_rows.max_requests
        num_rows = min(max(1, self.rows.num_rows + random.choice((0, 1, 5))), max_rows)
        num_tokens = num_rows
        if (packed.counts > 1).any() or random.random() < 0.3:
            num_tokens = max(packed.batch.num_tokens, num_rows + 1) + random.choice((0, 1, 300))
        num_tokens = min(num_tokens, self.max_tokens)
        self.kernels.plan_step(num_tokens, num_rows)
        return self.buffers.batch(num_tokens, num_rows, torch.empty(0))

    def _check_rows(self, packed: Packed, batch: DeviceBatch) -> None:
        want, n = packed.batch, self.rows.num_rows
        computes = packed.counts > 0
        samples = torch.zeros(n, dtype=torch.int32)
        samples[packed.sampled_rows] = 1
        last = torch.where(computes, want.query_starts[1:] - 1, 0)
        for got, expected in (
            (batch.context_lens, want.context_lens),
            (batch.row_slots, self.rows.columns.slot),
            (batch.logit_ids, last),
            (self.buffers.samples[: batch.num_rows], samples),
        ):
            assert_padded(got, expected, 0)
        decode, prompt = self._tiles(packed)
        assert_padded(batch.query_starts, want.query_starts, want.num_tokens)
        assert_padded(batch.decode_starts, decode, int(decode[-1]))
        assert_padded(batch.prompt_starts, prompt, int(prompt[-1]))
        assert batch.counts.tolist() == [n, want.num_tokens, int(decode[-1]), int(prompt[-1])]

    def _tiles(self, packed: Packed) -> tuple[torch.Tensor, torch.Tensor]:
        """Counted one by one: tiles of context with a visible token, tiles of queries."""
        window, decode, prompt = self.shape.window, [0], [0]
        for count, context in zip(packed.counts.tolist(), packed.batch.context_lens.tolist(), strict=True):
            seen = range(max(0, context - window) if window else 0, context)
            tiles = {token // DECODE_TILE for token in seen} if count == 1 else set()
            decode.append(decode[-1] + len(tiles))
            prompt.append(
                prompt[-1] + len({query // self.shape.prompt_tile for query in range(count) if count > 1})
            )
        return torch.tensor(decode), torch.tensor(prompt)

    def _check_tokens(self, packed: Packed, batch: DeviceBatch) -> None:
        want = packed.batch
        token_rows = torch.repeat_interleave(packed.counts)
        assert_padded(batch.token_ids, want.token_ids, 0)
        assert_padded(batch.positions, want.positions, 0)
        assert_padded(batch.cache_slots, want.cache_slots, -1)
        assert_padded(batch.token_rows, token_rows, -1)

    def _finish(self, step: int, packed: Packed, codes: torch.Tensor) -> set[int]:
        sampled, num_live = packed.sampled_rows, self.rows.num_rows
        self.buffers.codes[sampled.to(self.buffers.codes.device)] = codes.to(self.buffers.codes.device)
        self.kernels.finish()
        self.kernels.reorder()
        if self.buffers.codes.is_cuda:
            torch.cuda.synchronize()
        tokens, columns = codes.clamp(min=NO_TOKEN), self.rows.select(sampled)
        finishes = decide_finish(tokens, columns)
        ended = columns.slot[finishes != Finish.RUNNING].tolist()
        entry = self.ring.read(step)
        assert entry.slots.tolist() == columns.slot.tolist()
        assert entry.codes.tolist() == codes.tolist()
        assert entry.finishes.tolist() == finishes.tolist()
        assert (entry.num_rows, entry.num_tokens) == (int((packed.counts > 0).sum()), packed.batch.num_tokens)
        assert entry.num_live == num_live - len(ended)
        assert entry.begin_ns == int(self.buffers.began) <= entry.end_ns
        assert entry.num_moves == self._advance(packed, tokens, finishes)
        self._ended.append((step, ended))
        return set(ended)

    def _advance(self, packed: Packed, tokens: torch.Tensor, finishes: torch.Tensor) -> int:
        self.rows.columns.num_computed.add_(packed.counts)
        self.rows.append_tokens(packed.sampled_rows, tokens)
        finished = torch.zeros(self.rows.num_rows, dtype=torch.bool)
        finished[packed.sampled_rows] = finishes != Finish.RUNNING
        return self.rows.compact(finished)

    def _check_state(self) -> None:
        got, want, n = self.device_rows, self.rows.columns, self.rows.num_rows
        assert int(got.num_rows) == n
        assert got.row_of_slot.tolist() == self.rows.row_of_slot.tolist()
        for tensor in (got.finished, got.any_finished, got.arrivals, got.chunk_of_slot):
            assert not tensor.any()
        columns = got.columns
        for field in fields(columns):
            if field.name not in (*ENTRIES, "history", "bias"):
                torch.testing.assert_close(
                    getattr(columns, field.name)[:n].cpu(), getattr(want, field.name), rtol=0, atol=0
                )
        self._check_vocab()
        self._check_slots()

    def _check_vocab(self) -> None:
        """What the entries hold, found as the kernels find it."""
        got, want = self.device_rows.columns, self.rows.columns
        pools = self.device_rows.vocab.history.values, self.device_rows.vocab.bias.values
        if any(pool.numel() for pool in pools):
            assert self.device_rows.pools.tolist() == [pool.data_ptr() for pool in pools]
        for name in ENTRIES:
            mine = getattr(got, name)[: want.num_rows].cpu()
            theirs = getattr(want, name)
            assert torch.equal(mine >= 0, theirs >= 0)
            assert len(set(mine[mine >= 0].tolist())) == int((mine >= 0).sum())
            values, wanted = (getattr(columns, name.removesuffix("_entry")) for columns in (got, want))
            assert torch.equal(values.cpu()[mine[mine >= 0].long()], wanted[theirs[theirs >= 0].long()])

    def _check_slots(self) -> None:
        token_ids, block_tables = self.device_rows.token_ids.cpu(), self.device_rows.block_tables.cpu()
        columns = self.rows.columns
        lens = zip(*(x.tolist() for x in (columns.slot, columns.num_tokens, columns.num_blocks)), strict=True)
        for row, (slot, num_tokens, num_blocks) in enumerate(lens):
            assert torch.equal(token_ids[slot, :num_tokens], self.rows.token_ids[slot, :num_tokens])
            assert torch.equal(block_tables[slot, :num_blocks], self.rows.block_table[row, :num_blocks])


def assert_padded(got: torch.Tensor, want: torch.Tensor, pad: int) -> None:
    padding = [pad] * (len(got) - len(want))
    assert got.tolist() == want.tolist() + padding
