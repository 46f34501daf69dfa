"""The CPU runner: one thread that computes the steps in the order they were launched, while the host goes on."""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

from engine.kernels.ops import LayerCache
from engine.models.model import Model
from engine.runner.hardware import num_usable_cores
from engine.runner.kv_cache import KvPlan
from engine.runner.pack import Packed, count_tokens, pack
from engine.runner.rows import RowBuffers
from engine.sampler.logprobs import take_logprobs
from engine.sampler.sampler import Picked, Sampler
from engine.step import Logprobs, Plan, StepResult

R = TypeVar("R")


def make_step_thread(num_threads: int) -> ThreadPoolExecutor:
    """The one thread that computes; each of its operations uses up to num_threads."""
    return ThreadPoolExecutor(1, "step", initializer=torch.set_num_threads, initargs=(num_threads,))


def build_on_step_thread(num_threads: int, build: Callable[[ThreadPoolExecutor], R]) -> R:
    """What `build` makes of a new step thread, on which it runs; the thread ends if it raises. 0 threads: one a core."""
    thread = make_step_thread(num_threads or num_usable_cores())
    try:
        return thread.submit(build, thread).result()
    except BaseException:
        thread.shutdown()
        raise


class CpuRunner:
    """Owns the rows and the KV cache. The steps run on `thread`, which also built the model.

    Two threads that both compute would each have a team of OpenMP's, more than there are cores, and its workers would then sleep
    between any two operations: at one token that nearly halves the speed.
    """

    def __init__(
        self,
        model: Model,
        caches: list[LayerCache],
        kv: KvPlan,
        rows: RowBuffers,
        sampler: Sampler,
        thread: ThreadPoolExecutor,
    ) -> None:
        self._model = model
        self._caches = caches
        self._kv = kv
        self._rows = rows
        self._sampler = sampler
        self._thread = thread

    @property
    def num_blocks(self) -> int:
        return self._kv.num_blocks

    @property
    def max_model_len(self) -> int:
        return self._kv.max_model_len

    @property
    def dtype_name(self) -> str:
        return str(self._model.dtype).removeprefix("torch.")

    @property
    def device_name(self) -> str:
        return "cpu"

    def launch(self, plan: Plan) -> Future[StepResult]:
        return self._thread.submit(self._step, plan)

    def close(self) -> None:
        self._thread.shutdown(cancel_futures=True)

    @torch.inference_mode()
    def _step(self, plan: Plan) -> StepResult:
        began = time.perf_counter()
        self._apply(plan)
        counts = count_tokens(self._rows, plan.chunks)
        packed = pack(self._rows, counts, self._kv.block_size)
        logits = self._compute(packed)
        num_sampled = len(packed.sampled_rows)
        picked = self._sampler.pick(logits[:num_sampled], self._rows.select(packed.sampled_rows))
        prompt_logprobs = self._score_prompts(packed, logits[num_sampled:])
        slots = self._rows.columns.slot[packed.sampled_rows]
        num_moves = self._advance(packed, picked)
        return StepResult(
            step=plan.step,
            slots=slots.numpy(),
            tokens=picked.token_ids.numpy(),
            finishes=picked.finishes.numpy(),
            num_rows=int((counts > 0).sum()),
            num_tokens=packed.batch.num_tokens,
            seconds=time.perf_counter() - began,
            num_moves=num_moves,
            logprobs=picked.logprobs,
            prompt_logprobs=prompt_logprobs,
            failed=picked.failed,
        )

    def _apply(self, plan: Plan) -> None:
        """The changes the host asks for, on rows that are still there."""
        if plan.evict:
            self._rows.evict(plan.evict)
        for admit in plan.admit:
            self._rows.admit(admit)
        self._rows.append_blocks(plan.blocks)

    def _compute(self, packed: Packed) -> torch.Tensor:
        """float32 [logit tokens, vocab]."""
        if packed.batch.num_tokens == 0:
            return torch.empty(0, self._model.config.vocab_size)
        return self._model.logits(self._model(packed.batch, self._caches))

    def _score_prompts(self, packed: Packed, logits: torch.Tensor) -> dict[int, Logprobs]:
        """By slot: log probabilities of the prompt tokens after those computed. logits [scored, vocab]."""
        scores: dict[int, Logprobs] = {}
        columns = self._rows.columns
        for row in sorted(set(packed.scored_rows.tolist())):
            mine = packed.scored_rows == row
            targets = packed.scored_positions[mine] + 1
            slot = int(columns.slot[row])
            num_top = columns.num_prompt_logprobs[row].expand(len(targets))
            scores[slot] = take_logprobs(logits[mine], self._rows.token_ids[slot, targets], targets, num_top)
        return scores

    def _advance(self, packed: Packed, picked: Picked) -> int:
        """Append the tokens, and let the rows that ended go: the next step does not see them. How many rows moved."""
        self._rows.columns.num_computed.add_(packed.counts)
        self._rows.append_tokens(packed.sampled_rows, picked.token_ids)
        finished = torch.zeros(self._rows.num_rows, dtype=torch.bool)
        finished[packed.sampled_rows] = picked.finishes != 0
        return self._rows.compact(finished)
