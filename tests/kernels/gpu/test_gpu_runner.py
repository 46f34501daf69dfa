"""The GPU's runner in a whole engine: a small random model, against the plain operations in float32."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from engine.batch import Batch
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.config import EngineConfig
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.ops import GpuOps
from engine.kernels.ops import LayerCache
from engine.kernels.reference import ReferenceOps
from engine.loop.loop import Engine
from engine.models import find_model
from engine.models.load import load_model
from engine.models.model import Model
from engine.request import Abort, Finish, SamplingParams, Submit, TokenLogprobs
from engine.runner.gpu.buckets import Bucket, Buckets
from engine.runner.gpu.build import make_parts, max_tokens
from engine.runner.gpu.graphs import Compute, EagerSteps, GraphSteps
from engine.runner.gpu.memory import make_gpu_caches
from engine.runner.gpu.runner import GpuRunner
from engine.runner.gpu.stream import CudaStream
from engine.runner.kv_cache import KvShape, plan_kv
from tests.emulation.stream import HostStream
from tests.engine.harness import Clients, check_rest, run_out

VOCAB = 101
MAX_MODEL_LEN = 96
CLOSE = 0.06  # logits that bfloat16 may swap
SHAPE = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "num_key_value_heads": 1,
    "head_dim": 64,
    "vocab_size": VOCAB,
    "max_position_embeddings": MAX_MODEL_LEN,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
}


@dataclass(frozen=True, slots=True)
class Bench:
    """One model on the device, and its twin in float32 with the same weights."""

    library: KernelLibrary
    checkpoint: Checkpoint
    model: Model
    twin: Model

    def engine(self, config: EngineConfig, clients: Clients) -> Engine:
        return Engine(config, self.runner(config), MAX_MODEL_LEN, clients.publish, clients)

    def runner(self, config: EngineConfig) -> GpuRunner:
        heads = self.model.heads
        shape = KvShape(self.model.config.num_layers, heads.num_kv_heads, heads.head_dim, self.model.dtype)
        kv = plan_kv(config, shape, MAX_MODEL_LEN)
        parts = make_parts(config, self.library, kv, self.model)
        compute = parts.compute(self.model, make_gpu_caches(kv, shape, self.library.device))
        buckets = Buckets(config.max_requests, max_tokens(config))
        if self.library.device.type == "cpu":
            return GpuRunner(compute, EagerSteps(compute), parts.state, kv, buckets, HostStream())
        stream = CudaStream(self.library.device)
        self._warm_up(compute, parts.state.rows.steps, stream, buckets)
        return GpuRunner(compute, GraphSteps(compute), parts.state, kv, buckets, stream)

    def _warm_up(
        self, compute: Compute[Bucket, None], steps: torch.Tensor, stream: CudaStream, buckets: Buckets
    ) -> None:
        with torch.inference_mode(), stream.current():
            EagerSteps(compute).run(buckets.find(1, 2, logprobs=True))
            steps.fill_(1)

    def twin_logits(self, token_ids: list[int]) -> torch.Tensor:
        """float32 [tokens, vocab] after each of the tokens."""
        n, config = len(token_ids), self.twin.config
        sizes = 1, config.num_kv_heads, MAX_MODEL_LEN, config.head_dim
        caches = [
            LayerCache(torch.zeros(sizes).transpose(2, 3).contiguous(), torch.zeros(sizes))
            for _ in range(config.num_layers)
        ]
        places = torch.arange(n, dtype=torch.int32)
        batch = Batch(
            token_ids=torch.tensor(token_ids, dtype=torch.int32),
            positions=places,
            cache_slots=places,
            query_starts=torch.tensor([0, n], dtype=torch.int32),
            context_lens=torch.tensor([n], dtype=torch.int32),
            block_tables=torch.zeros(1, 1, dtype=torch.int32),
            logit_ids=places,
        )
        return self.twin.logits(self.twin(batch, caches))


@pytest.fixture(scope="module")
def bench(kernel_library: KernelLibrary, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder: Path = tmp_path_factory.mktemp("model")
    (folder / "config.json").write_text(json.dumps(SHAPE))
    checkpoint = open_checkpoint(str(folder))
    write_weights(checkpoint, folder)
    model = load_model(
        checkpoint,
        GpuOps(kernel_library, 16),
        torch.bfloat16,
        MAX_MODEL_LEN,
        "auto",
        None,
        kernel_library.device,
    )
    twin = load_model(checkpoint, ReferenceOps(), torch.float32, MAX_MODEL_LEN)
    return Bench(kernel_library, checkpoint, model, twin)


def write_weights(checkpoint: Checkpoint, folder: Path) -> None:
    """Random ones, the same for every device."""
    generator = torch.Generator().manual_seed(3)
    shapes = find_model(checkpoint.decoder.architecture).layout(checkpoint.decoder).shapes
    tensors = {
        name: torch.ones(shape)
        if len(shape) == 1
        else torch.randn(shape, generator=generator) / shape[1] ** 0.5
        for name, shape in shapes.items()
    }
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, folder / "model.safetensors")


def prompt_of(request_id: int, num_tokens: int) -> tuple[int, ...]:
    return tuple((request_id * 13 + i * i * 7) % VOCAB for i in range(num_tokens))


def settings_of(max_requests: int, budget: int, num_blocks: int, prefix_cache: bool = True) -> EngineConfig:
    return EngineConfig(
        max_requests=max_requests,
        max_batch_tokens=budget,
        kv_tokens=16 * num_blocks,
        max_model_len=MAX_MODEL_LEN,
        prefix_cache=prefix_cache,
        step_seconds=0,
    )


def submit(engine: Engine, clients: Clients, message: Submit) -> None:
    clients.client_of[message.id] = 0
    engine.submit(message, 0)


def check_greedy(bench: Bench, message: Submit, found: list[int]) -> None:
    """Each token is the likeliest after what came before it, or nearly."""
    logits = bench.twin_logits([*message.prompt, *found])[len(message.prompt) - 1 : -1]
    lost = logits.max(1).values - logits.gather(1, torch.tensor(found).unsqueeze(1)).squeeze(1)
    assert float(lost.max()) < CLOSE


@given(data=st.data())
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_greedy_whatever_goes_on(bench: Bench, data: st.DataObject) -> None:
    """Any chunk size, rows, memory (preemption), arrivals between steps, and mates that leave early."""
    draw = data.draw
    max_requests = draw(st.integers(1, 6), label="rows")
    budget = max_requests + draw(st.integers(0, 40), label="budget")
    config = settings_of(max_requests, budget, draw(st.integers(6, 20)), draw(st.booleans()))
    clients = Clients()
    engine = bench.engine(config, clients)
    lengths = draw(st.lists(st.integers(1, 60), min_size=1, max_size=8), label="prompts")
    messages = [
        Submit(id=i, prompt=prompt_of(i % 3, n), sampling=SamplingParams(max_tokens=6, temperature=0))
        for i, n in enumerate(lengths)
    ]
    leavers = draw(st.sets(st.sampled_from(range(len(messages))), max_size=2), label="leavers")
    for message in messages:
        submit(engine, clients, message)
        for _ in range(draw(st.integers(0, 3), label="steps")):
            engine.step()
    engine.abort(Abort(ids=tuple(leavers), cause="disconnect"))
    run_out(engine)
    check_rest(engine)
    for message in messages:
        if message.id not in leavers:
            assert clients.finishes[message.id] is Finish.LENGTH
            assert len(clients.tokens[message.id]) == 6
            check_greedy(bench, message, clients.tokens[message.id])


def test_a_stop_token_ends_a_row_and_is_told(bench: Bench) -> None:
    clients = Clients()
    engine = bench.engine(settings_of(4, 64, 20), clients)
    params = SamplingParams(max_tokens=20, temperature=0)
    submit(engine, clients, Submit(id=0, prompt=prompt_of(0, 9), sampling=params))
    run_out(engine)
    third = clients.tokens[0][2]
    first = clients.tokens[0].index(third)
    params = SamplingParams(max_tokens=20, temperature=0, stop_token_ids=(third,))
    submit(engine, clients, Submit(id=1, prompt=prompt_of(0, 9), sampling=params))
    run_out(engine)
    check_rest(engine)
    assert clients.tokens[1] == clients.tokens[0][: first + 1]
    assert clients.finishes[1] is Finish.STOP


def test_a_seed_gives_the_same_whoever_is_beside_it(bench: Bench) -> None:
    params = SamplingParams(max_tokens=8, temperature=0.9, top_p=0.9, top_k=20, seed=77)
    alone, among = Clients(), Clients()
    for clients, num_mates in ((alone, 0), (among, 3)):
        engine = bench.engine(settings_of(8, 64, 40), clients)
        for i in range(num_mates):
            mate = SamplingParams(max_tokens=5 + i, temperature=1.0, presence_penalty=1.0, seed=i)
            submit(engine, clients, Submit(id=i, prompt=prompt_of(i, 5 + i), sampling=mate))
        submit(engine, clients, Submit(id=9, prompt=prompt_of(5, 12), sampling=params))
        run_out(engine)
        check_rest(engine)
    assert alone.tokens[9] == among.tokens[9]


def test_log_probabilities_of_answers_and_prompts(bench: Bench) -> None:
    clients = Clients()
    engine = bench.engine(settings_of(4, 16, 20), clients)
    wanted = SamplingParams(max_tokens=4, temperature=0, logprobs=3, prompt_logprobs=2)
    plain = SamplingParams(max_tokens=7, temperature=0)
    prompt = prompt_of(1, 30)
    submit(engine, clients, Submit(id=1, prompt=prompt_of(2, 11), sampling=plain))
    submit(engine, clients, Submit(id=2, prompt=prompt, sampling=wanted))
    run_out(engine)
    check_rest(engine)
    assert 1 not in clients.logprobs and 1 not in clients.prompt_logprobs
    tokens = [*prompt, *clients.tokens[2]]
    truth = bench.twin_logits(tokens).log_softmax(1)
    assert len(clients.prompt_logprobs[2]) == len(prompt) - 1
    for place, entry in enumerate(clients.prompt_logprobs[2]):
        check_entry(entry, tokens[place + 1], truth[place], 2)
    for place, entry in enumerate(clients.logprobs[2]):
        check_entry(entry, clients.tokens[2][place], truth[len(prompt) - 1 + place], 3)
    assert len(clients.logprobs[2]) == 4


def check_entry(entry: TokenLogprobs, token: int, truth: torch.Tensor, num_top: int) -> None:
    """truth float32 [vocab]."""
    assert entry.token_id == token
    assert entry.logprob == pytest.approx(float(truth[token]), abs=CLOSE)
    assert len(entry.top_ids) == num_top
    assert np.allclose(entry.top_logprobs, truth[list(entry.top_ids)], atol=CLOSE)
    assert min(entry.top_logprobs) > float(truth.topk(num_top).values[-1]) - CLOSE
    assert 1 <= entry.rank <= int((truth > truth[token] - CLOSE).sum())


def test_a_token_nobody_allows_ends_that_request_alone(bench: Bench) -> None:
    clients = Clients()
    engine = bench.engine(settings_of(4, 64, 20), clients)
    impossible = SamplingParams(max_tokens=5, banned_token_ids=tuple(range(VOCAB)))
    submit(engine, clients, Submit(id=0, prompt=prompt_of(0, 7), sampling=impossible))
    message = Submit(id=1, prompt=prompt_of(1, 8), sampling=SamplingParams(max_tokens=5, temperature=0))
    submit(engine, clients, message)
    run_out(engine)
    check_rest(engine)
    assert "no token to pick" in clients.failed[0] and 0 not in clients.tokens
    check_greedy(bench, message, clients.tokens[1])
