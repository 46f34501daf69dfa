"""Put an encoder's CPU runner together from a checkpoint: kernels, weights."""

import ctypes
import logging
from concurrent.futures import ThreadPoolExecutor

from engine.checkpoint import Checkpoint, EncoderConfig
from engine.config import ConfigError, EngineConfig
from engine.kernels.cpu_encoder_ops import CpuEncoderOps, check_encoder_shapes
from engine.kernels.cpu_ops import Unsupported
from engine.kernels.encoder_ops import EncoderOps
from engine.kernels.encoder_reference import ReferenceEncoderOps
from engine.models.encoder import load_encoder
from engine.runner.encoder import CpuEncoderRunner
from engine.runner.hardware import pick_encoder_dtype
from engine.runner.library import load_kernels
from engine.runner.runner import build_on_step_thread
from engine.startup import StartupReport
from engine.weights import Progress

logger = logging.getLogger(__name__)


def build_encoder_runner(
    config: EngineConfig, checkpoint: Checkpoint, report: StartupReport, progress: Progress | None = None
) -> CpuEncoderRunner:
    """Raises ConfigError, CheckpointError."""
    max_model_len = pick_max_model_len(config, checkpoint.encoder)

    def make(thread: ThreadPoolExecutor) -> CpuEncoderRunner:
        with report.phase("load kernels"):
            ops = _pick_ops(load_kernels(), checkpoint.encoder)
        with report.phase("load weights"):
            dtype = pick_encoder_dtype(config.dtype)
            model = load_encoder(checkpoint, ops, dtype, config.load_format, progress)
        report.memory["weights"] = model.num_bytes
        return CpuEncoderRunner(model, max_model_len, thread)

    return build_on_step_thread(config.threads, make)


def pick_max_model_len(config: EngineConfig, encoder: EncoderConfig) -> int:
    """A decoder's positions go on; an encoder knows none beyond those it was trained with. Raises ConfigError."""
    if config.max_model_len > encoder.max_len:
        accepted = (
            f"0 (what the model was made for) to {encoder.max_len}, all the tokens that the model takes"
        )
        raise ConfigError("max_model_len", config.max_model_len, accepted)
    return config.max_model_len or encoder.max_len


def _pick_ops(library: ctypes.CDLL | None, config: EncoderConfig) -> EncoderOps:
    if library is None:
        return ReferenceEncoderOps()
    try:
        check_encoder_shapes(config.head_dim, config.hidden_size, config.intermediate_size)
    except Unsupported as error:
        logger.warning(
            "no compiled kernels for this model (%s): running the plain ones, which are slower", error
        )
        return ReferenceEncoderOps()
    return CpuEncoderOps(library)
