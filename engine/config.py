"""How an engine is to be built.

Facts learned while it is built (the number of blocks, the dtype) are arguments elsewhere, never written here.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Literal, get_args, get_origin, get_type_hints

import msgspec

Device = Literal["cpu", "cuda"]
INPUTS_A_PLACE = 8  # inputs of an encoder that take the place of one request in the queue


@dataclass(frozen=True, slots=True)
class EngineConfig:
    """One engine. The TOML table `[engine]` and the command line's flags have these names."""

    model: str = ""  # a folder, a .gguf file, or "" for the bundled model
    load_format: Literal["auto", "dummy"] = "auto"  # dummy: random weights for a bare config.json
    device: Literal["auto", "cpu", "cuda"] = "auto"  # auto: an NVIDIA GPU where one can be used
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = (
        "auto"  # float16 on a GPU alone, float32 on a CPU alone
    )
    threads: int = 0  # 0: one a core this process may use
    max_model_len: int = 0  # tokens of prompt and output; 0: what the model was made for
    max_requests: int = 0  # rows: requests that can be live at once; 0: by device
    max_batch_tokens: int = 0  # tokens computed in one step, at most; 0: by device
    step_seconds: float = 0.25  # prompts are cut so that a step keeps the rows beside them waiting no longer; 0: never cut for that
    block_size: int = 16  # tokens of keys and values in one block
    kv_tokens: int = 0  # tokens the KV cache holds; 0: from kv_memory
    kv_memory: int = 0  # bytes for the KV cache, when kv_tokens is 0; 0: by device
    gpu_memory: int = 0  # bytes of the GPU that may be in use in all, the KV cache taking what is left; 0: weights and KV cache
    prefix_cache: bool = True
    policy: Literal["fcfs", "priority"] = "fcfs"
    priority_seconds: float = 10.0  # one level of priority is worth this much waiting, so that none starves
    max_queued_requests: int = 2048
    max_queued_tokens: int = 1 << 20
    max_queue_seconds: float = 0.0  # who would wait longer for a row is refused; 0: only for the bounds above
    max_logprobs: int = 20
    deterministic: bool = False  # a request's tokens do not depend on the requests beside it; on a GPU. Then no prefix is shared

    @property
    def max_queued_inputs(self) -> int:
        """Of an encoder, each of which is a request: those of a few HTTP requests find a place, whatever their owners leave free."""
        return INPUTS_A_PLACE * self.max_queued_requests

    @property
    def max_queued_input_tokens(self) -> int:
        return INPUTS_A_PLACE * self.max_queued_tokens

    def check(self) -> None:
        """Raise ConfigError for the first value that is not of its type or out of bounds."""
        check_types(self)
        check_bounds(self, ENGINE_BOUNDS)
        if self.max_batch_tokens and self.max_requests > self.max_batch_tokens:
            accepted = f"1 to max_batch_tokens ({self.max_batch_tokens}), because every live request gets a token a step"
            raise ConfigError("max_requests", self.max_requests, accepted)
        least = max(self.max_requests, 1) + PIECE_TOKENS
        if self.deterministic and 0 < self.max_batch_tokens < least:
            accepted = (
                f"{least} and more where deterministic: a token for every request, {PIECE_TOKENS} of a prompt"
            )
            raise ConfigError("max_batch_tokens", self.max_batch_tokens, accepted)


@dataclass(frozen=True, slots=True)
class Defaults:
    """What 0 stands for on one kind of device."""

    max_requests: int
    max_batch_tokens: int
    kv_memory: int  # 0: what is left decides
    tokens_a_row: float = 1.0  # of a step, at the least


DEFAULTS: Mapping[Device, Defaults] = {
    "cpu": Defaults(max_requests=128, max_batch_tokens=256, kv_memory=2 << 30),
    "cuda": Defaults(max_requests=256, max_batch_tokens=2048, kv_memory=0, tokens_a_row=2.5),
}
# Of a step's products on a GPU, where its rows do not need more: some 15 ms of an H100. Beside prompts rows wait so long for their
# next token, and more tokens at once are multiplied no faster each.
STEP_OPERATIONS, TILE_TOKENS = 10**13, 128
# An encoder keeps nothing of a request, none of its inputs waits for its turn in a step, and a GPU is busy only with thousands of
# tokens at once.
ENCODER_DEFAULTS: Mapping[Device, Defaults] = {
    "cpu": Defaults(max_requests=128, max_batch_tokens=512, kv_memory=0),
    "cuda": Defaults(max_requests=512, max_batch_tokens=8192, kv_memory=0),
}
PIECE_TOKENS = (
    512  # where deterministic, prompts are cut at multiples of it, and no step computes a part of a piece
)
MAX_CUDA_REQUESTS, MAX_CUDA_BATCH_TOKENS = 4096, 1 << 16  # what the kernels that plan a step take


def settle(config: EngineConfig, device: Device, encodes: bool = False, num_weights: int = 0) -> EngineConfig:
    """The configuration on this device, in which 0 and auto are what they stand for, where the device decides that.

    encodes: the model is an encoder. num_weights: of the model; 0: not known. Left open are dtype, max_model_len and kv_tokens, which
    the model has a say in, and a GPU's kv_memory. Where deterministic there is no prefix cache, asked for or not: what a request finds
    there depends on others.
    Raises ConfigError for what the device does not do.
    """
    config.check()
    (_check_cpu if device == "cpu" else _check_cuda)(config)
    if encodes and config.deterministic:
        raise ConfigError("deterministic", config.deterministic, "false for an encoder")
    defaults = (ENCODER_DEFAULTS if encodes else DEFAULTS)[device]
    piece = PIECE_TOKENS if config.deterministic else 0
    most = config.max_batch_tokens - piece if config.max_batch_tokens else defaults.max_requests
    max_requests = config.max_requests or min(defaults.max_requests, most)
    least = max(max_requests + piece, int(defaults.tokens_a_row * max_requests))
    usual = (
        defaults.max_batch_tokens if device == "cpu" else _within_time(defaults.max_batch_tokens, num_weights)
    )
    return replace(
        config,
        device=device,
        max_requests=max_requests,
        max_batch_tokens=config.max_batch_tokens or max(least, usual),
        kv_memory=config.kv_memory or defaults.kv_memory,
        prefix_cache=config.prefix_cache and not config.deterministic,
    )


def _within_time(max_batch_tokens: int, num_weights: int) -> int:
    """So many tokens, or fewer where a step would have too many products."""
    if num_weights == 0:
        return max_batch_tokens
    return min(max_batch_tokens, STEP_OPERATIONS // (2 * num_weights * TILE_TOKENS) * TILE_TOKENS)


def _check_cpu(config: EngineConfig) -> None:
    if config.dtype == "float16":
        raise ConfigError("dtype", config.dtype, "auto, bfloat16 or float32 on a CPU; float16 is for a GPU")
    if config.gpu_memory:
        raise ConfigError("gpu_memory", config.gpu_memory, "0 on a CPU")
    if config.deterministic:
        raise ConfigError("deterministic", config.deterministic, "false on a CPU")


def _check_cuda(config: EngineConfig) -> None:
    if config.dtype == "float32":
        raise ConfigError("dtype", config.dtype, "auto, bfloat16 or float16 on a GPU; float32 is for a CPU")
    if config.block_size % 16:
        raise ConfigError("block_size", config.block_size, "a multiple of 16 on a GPU")
    if config.max_requests > MAX_CUDA_REQUESTS:
        raise ConfigError("max_requests", config.max_requests, f"0 to {MAX_CUDA_REQUESTS} on a GPU")
    if config.max_batch_tokens > MAX_CUDA_BATCH_TOKENS:
        raise ConfigError(
            "max_batch_tokens", config.max_batch_tokens, f"0 to {MAX_CUDA_BATCH_TOKENS} on a GPU"
        )


class ConfigError(ValueError):
    """A setting that is refused: which, its value, and what is accepted."""

    def __init__(self, name: str, value: object, accepted: str) -> None:
        super().__init__(f"{name} = {value!r} is not accepted; accepted: {accepted}")
        self.name = name
        self.value = value
        self.accepted = accepted


ENGINE_BOUNDS: Mapping[str, tuple[float, float]] = {
    "threads": (0, 1024),
    "max_model_len": (0, 1 << 24),
    "max_requests": (0, 1 << 16),
    "max_batch_tokens": (0, 1 << 20),
    "step_seconds": (0, 3600),
    "block_size": (1, 256),
    "kv_tokens": (0, 1 << 40),
    "kv_memory": (0, 1 << 50),
    "gpu_memory": (0, 1 << 50),
    "priority_seconds": (0, 1e9),
    "max_queued_requests": (1, 1 << 32),
    "max_queued_tokens": (1, 1 << 40),
    "max_queue_seconds": (0, 1e9),
    "max_logprobs": (0, 1000),
}


def check_types(config: object) -> None:
    """Raise ConfigError for the first field that holds something else than it says."""
    for name, accepted in get_type_hints(type(config)).items():
        value = getattr(config, name)
        try:
            msgspec.convert(value, accepted)
        except msgspec.ValidationError:
            raise ConfigError(name, value, describe_type(accepted)) from None


def describe_type(accepted: object) -> str:
    """For messages: a choice by its values, a type by its name."""
    if get_origin(accepted) is Literal:
        return ", ".join(map(str, get_args(accepted)))
    return accepted.__name__ if type(accepted) is type else str(accepted)


def check_bounds(config: object, bounds: Mapping[str, tuple[float, float]]) -> None:
    """Raise ConfigError for the first field outside its bounds, both of which are accepted."""
    for name, (low, high) in bounds.items():
        value = getattr(config, name)
        if not low <= value <= high:
            raise ConfigError(name, value, f"{low} to {high}")
