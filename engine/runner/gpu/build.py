"""Put the GPU runner together from a checkpoint: kernels, weights, rows, the KV cache, one step that nobody waits for."""

from dataclasses import dataclass, replace

import torch

from engine.checkpoint import Checkpoint
from engine.config import EngineConfig
from engine.kernels.gpu.decode_tiles import DecodeTiles
from engine.kernels.gpu.logprobs import GpuLogprobs
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from engine.kernels.gpu.ops import GpuOps
from engine.kernels.gpu.prompt_attention import prompt_tile
from engine.kernels.gpu.row_shape import StepShape
from engine.kernels.gpu.sampler import GpuSampler
from engine.kernels.gpu.shape import attention_shape
from engine.kernels.ops import LayerCache
from engine.models import find_model
from engine.models.load import load_model
from engine.models.model import Model
from engine.runner.gpu.buckets import Bucket, Buckets
from engine.runner.gpu.compute import StepCompute
from engine.runner.gpu.graphs import GraphSteps
from engine.runner.gpu.memory import (
    MemoryPlan,
    fit_cache,
    make_gpu_caches,
    measure_taken,
    plan_memory,
    read_memory,
)
from engine.runner.gpu.rows import DeviceRows
from engine.runner.gpu.runner import GpuRunner
from engine.runner.gpu.state import DeviceState
from engine.runner.gpu.stream import CudaStream
from engine.runner.hardware import pick_gpu_dtype
from engine.runner.kv_cache import KvPlan
from engine.startup import StartupReport
from engine.weights import Progress


@dataclass(frozen=True, slots=True)
class Parts:
    """What a step needs beside the model and its cache."""

    state: DeviceState
    decode_tiles: DecodeTiles
    sampler: GpuSampler
    logprobs: GpuLogprobs

    def compute(self, model: Model, caches: list[LayerCache]) -> StepCompute:
        return StepCompute(model, caches, self.state, self.decode_tiles, self.sampler, self.logprobs)


def make_parts(config: EngineConfig, library: KernelLibrary, kv: KvPlan, model: Model) -> Parts:
    """For a settled configuration."""
    vocab_size, max_blocks = model.config.vocab_size, -(-kv.max_model_len // kv.block_size)
    rows = DeviceRows(config.max_requests, kv.max_model_len, max_blocks, vocab_size, library.device)
    shape = attention_shape(model.heads, kv.block_size, model.dtype)
    step_shape = StepShape(kv.block_size, shape.window, prompt_tile(shape))
    return Parts(
        DeviceState(library, rows, max_tokens(config), step_shape),
        DecodeTiles(library, shape, config.deterministic),
        GpuSampler(library, vocab_size, config.max_requests),
        GpuLogprobs(library, vocab_size, config.max_requests, config.max_logprobs),
    )


def max_tokens(config: EngineConfig) -> int:
    """Of the largest bucket: more than rows, whatever the configuration says."""
    return max(config.max_batch_tokens, config.max_requests + 1)


def try_steps(config: EngineConfig, parts: Parts, model: Model, memory: MemoryPlan) -> None:
    """The smallest step and the largest there can be, without a single row: what they allocate and load is there from now on."""
    block = replace(memory.kv, num_blocks=1)
    compute = parts.compute(model, make_gpu_caches(block, memory.shape, parts.state.device))
    for bucket in (Bucket(1, 1), Bucket(max_tokens(config), config.max_requests, logprobs=True)):
        compute(bucket)
    parts.state.rows.steps.fill_(1)  # the trials are no steps


def build_gpu_runner(
    config: EngineConfig, checkpoint: Checkpoint, report: StartupReport, progress: Progress | None = None
) -> GpuRunner:
    """For a settled configuration, on torch's current GPU. Raises KvTooSmall, GpuMemoryTooSmall, CheckpointError."""
    device = torch.device("cuda", torch.cuda.current_device())
    dtype = pick_gpu_dtype(config.dtype)
    stream = CudaStream(device)
    with report.phase("plan memory"):
        layout = find_model(checkpoint.decoder.architecture).layout(checkpoint.decoder)
        memory = plan_memory(config, checkpoint.decoder, layout, dtype, read_memory(device))
    library = CupyLibrary(device)  # compiles from here on, beside what comes first
    with torch.inference_mode(), stream.current():
        with report.phase("load weights"):
            ops = GpuOps(library, config.block_size, config.deterministic, config.max_requests)
            positions = memory.kv.max_model_len
            model = load_model(checkpoint, ops, dtype, positions, config.load_format, progress, device)
        with report.phase("allocate rows"):
            parts = make_parts(config, library, memory.kv, model)
        with report.phase("load kernels, try a step"):
            library.finish()
            taken = measure_taken(lambda: try_steps(config, parts, model, memory), device)
        with report.phase("allocate KV cache"):
            kv = fit_cache(memory, config, read_memory(device))
            caches = make_gpu_caches(kv, memory.shape, device)
    report.memory["weights"] = model.num_bytes
    report.memory["rows"] = parts.state.num_bytes
    report.memory["kernels and workspace"] = taken
    report.memory["KV cache"] = kv.num_tokens * memory.shape.bytes_per_token
    compute = parts.compute(model, caches)
    buckets = Buckets(config.max_requests, max_tokens(config))
    return GpuRunner(compute, GraphSteps(compute), parts.state, kv, buckets, stream)
