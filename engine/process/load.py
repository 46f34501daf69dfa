"""From settings to a runner on this machine, and to the loop that drives it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.config import ConfigError, Device, EngineConfig, settle
from engine.startup import StartupReport

if TYPE_CHECKING:
    from engine.checkpoint import Checkpoint
    from engine.encode_step import EncoderRunner
    from engine.loop.encoder_loop import EncoderEngine
    from engine.loop.loop import Engine
    from engine.loop.observer import EngineObserver
    from engine.loop.outbox import Publish
    from engine.runner.encoder import CpuEncoderRunner
    from engine.runner.gpu.encoder import GpuEncoderRunner
    from engine.runner.gpu.runner import GpuRunner
    from engine.runner.runner import CpuRunner
    from engine.step import Runner


class ModelRefused(Exception):
    """The settings or the model cannot be used, as explained in the message."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """A decoder's runner, and what was settled while it was built."""

    runner: "Runner"
    model_name: str
    max_model_len: int
    dtype: str
    device: str
    config: EngineConfig  # settled


@dataclass(frozen=True, slots=True)
class LoadedEncoder:
    """The same of an encoder."""

    runner: "EncoderRunner"
    model_name: str
    max_model_len: int
    dtype: str
    device: str
    config: EngineConfig


RunnerFactory = Callable[[EngineConfig, StartupReport], Loaded | LoadedEncoder]


def make_engine(
    loaded: Loaded | LoadedEncoder, publish: "Publish", observer: "EngineObserver"
) -> "Engine | EncoderEngine":
    """The loop for what was loaded. Raises ModelRefused if the settings do not fit it."""
    from engine.loop.encoder_loop import EncoderEngine
    from engine.loop.loop import Engine

    match loaded:
        case LoadedEncoder():
            return EncoderEngine(loaded.config, loaded.runner, loaded.max_model_len, publish, observer)
        case Loaded():
            try:
                return Engine(loaded.config, loaded.runner, loaded.max_model_len, publish, observer)
            except ConfigError as error:
                raise ModelRefused(str(error)) from error


def load_model(config: EngineConfig, report: StartupReport) -> Loaded | LoadedEncoder:
    """The real runner, on this machine's GPU or processor. Raises ModelRefused."""
    with report.phase("import torch"):
        from engine.runner.gpu.memory import GpuMemoryTooSmall
        from engine.runner.hardware import find_gpu_fault, pick_device
        from engine.runner.kv_cache import KvTooSmall
    from engine.checkpoint import CheckpointError, open_checkpoint

    try:
        with report.phase("open the model"):
            checkpoint = open_checkpoint(config.model)
        device = pick_device(config.device, find_gpu_fault(checkpoint.config))
        load = _load_decoder if checkpoint.task == "generate" else _load_encoder
        return load(config, device, checkpoint, report)
    except (CheckpointError, ConfigError, KvTooSmall, GpuMemoryTooSmall) as error:
        raise ModelRefused(str(error)) from error


def _load_decoder(
    config: EngineConfig, device: Device, checkpoint: "Checkpoint", report: StartupReport
) -> Loaded:
    from engine.models import find_model

    layout = find_model(checkpoint.decoder.architecture).layout(checkpoint.decoder)
    config = settle(config, device, num_weights=layout.num_weights)
    runner = _build_runner(config, checkpoint, report)
    return Loaded(
        runner, checkpoint.name, runner.max_model_len, runner.dtype_name, runner.device_name, config
    )


def _build_runner(
    config: EngineConfig, checkpoint: "Checkpoint", report: StartupReport
) -> "CpuRunner | GpuRunner":
    if config.device == "cuda":
        from engine.runner.gpu.build import build_gpu_runner

        return build_gpu_runner(config, checkpoint, report)
    from engine.runner.build import build_runner

    return build_runner(config, checkpoint, report)


def _load_encoder(
    config: EngineConfig, device: Device, checkpoint: "Checkpoint", report: StartupReport
) -> LoadedEncoder:
    config = settle(config, device, encodes=True)
    runner = _build_encoder_runner(config, checkpoint, report)
    return LoadedEncoder(
        runner, checkpoint.name, runner.max_model_len, runner.dtype_name, runner.device_name, config
    )


def _build_encoder_runner(
    config: EngineConfig, checkpoint: "Checkpoint", report: StartupReport
) -> "CpuEncoderRunner | GpuEncoderRunner":
    if config.device == "cuda":
        from engine.runner.gpu.build_encoder import build_gpu_encoder_runner

        return build_gpu_encoder_runner(config, checkpoint, report)
    from engine.runner.build_encoder import build_encoder_runner

    return build_encoder_runner(config, checkpoint, report)
