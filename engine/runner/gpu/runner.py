"""The GPU runner: steps are queued on the device, and read when they are over. The host never stands between two of them."""

from dataclasses import dataclass

import numpy as np
import torch

from engine.request import Finish
from engine.runner.gpu.buckets import Bucket, Buckets
from engine.runner.gpu.compute import StepCompute
from engine.runner.gpu.graphs import Steps
from engine.runner.gpu.live import LiveSlots
from engine.runner.gpu.logprobs import LogprobsInFlight
from engine.runner.gpu.ring import Entry
from engine.runner.gpu.state import DeviceState
from engine.runner.gpu.stream import Mark, Stream
from engine.runner.kv_cache import KvPlan
from engine.sampler.sampler import NO_TOKEN, REASONS
from engine.step import Launch, Logprobs, Plan, StepResult

NANO = 1e-9


class GpuRunner:
    """Owns the state on the device, and its queue. Used by one thread."""

    def __init__(
        self,
        compute: StepCompute,
        steps: Steps[Bucket, None],
        state: DeviceState,
        kv: KvPlan,
        buckets: Buckets,
        stream: Stream,
    ) -> None:
        self._compute = compute
        self._steps = steps
        self._state = state
        self._kv = kv
        self._buckets = buckets
        self._stream = stream
        self._live = LiveSlots()
        self._last_end_ns = 0  # of the step that was read last

    @property
    def num_blocks(self) -> int:
        return self._kv.num_blocks

    @property
    def max_model_len(self) -> int:
        return self._kv.max_model_len

    @property
    def dtype_name(self) -> str:
        return self._compute.dtype_name

    @property
    def device_name(self) -> str:
        return self._state.device.type

    def launch(self, plan: Plan) -> "GpuPending":
        with torch.inference_mode(), self._stream.current():
            self._live.apply(plan)
            self._state.apply(plan)
            bucket = self._live.bucket(plan, self._buckets, self._state.max_tokens)
            prompt_logprobs: dict[int, Logprobs] = {}
            launch: Launch = "eager"
            if scored := self._live.scored_slots(plan):
                prompt_logprobs = self._compute.run_scored(bucket, scored)
            else:
                launch = self._steps.launch_of(bucket)
                self._steps.run(bucket)
            logprobs = self._compute.read_logprobs(bucket) if bucket.logprobs else None
            return GpuPending(self, plan.step, self._stream.mark(), launch, logprobs, prompt_logprobs)

    def close(self) -> None:
        """Wait for what is still in the queue."""
        self._stream.mark().wait()

    def read(self, pending: "GpuPending") -> StepResult:
        """Of a step that is over; what ended in it is live no more."""
        entry = self._state.ring.read(pending.step)
        logprobs = None if pending.logprobs is None else pending.logprobs.select(entry, self._live.logprobs)
        ended = entry.slots[entry.finishes != Finish.RUNNING].tolist()
        self._live.remove(ended)
        self._state.release(ended, entry.step)
        gap, self._last_end_ns = entry.begin_ns - self._last_end_ns, entry.end_ns
        return StepResult(
            step=entry.step,
            slots=entry.slots,
            tokens=np.maximum(entry.codes, NO_TOKEN),
            finishes=entry.finishes.astype(np.uint8),
            num_rows=entry.num_rows,
            num_tokens=entry.num_tokens,
            seconds=(entry.end_ns - entry.begin_ns) * NANO,
            gap=max(0, gap) * NANO,
            launch=pending.launch,
            num_moves=entry.num_moves,
            logprobs=logprobs,
            prompt_logprobs=pending.prompt_logprobs,
            failed=_failures(entry),
        )


@dataclass(frozen=True, slots=True)
class GpuPending:
    """A launched step. Read once, and in order."""

    runner: GpuRunner
    step: int
    mark: Mark
    launch: Launch
    logprobs: LogprobsInFlight | None
    prompt_logprobs: dict[int, Logprobs]

    def done(self) -> bool:
        return self.mark.done()

    def result(self) -> StepResult:
        self.mark.wait()
        return self.runner.read(self)


def _failures(entry: Entry) -> dict[int, str]:
    failed = entry.codes <= NO_TOKEN
    if not failed.any():
        return {}
    pairs = zip(entry.slots[failed].tolist(), entry.codes[failed].tolist(), strict=True)
    return {slot: REASONS[code] for slot, code in pairs}
