"""A scheduler and what stands around it, for looking at plans one by one."""

import numpy as np

from engine.config import EngineConfig
from engine.loop.history import History
from engine.request import SamplingParams
from engine.scheduler.blocks import Chain
from engine.scheduler.queue import Request
from engine.scheduler.scheduler import Scheduler
from engine.step import Plan

MAX_MODEL_LEN = 40


class Host:
    """A scheduler whose every step emits token 7 for the rows it is told."""

    def __init__(
        self, config: EngineConfig, num_blocks: int = 64, max_model_len: int = MAX_MODEL_LEN
    ) -> None:
        self.history = History(config.max_requests, max_model_len)
        self.scheduler = Scheduler(config, max_model_len, num_blocks, self.history)
        self.num_committed = 0

    def add(
        self,
        request_id: int,
        prompt: list[int],
        max_tokens: int = 20,
        salt: str = "",
        prompt_logprobs: int | None = None,
        owner: str = "",
    ) -> Request:
        request = Request(
            id=request_id,
            client=0,
            sampling=SamplingParams(max_tokens=max_tokens, prompt_logprobs=prompt_logprobs),
            num_prompt=len(prompt),
            token_ids=np.array(prompt, np.int32),
            chain=Chain(salt),
            key=(float(request_id), request_id),
            received=0.0,
            num_tokens=len(prompt),
            owner=owner,
        )
        assert self.scheduler.add(request) is None
        return request

    def plan(self, max_chunk_tokens: int | None = None) -> Plan:
        plan = self.scheduler.plan(max_chunk_tokens)
        assert plan is not None
        return plan

    def commit(self, *slots: int, finished: tuple[int, ...] = (), failed: tuple[int, ...] = ()) -> None:
        """The rows in these slots emitted a token in the oldest step that was not read."""
        self.num_committed += 1
        self.history.append(np.array(slots, np.int32), np.full(len(slots), 7, np.int32))
        self.scheduler.commit(self.num_committed, finished, failed)
