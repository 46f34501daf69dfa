"""Put an encoder's GPU runner together from a checkpoint: kernels, weights, one step that nobody waits for."""

import torch

from engine.checkpoint import Checkpoint
from engine.config import EngineConfig
from engine.kernels.gpu.encoder_ops import GpuEncoderOps
from engine.kernels.gpu.module import CupyLibrary, KernelLibrary
from engine.models import find_encoder
from engine.models.encoder import EncoderModel, load_encoder
from engine.models.encoders.packed import encoder_layout
from engine.runner.build_encoder import pick_max_model_len
from engine.runner.gpu.buckets import EncoderBuckets
from engine.runner.gpu.encoder import EncoderCompute, EncoderSteps, GpuEncoderRunner
from engine.runner.gpu.encoder_inputs import EncoderInputs
from engine.runner.gpu.encoder_memory import check_memory
from engine.runner.gpu.graphs import EagerSteps, GraphSteps
from engine.runner.gpu.memory import measure_taken, read_memory
from engine.runner.gpu.stream import CudaStream
from engine.runner.hardware import pick_gpu_encoder_dtype
from engine.startup import StartupReport
from engine.weights import Progress


def build_gpu_encoder_runner(
    config: EngineConfig, checkpoint: Checkpoint, report: StartupReport, progress: Progress | None = None
) -> GpuEncoderRunner:
    """For a settled configuration, on torch's current GPU. Raises ConfigError, GpuMemoryTooSmall, CheckpointError."""
    device = torch.device("cuda", torch.cuda.current_device())
    dtype = pick_gpu_encoder_dtype(config.dtype)
    max_model_len = pick_max_model_len(config, checkpoint.encoder)
    buckets = make_buckets(config, max_model_len)
    with report.phase("plan memory"):
        layout = encoder_layout(checkpoint.encoder, find_encoder(checkpoint.encoder.family))
        check_memory(config, checkpoint.encoder, layout, dtype, buckets.largest, read_memory(device))
    library, stream = CupyLibrary(device), CudaStream(device)
    with torch.inference_mode(), stream.current():
        with report.phase("load weights"):
            ops = GpuEncoderOps(library)
            model = load_encoder(checkpoint, ops, dtype, config.load_format, progress, device)
        with report.phase("load kernels, try the largest step"):
            compute = make_compute(model, ops, library, buckets)
            taken = measure_taken(lambda: try_step(compute, buckets), device)
    report.memory["weights"] = model.num_bytes
    report.memory["kernels and workspace"] = taken
    return GpuEncoderRunner(compute, pick_steps(compute), buckets, max_model_len, device, stream)


def make_buckets(config: EngineConfig, max_model_len: int) -> EncoderBuckets:
    """For a settled configuration. An input that is longer than a step's budget goes alone."""
    return EncoderBuckets(config.max_requests, max(config.max_batch_tokens, max_model_len))


def make_compute(
    model: EncoderModel, ops: GpuEncoderOps, library: KernelLibrary, buckets: EncoderBuckets
) -> EncoderCompute:
    return EncoderCompute(model, ops, EncoderInputs(buckets.largest, library.device))


def try_step(compute: EncoderCompute, buckets: EncoderBuckets) -> None:
    """The largest step there can be, without a single input: what it allocates and compiles is there from now on."""
    most = buckets.largest
    compute(
        buckets.find(
            most.num_inputs, most.num_tokens, most.num_tokens if compute.model.task == "fill_mask" else None
        )
    )


def pick_steps(compute: EncoderCompute) -> EncoderSteps:
    """A captured graph keeps its answers' memory: too much of it where they are logits over a vocabulary."""
    return EagerSteps(compute) if compute.model.task == "fill_mask" else GraphSteps(compute)
