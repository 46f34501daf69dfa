"""All that a step reads and writes beside weights and cache: rows, the step's buffers, what it tells the host."""

from collections.abc import Iterable

import torch

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.row_shape import StepShape
from engine.runner.gpu.delta import build_delta
from engine.runner.gpu.ring import ResultRing
from engine.runner.gpu.row_kernels import RowKernels
from engine.runner.gpu.rows import DeviceRows
from engine.runner.gpu.step_buffers import StepBuffers
from engine.step import Plan


class DeviceState:
    """Owns the buffers, and the kernels that keep them."""

    def __init__(self, library: KernelLibrary, rows: DeviceRows, max_tokens: int, shape: StepShape) -> None:
        self.rows = rows
        self.max_tokens = max_tokens
        self.buffers = StepBuffers(rows.max_requests, max_tokens, rows.block_tables)
        self.ring = ResultRing(rows.max_requests, rows.device)
        self.kernels = RowKernels(library, rows, self.buffers, self.ring, shape)

    @property
    def device(self) -> torch.device:
        return self.rows.device

    @property
    def num_bytes(self) -> int:
        return self.rows.num_bytes + self.buffers.num_bytes

    def apply(self, plan: Plan) -> None:
        """Queue what a plan changes, if anything. Raises ValueError for what does not fit."""
        if plan.changes_rows:
            self.kernels.apply(build_delta(plan, self.rows))

    def release(self, slots: Iterable[int], step: int) -> None:
        """These slots' requests ended in this step."""
        self.rows.vocab.end(slots, step)
