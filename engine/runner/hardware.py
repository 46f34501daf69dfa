"""What this machine is good at: which device computes, and in which dtype."""

import importlib
import logging
import os
from typing import Literal

import torch

from engine.checkpoint import EncoderConfig, ModelConfig
from engine.config import ConfigError, Device
from engine.kernels.gpu import disentangled_attention, encoder_attention, prompt_attention
from engine.kernels.gpu.decode_attention import MAX_GROUP

MIN_CAPABILITY = (8, 0)  # Ampere: bfloat16 in the tensor cores, asynchronous copies
# What compiles and launches the kernels.
GPU_MODULES = ("cupy", "cuda.bindings.nvrtc")

logger = logging.getLogger(__name__)


def pick_device(wanted: Literal["auto", "cpu", "cuda"], fault: str = "") -> Device:
    """`auto` is a GPU where one can be used. Raises ConfigError, with the reason, for a GPU that cannot.

    fault: why the model cannot be computed on a GPU, whichever it is; empty: it can.
    """
    if wanted == "cpu":
        return "cpu"
    if not torch.cuda.is_available():
        reason = "torch finds no NVIDIA GPU" if torch.version.cuda else "this torch was built without CUDA"
    else:
        reason = fault or _why_not_usable()
        if reason and wanted == "auto":
            logger.warning("there is a GPU, and the CPU computes: %s", reason)
    if reason and wanted == "cuda":
        raise ConfigError("device", wanted, f"cpu or auto: {reason}")
    device: Device = "cpu" if reason else "cuda"
    logger.info("device: %s (%s)", device, reason or torch.cuda.get_device_name())
    return device


def find_gpu_fault(model: ModelConfig | EncoderConfig) -> str:
    """Why no GPU computes this model; empty if one can."""
    sizes = {"hidden_size": model.hidden_size, "intermediate_size": model.intermediate_size}
    if isinstance(model, ModelConfig):
        head_dims = prompt_attention.HEAD_DIMS
        if model.num_heads > MAX_GROUP * model.num_kv_heads:
            return f"{model.num_heads} query heads share {model.num_kv_heads} KV heads; on a GPU at most {MAX_GROUP} share one"
    else:
        is_relative = model.disentangled is not None and model.disentangled.relative
        head_dims = (disentangled_attention if is_relative else encoder_attention).HEAD_DIMS
        sizes["embedding_size"] = model.embedding_size
    if model.head_dim not in head_dims:
        return f"attention heads have {model.head_dim} channels; a GPU takes {', '.join(map(str, head_dims))}"
    odd = [name for name, size in sizes.items() if size % 8]
    return f"{odd[0]} is {sizes[odd[0]]}; a GPU takes multiples of 8" if odd else ""


def _why_not_usable() -> str:
    """Empty if the GPU can be used."""
    capability = torch.cuda.get_device_capability()
    if capability < MIN_CAPABILITY:
        found, least = ("{}.{}".format(*pair) for pair in (capability, MIN_CAPABILITY))
        return f"{torch.cuda.get_device_name()} has compute capability {found}; accepted: {least} and newer"
    for name in GPU_MODULES:
        try:
            importlib.import_module(name)
        except ImportError as error:
            extra = f"cuda{(torch.version.cuda or '13').partition('.')[0]}"
            return f"{name} cannot be imported ({error}); tokenloom[{extra}] brings it"
    return ""


def pick_dtype(name: str, compiled: bool) -> torch.dtype:
    """Of a CPU. `auto` is bfloat16 on the compiled kernels: they read half the bytes, and widen on the fly where the processor has none.

    torch's own operations emulate it there, 2 to 4 times slower than float32, so without the compiled kernels it is float32.
    """
    if name == "auto":
        return torch.bfloat16 if compiled else torch.float32
    return {"bfloat16": torch.bfloat16, "float32": torch.float32}[name]


def pick_gpu_dtype(name: str) -> torch.dtype:
    """`auto` is bfloat16, which has float32's range: a model that was trained in it overflows in float16."""
    return torch.float16 if name == "float16" else torch.bfloat16


def pick_encoder_dtype(name: str) -> torch.dtype:
    """`auto` is float32: embeddings are compared with others that may come from another program, to many digits.

    In bfloat16 an embedding of all-MiniLM-L6-v2 keeps a cosine of 0.99997 with its float32 twin.
    """
    return torch.bfloat16 if name == "bfloat16" else torch.float32


def pick_gpu_encoder_dtype(name: str) -> torch.dtype:
    """`auto` is float16, which keeps three bits more of a vector than bfloat16: an encoder's stream is normed and does not outgrow it."""
    return torch.bfloat16 if name == "bfloat16" else torch.float16


def num_usable_cores() -> int:
    """Cores this process may run on (a container's or taskset's share, where the system says)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
