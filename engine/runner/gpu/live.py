"""What the host knows of the rows: who may be live, and what they asked for. One step behind the device, never below it."""

from collections.abc import Iterable, Mapping

from engine.runner.gpu.buckets import Bucket, Buckets
from engine.step import Plan


class LiveSlots:
    """Slots from their admission until their end is known."""

    def __init__(self) -> None:
        self._slots: set[int] = set()
        self._logprobs: dict[int, int] = {}  # what those slots asked for that asked
        self._prompt_logprobs: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._slots)

    @property
    def logprobs(self) -> Mapping[int, int]:
        """By slot, how many of the likeliest tokens are wanted at each of its steps; other slots want none."""
        return self._logprobs

    def apply(self, plan: Plan) -> None:
        self.remove(plan.evict)
        for admit in plan.admit:
            self._slots.add(admit.slot)
            if admit.sampling.logprobs is not None:
                self._logprobs[admit.slot] = admit.sampling.logprobs
            if admit.sampling.prompt_logprobs is not None:
                self._prompt_logprobs[admit.slot] = admit.sampling.prompt_logprobs

    def remove(self, slots: Iterable[int]) -> None:
        """Those that are not live are ignored."""
        for slot in slots:
            self._slots.discard(slot)
            self._logprobs.pop(slot, None)
            self._prompt_logprobs.pop(slot, None)

    def scored_slots(self, plan: Plan) -> dict[int, int]:
        """Of the plan's chunks, those of prompts whose log probabilities are wanted: slot, how many of the likeliest tokens."""
        if not self._prompt_logprobs:
            return {}
        wanted = self._prompt_logprobs
        return {slot: wanted[slot] for slot, _ in plan.chunks if slot in wanted}

    def bucket(self, plan: Plan, buckets: Buckets, max_tokens: int) -> Bucket:
        """For a plan that was applied. Rows whose end is not known yet are counted, though on the device they may be gone."""
        num_rows = len(self._slots)
        num_single = max(0, num_rows - len(plan.chunks))
        num_tokens = min(num_single + plan.num_chunk_tokens, max_tokens)
        return buckets.find(num_rows, num_tokens, logprobs=bool(self._logprobs))
