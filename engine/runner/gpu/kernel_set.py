"""Which kernels decoders ask for, found by building their runners without a GPU: nothing is allocated, nothing is launched."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import torch

from engine.checkpoint import ModelConfig, Rope
from engine.config import EngineConfig, settle
from engine.kernels.gpu.contiguous import KvReorder
from engine.kernels.gpu.decode_attention import DecodeAttention
from engine.kernels.gpu.logprobs import GpuLogprobs
from engine.kernels.gpu.module import Argument, Grid
from engine.kernels.gpu.ops import GpuOps
from engine.kernels.gpu.prompt_attention import make_prompt_attention
from engine.kernels.gpu.shape import attention_shape
from engine.models.llama import Llama
from engine.runner.gpu.buckets import Bucket
from engine.runner.gpu.build import make_parts, max_tokens
from engine.runner.gpu.memory import make_gpu_caches
from engine.runner.kv_cache import KvPlan, KvShape
from engine.weights import Layout, Shape, Weights

NOWHERE = torch.device("meta")
NUM_LAYERS = 2  # the first and the last may differ, those between do not
NUM_MULTIPROCESSORS = 132  # of an H100
SOFTCAP = 50.0


@dataclass(frozen=True, slots=True)
class Unit:
    """What is compiled at once."""

    source: str
    defines: tuple[tuple[str, int], ...]
    architecture: str


@dataclass(frozen=True, slots=True)
class Sample:
    """A model, as far as kernels depend on it."""

    name: str
    config: ModelConfig
    dtype: torch.dtype = torch.bfloat16


class RecordingLibrary:
    """engine.kernels.gpu.module.KernelLibrary that remembers what it was asked for."""

    def __init__(self, architecture: str, num_multiprocessors: int = NUM_MULTIPROCESSORS) -> None:
        self.architecture = architecture
        self.num_multiprocessors = num_multiprocessors
        self.device = NOWHERE
        self.shared_bytes: dict[Unit, dict[str, int]] = {}  # dynamic, by function

    def get(
        self, source: str, function: str, defines: Mapping[str, int], shared_bytes: int = 0
    ) -> "UnlaunchedKernel":
        unit = Unit(source, tuple(sorted(defines.items())), self.architecture)
        functions = self.shared_bytes.setdefault(unit, {})
        functions[function] = max(shared_bytes, functions.get(function, 0))
        return UnlaunchedKernel()


class UnlaunchedKernel:
    def __call__(self, grid: Grid, block: int, *args: Argument) -> None: ...


class NoWeights:
    """engine.weights.source.TensorSource of tensors that have no values."""

    def __init__(self, layout: Layout) -> None:
        self.shapes: Mapping[str, Shape] = layout.shapes

    def label(self, name: str) -> str:
        return name

    def num_bytes(self, name: str) -> int:
        return 0

    def read(self, name: str, out: torch.Tensor) -> None: ...


def record_decoders(library: RecordingLibrary) -> None:
    """Every kernel of decoders, for all samples."""
    for sample in samples():
        for deterministic in (False, True):
            record_decoder(sample, deterministic, library)


def record_decoder(sample: Sample, deterministic: bool, library: RecordingLibrary) -> None:
    """What serving this model may launch; log probabilities; a soft cap and contiguous caches, which no model here asks for."""
    config = settle(EngineConfig(), "cuda")
    model = replace(sample.config, num_layers=NUM_LAYERS)
    layout = Llama.layout(model)
    weights = Weights(NoWeights(layout), layout, sample.dtype, None, NOWHERE)
    ops = GpuOps(library, config.block_size, deterministic, config.max_requests)
    llama = Llama(model, weights, ops, model.max_context)
    kv = KvPlan(num_blocks=1, block_size=config.block_size, max_model_len=model.max_context)
    shape = KvShape(NUM_LAYERS, model.num_kv_heads, model.head_dim, sample.dtype)
    caches = make_gpu_caches(kv, shape, NOWHERE)
    compute = make_parts(config, library, kv, llama).compute(llama, caches)
    for bucket in (Bucket(1, 1), Bucket(max_tokens(config), config.max_requests, logprobs=True)):
        compute(bucket)
    if deterministic:
        return
    capped = replace(attention_shape(llama.heads, config.block_size, sample.dtype), softcap=SOFTCAP)
    DecodeAttention(library, capped)
    make_prompt_attention(library, capped)
    GpuLogprobs(library, model.vocab_size, config.max_requests, config.max_logprobs)
    KvReorder(library, [torch.empty(2, 16, model.num_kv_heads * model.head_dim, device=NOWHERE)])


def samples() -> Iterator[Sample]:
    """The head sizes and groups there are, window, norms of heads, biases, both dtypes."""
    yield Sample("SmolLM2-135M", _decoder(49152, 576, 1536, (9, 3, 64)))
    yield Sample("Llama-3.2-1B", _decoder(128256, 2048, 8192, (32, 8, 64)))
    llama = _decoder(128256, 4096, 14336, (32, 8, 128))
    yield Sample("Llama-3.1-8B", llama)
    yield Sample("Llama-3.1-8B float16", llama, torch.float16)
    yield Sample("Mistral-7B", replace(_decoder(32000, 4096, 14336, (32, 8, 128)), sliding_window=4096))
    yield Sample("Qwen2.5-7B", replace(_decoder(152064, 3584, 18944, (28, 4, 128)), qkv_bias=True))
    yield Sample("Qwen3-0.6B", replace(_decoder(151936, 1024, 3072, (16, 8, 128)), qk_norm=True))
    yield Sample("heads of 96", replace(_decoder(32064, 3072, 8192, (32, 32, 96)), sliding_window=2047))
    yield Sample("heads of 256", _decoder(256000, 2304, 9216, (8, 4, 256)))


def _decoder(vocab: int, hidden: int, inner: int, heads: tuple[int, int, int]) -> ModelConfig:
    """heads: query heads, KV heads, channels of one."""
    return ModelConfig(
        architecture="LlamaForCausalLM",
        family="llama",
        vocab_size=vocab,
        hidden_size=hidden,
        intermediate_size=inner,
        num_layers=NUM_LAYERS,
        num_heads=heads[0],
        num_kv_heads=heads[1],
        head_dim=heads[2],
        norm_eps=1e-5,
        rope=Rope(10000.0),
        max_context=64,
        tie_embeddings=True,
    )
