"""All layers of BERT-base, one graph a step: this product's packed ones, torch's padded ones; what fusions and skewed lengths change."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from benchmarks.encoder_cells import ELEMENT, HIDDEN, Cell, pack, padded_places, padding_mask, skewed_cell
from benchmarks.encoder_layers import LayerWeights, sdpa_layer, unfused_layer
from benchmarks.encoder_packed import HEADS, STAGES, Fusions, ServedLayers, StagedLayers
from benchmarks.encoder_timer import Budget, attempt, time_graph_ms
from benchmarks.encoder_weights import build_trunk, plain_layers
from benchmarks.gpu_timer import time_us
from engine.kernels.gpu.encoder_ops import GpuEncoderOps

PaddedLayer = Callable[[torch.Tensor, LayerWeights, torch.Tensor | None], torch.Tensor]
SKEWS = (0.2, 0.4, 0.6, 0.8, 1.0)  # mean length over the longest


@dataclass(frozen=True, slots=True)
class LayersTime:
    """Milliseconds of all layers."""

    batch: int
    max_len: int
    tokens: int
    floor_ms: float
    ours_ms: float
    unfused_ms: float
    sdpa_ms: float
    compiled_ms: (
        float | None
    )  # torch.compile of a padded layer with torch's attention; None: failed or left out
    difference: float  # between our results and the unfused ones: the norm of it, over theirs


@dataclass(frozen=True, slots=True)
class StageTime:
    """Milliseconds of all layers with the fusions up to this one."""

    batch: int
    max_len: int
    stage: str
    ms: float


@dataclass(frozen=True, slots=True)
class SkewTime:
    """Milliseconds of all layers by how far the lengths lie apart."""

    mean: float  # over the longest
    tokens: int
    ours_ms: float
    plan_us: float  # what packing adds to a step, part of ours_ms: the plan that finds each input's tokens
    sdpa_ms: float
    compiled_ms: float | None
    unmasked_ms: (
        float  # padded, compiled where that works, without a mask: right only where nothing is padded
    )

    @property
    def packing_cost(self) -> float:
        """Of a step."""
        return self.plan_us / (self.ours_ms * 1e3 - self.plan_us)


class LayersBench:
    """Weights that all measurements share."""

    def __init__(self, ops: GpuEncoderOps, device: torch.device, budget: Budget) -> None:
        self._ops, self._device, self._budget = ops, device, budget
        self._trunk = build_trunk(ops, device)
        self._weights = plain_layers(device)

    def measure(self, cell: Cell) -> LayersTime:
        x, mask = self._draw(cell)
        ours = self._serve(cell, x)
        difference = self._difference(cell, x, mask)
        return LayersTime(
            batch=cell.batch,
            max_len=cell.max_len,
            tokens=cell.num_tokens,
            floor_ms=round(cell.layers_floor_ms, 4),
            ours_ms=round(time_graph_ms(ours.run), 4),
            unfused_ms=round(time_graph_ms(lambda: self._run(unfused_layer, x, mask)), 4),
            sdpa_ms=round(time_graph_ms(lambda: self._run(sdpa_layer, x, mask)), 4),
            compiled_ms=self._time_compiled(self._compile(), x, mask),
            difference=round(difference, 6),
        )

    def ablate(self, cell: Cell) -> list[StageTime]:
        x, mask = self._draw(cell)
        padded = time_graph_ms(lambda: self._run(unfused_layer, x, mask))
        times = [StageTime(cell.batch, cell.max_len, "padded, unfused", round(padded, 4))]
        for fusions in STAGES:
            ms = self._time_stage(fusions, cell, x)
            times.append(StageTime(cell.batch, cell.max_len, fusions.name, round(ms, 4)))
        return times

    def skew(self, batch: int, max_len: int) -> list[SkewTime]:
        x, _ = self._draw(skewed_cell(batch, max_len, 1.0))
        unmasked = self._time_compiled(self._compile(), x, None)
        if unmasked is None:
            unmasked = round(time_graph_ms(lambda: self._run(sdpa_layer, x, None)), 4)
        layer = self._compile()
        return [self._measure_skew(skewed_cell(batch, max_len, mean), layer, unmasked) for mean in SKEWS]

    def _measure_skew(self, cell: Cell, layer: PaddedLayer | None, unmasked_ms: float) -> SkewTime:
        x, mask = self._draw(cell)
        return SkewTime(
            mean=round(cell.num_tokens / len(cell.lens) / cell.max_len, 3),
            tokens=cell.num_tokens,
            ours_ms=round(time_graph_ms(self._serve(cell, x).run), 4),
            plan_us=round(self._time_plan(cell), 2),
            sdpa_ms=round(time_graph_ms(lambda: self._run(sdpa_layer, x, mask)), 4),
            compiled_ms=self._time_compiled(layer, x, mask),
            unmasked_ms=unmasked_ms,
        )

    def _draw(self, cell: Cell) -> tuple[torch.Tensor, torch.Tensor]:
        """Padded inputs of the first layer, dtype [inputs, max_len, HIDDEN], and their mask."""
        generator = torch.Generator(self._device).manual_seed(0)
        size = len(cell.lens), cell.max_len, HIDDEN
        x = torch.randn(size, generator=generator, device=self._device, dtype=ELEMENT)
        return x, padding_mask(cell, ELEMENT, self._device)

    def _pack(self, cell: Cell, x: torch.Tensor) -> torch.Tensor:
        return x.flatten(0, 1).index_select(0, padded_places(cell, self._device))

    def _serve(self, cell: Cell, x: torch.Tensor) -> ServedLayers:
        return ServedLayers(self._trunk, self._ops, self._pack(cell, x), cell)

    def _difference(self, cell: Cell, x: torch.Tensor, mask: torch.Tensor) -> float:
        got = self._serve(cell, x).run().float()
        expected = self._pack(cell, self._run(unfused_layer, x, mask)).float()
        return float((got - expected).norm() / expected.norm())

    def _run(self, layer: PaddedLayer, x: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        for w in self._weights:
            x = layer(x, w, mask)
        return x

    def _compile(self) -> PaddedLayer | None:
        """For one shape. None: there is no time left for it."""
        if self._budget.is_spent:
            return None
        torch.compiler.reset()  # it gives up after a few shapes
        return torch.compile(sdpa_layer, dynamic=False, fullgraph=True)

    def _time_compiled(
        self, layer: PaddedLayer | None, x: torch.Tensor, mask: torch.Tensor | None
    ) -> float | None:
        if layer is None:
            return None
        what = f"padded layers {x.shape[0]} x {x.shape[1]}, compiled"
        ms = attempt(what, lambda: time_graph_ms(lambda: self._run(layer, x, mask)))
        return None if ms is None else round(ms, 4)

    def _time_stage(self, fusions: Fusions, cell: Cell, x: torch.Tensor) -> float:
        staged = StagedLayers(self._weights, self._ops, fusions, cell)
        hidden = self._pack(cell, x)
        return time_graph_ms(lambda: staged.run(hidden))

    def _time_plan(self, cell: Cell) -> float:
        batch = pack(cell.lens, self._device)
        torch.cuda.synchronize()  # the timer has a stream of its own
        return time_us(lambda: self._ops.plan(batch, HEADS, ELEMENT))
