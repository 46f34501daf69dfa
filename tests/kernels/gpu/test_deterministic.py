"""A request's logits and tokens are the same bits alone and among others, in a whole engine that is deterministic."""

import json
import random
from dataclasses import dataclass, field, replace

import pytest
import torch

from engine.checkpoint import open_checkpoint
from engine.columns import Columns
from engine.config import PIECE_TOKENS, EngineConfig, settle
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.ops import GpuOps
from engine.kernels.gpu.sampler import GpuSampler
from engine.kernels.reference import ReferenceOps
from engine.loop.loop import Engine
from engine.models.load import load_model
from engine.request import SamplingParams, Submit
from engine.runner.gpu.buckets import Buckets
from engine.runner.gpu.build import make_parts, max_tokens
from engine.runner.gpu.graphs import EagerSteps
from engine.runner.gpu.memory import make_gpu_caches
from engine.runner.gpu.runner import GpuRunner
from engine.runner.gpu.stream import CudaStream
from engine.runner.kv_cache import KvShape, plan_kv
from tests.emulation.stream import HostStream
from tests.engine.harness import Clients, check_rest, run_out
from tests.kernels.gpu.test_gpu_runner import SHAPE, VOCAB, Bench, submit, write_weights

MAX_REQUESTS = 9
MAX_MODEL_LEN = PIECE_TOKENS + 300
SUBJECT = 99  # the request that is looked at


class RecordingSampler(GpuSampler):
    """Keeps the logits of every token that is sampled."""

    def __init__(self, library: KernelLibrary) -> None:
        super().__init__(library, VOCAB, MAX_REQUESTS)
        self.rows: list[bytes] = []

    def __call__(
        self,
        logits: torch.Tensor,
        columns: Columns,
        samples: torch.Tensor,
        counts: torch.Tensor,
        pools: torch.Tensor,
        codes: torch.Tensor,
    ) -> None:
        chosen = samples[: int(counts[0])].nonzero().flatten()
        self.rows.extend(row.numpy().tobytes() for row in logits[chosen].cpu())
        super().__call__(logits, columns, samples, counts, pools, codes)


@dataclass(frozen=True, slots=True)
class Traffic:
    """What an engine computes beside the request that is looked at, which comes after `num_before` mates."""

    subject: Submit
    mates: list[Submit] = field(default_factory=list)
    num_before: int = 0
    seed: int = 0

    def run(self, engine: Engine, clients: Clients) -> list[int]:
        """The subject's tokens."""
        messages = [*self.mates[: self.num_before], self.subject, *self.mates[self.num_before :]]
        rnd = random.Random(self.seed)
        for message in messages:
            submit(engine, clients, message)
            for _ in range(rnd.randint(0, 2)):
                engine.step()
        run_out(engine)
        check_rest(engine)
        return clients.tokens[SUBJECT]


@pytest.fixture(scope="module")
def bench(kernel_library: KernelLibrary, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps({**SHAPE, "max_position_embeddings": MAX_MODEL_LEN}))
    checkpoint = open_checkpoint(str(folder))
    write_weights(checkpoint, folder)
    ops = GpuOps(kernel_library, 16, deterministic=True, max_rows=MAX_REQUESTS)
    device = kernel_library.device
    model = load_model(checkpoint, ops, torch.bfloat16, MAX_MODEL_LEN, "auto", None, device)
    twin = load_model(checkpoint, ReferenceOps(), torch.float32, MAX_MODEL_LEN)
    return Bench(kernel_library, checkpoint, model, twin)


def configured(max_batch_tokens: int) -> EngineConfig:
    wanted = EngineConfig(
        max_requests=MAX_REQUESTS,
        max_batch_tokens=max_batch_tokens,
        kv_tokens=8 * MAX_MODEL_LEN // 16 * 16,
        max_model_len=MAX_MODEL_LEN,
        deterministic=True,
    )
    return settle(wanted, "cuda")


def make_recording(bench: Bench, config: EngineConfig) -> tuple[GpuRunner, RecordingSampler]:
    """A runner whose steps are not captured, so that each one's logits can be looked at."""
    heads, device = bench.model.heads, bench.library.device
    shape = KvShape(bench.model.config.num_layers, heads.num_kv_heads, heads.head_dim, bench.model.dtype)
    kv = plan_kv(config, shape, MAX_MODEL_LEN)
    sampler = RecordingSampler(bench.library)
    parts = replace(make_parts(config, bench.library, kv, bench.model), sampler=sampler)
    compute = parts.compute(bench.model, make_gpu_caches(kv, shape, device))
    buckets = Buckets(config.max_requests, max_tokens(config))
    stream = HostStream() if device.type == "cpu" else CudaStream(device)
    return GpuRunner(compute, EagerSteps(compute), parts.state, kv, buckets, stream), sampler


def request(request_id: int, num_prompt: int, sampling: SamplingParams) -> Submit:
    rnd = random.Random(request_id)
    prompt = tuple(rnd.randrange(VOCAB) for _ in range(num_prompt))
    return Submit(id=request_id, prompt=prompt, sampling=sampling)


def mates_of(device: torch.device, seed: int) -> list[Submit]:
    """With prompts of up to two pieces; with short ones on the emulator, which is slow."""
    rnd = random.Random(seed)
    longest = 90 if device.type == "cpu" else MAX_MODEL_LEN - 20
    sampling = [SamplingParams(max_tokens=rnd.randint(2, 9), temperature=i % 2, seed=i) for i in range(8)]
    return [request(i, rnd.randint(1, longest), params) for i, params in enumerate(sampling)]


def subject_lens(device: torch.device) -> list[int]:
    if device.type == "cpu":
        return [PIECE_TOKENS + 1, PIECE_TOKENS + 100]
    return [1, 40, PIECE_TOKENS, PIECE_TOKENS + 1, PIECE_TOKENS + 200]


def test_logits_are_the_same_bits(bench: Bench, device: torch.device) -> None:
    for num_prompt in subject_lens(device):
        subject = request(SUBJECT, num_prompt, SamplingParams(max_tokens=6, temperature=0))
        alone = run_recording(bench, MAX_REQUESTS + PIECE_TOKENS, Traffic(subject))
        assert len(alone) == 6
        for seed in range(2):
            traffic = Traffic(subject, mates_of(device, seed), 2 + 3 * seed, seed)
            among = run_recording(bench, 2 * PIECE_TOKENS + 31 * seed, traffic)
            assert len(among) > len(alone)
            assert set(alone) <= set(among), f"{num_prompt} tokens, mates {seed}"


def run_recording(bench: Bench, max_batch_tokens: int, traffic: Traffic) -> list[bytes]:
    """The logits of all tokens."""
    config, clients = configured(max_batch_tokens), Clients()
    runner, sampler = make_recording(bench, config)
    traffic.run(Engine(config, runner, MAX_MODEL_LEN, clients.publish, clients), clients)
    return sampler.rows


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_are_the_same(bench: Bench, device: torch.device, temperature: float) -> None:
    """In captured steps, where the device has them."""
    for num_prompt in subject_lens(device):
        params = SamplingParams(max_tokens=12, temperature=temperature, top_p=0.95, seed=5)
        subject = request(SUBJECT, num_prompt, params)
        alone = run_captured(bench, MAX_REQUESTS + PIECE_TOKENS, Traffic(subject))
        traffic = Traffic(subject, mates_of(device, num_prompt), 4, num_prompt)
        assert run_captured(bench, 2 * PIECE_TOKENS, traffic) == alone


def run_captured(bench: Bench, max_batch_tokens: int, traffic: Traffic) -> list[int]:
    config, clients = configured(max_batch_tokens), Clients()
    runner = bench.runner(config)
    return traffic.run(Engine(config, runner, MAX_MODEL_LEN, clients.publish, clients), clients)
