"""The GPU's runner of an encoder: sentences' vectors of a small BERT, whatever is packed together, in flight, or poisoned."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.batch import EncoderBatch
from engine.checkpoint import Checkpoint, open_checkpoint
from engine.config import EngineConfig
from engine.encode_step import EncodeInput, EncodePlan
from engine.kernels.gpu.module import KernelLibrary
from engine.loop.encoder_loop import EncoderEngine
from engine.models.encoder import EncoderModel
from engine.request import Encode
from engine.runner.encoder import pack_inputs
from engine.runner.gpu.encoder import GpuEncoderRunner
from tests.engine.encoder_bench import EncoderClients
from tests.engine.encoder_files import KIND, MODULES
from tests.engine.encoder_models import VOCAB
from tests.engine.harness import check_rest, run_out
from tests.kernels.gpu.encoder_models import MAX_LEN, Bench, save_random

TOLERANCE = 5e-3  # of vectors of length 1
POISON = 7  # a token whose embedding is not a number
MAX_TOKENS = 200
HIDDEN = 96


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """Mean pooling and normalisation, as all-MiniLM's files have them, and a poisoned token."""
    torch.manual_seed(1)
    folder: Path = tmp_path_factory.mktemp("sentences")
    save_random("bert", "embed", folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["embeddings.word_embeddings.weight"][POISON] = torch.nan
    save_file(tensors, folder / "model.safetensors")
    files = {
        "modules.json": [entry for entry in MODULES if entry["type"] != KIND + "Dense"],
        "1_Pooling/config.json": {"word_embedding_dimension": HIDDEN, "pooling_mode_mean_tokens": True},
    }
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
    return open_checkpoint(str(folder))


@pytest.fixture(scope="module")
def bench(kernel_library: KernelLibrary, checkpoint: Checkpoint) -> Bench:
    assert checkpoint.encoder.sentence is not None and checkpoint.encoder.sentence.normalize
    return Bench(kernel_library, checkpoint, torch.float16)


@pytest.fixture(scope="module")
def runner(bench: Bench) -> GpuEncoderRunner:
    return bench.runner(max_inputs=5, max_tokens=MAX_TOKENS)


@pytest.fixture(scope="module")
def twin(bench: Bench) -> EncoderModel:
    return bench.twin()


@pytest.fixture
def rnd() -> random.Random:
    seed = random.SystemRandom().randrange(1 << 32)
    print(f"seed {seed}")  # shown where a test fails
    return random.Random(seed)


def make_inputs(rnd: random.Random, max_inputs: int, max_tokens: int) -> tuple[EncodeInput, ...]:
    """At least one."""
    inputs: list[EncodeInput] = []
    for _ in range(rnd.randint(1, max_inputs)):
        length = rnd.randint(1, 40)
        if inputs and sum(len(entry.token_ids) for entry in inputs) + length > max_tokens:
            break
        ids = [rnd.randrange(POISON + 1, VOCAB) for _ in range(length)]
        types = np.array([rnd.randrange(2) for _ in ids], np.int32) if rnd.random() < 0.5 else None
        inputs.append(EncodeInput(np.array(ids, np.int32), types))
    return tuple(inputs)


@torch.inference_mode()
def expected(twin: EncoderModel, batch: EncoderBatch) -> list[torch.Tensor]:
    return twin(batch)


def test_steps_in_flight(
    bench: Bench, runner: GpuEncoderRunner, twin: EncoderModel, rnd: random.Random
) -> None:
    """Each step is launched before the one before it is read, in any order of buckets."""
    num_steps = 6 if bench.library.device.type == "cpu" else 60
    plans = [EncodePlan(step, make_inputs(rnd, 5, MAX_TOKENS)) for step in range(num_steps)]
    pending = [runner.launch(plans[0])]
    for plan in [*plans[1:], None]:
        if plan is not None:
            pending.append(runner.launch(plan))
        result = pending[-2 if plan is not None else -1].result()
        inputs = plans[result.step].inputs
        assert result.failed == {} and result.seconds >= 0
        assert result.num_tokens == sum(len(entry.token_ids) for entry in inputs)
        for got, want in zip(result.outputs, expected(twin, pack_inputs(inputs)), strict=True):
            assert got.dtype == np.float32
            np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=TOLERANCE)
            assert abs(float(np.linalg.norm(got)) - 1) < 1e-5


def test_what_it_says_of_itself(bench: Bench, runner: GpuEncoderRunner) -> None:
    assert (runner.task, runner.dtype_name, runner.max_model_len) == ("embed", "float16", MAX_LEN)
    assert runner.device_name == bench.library.device.type


def test_an_input_that_is_not_a_number_fails_alone(runner: GpuEncoderRunner, twin: EncoderModel) -> None:
    inputs = tuple(
        EncodeInput(np.array(ids, np.int32), None) for ids in ([9, 10, 11], [20, POISON, 21], [12], [POISON])
    )
    result = runner.launch(EncodePlan(1, inputs)).result()
    assert result.failed.keys() == {1, 3} and "not finite" in result.failed[1]
    clean = expected(twin, pack_inputs((inputs[0], inputs[2])))
    for got, want in zip((result.outputs[0], result.outputs[2]), clean, strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=TOLERANCE)


def test_a_whole_engine(
    bench: Bench, runner: GpuEncoderRunner, twin: EncoderModel, rnd: random.Random
) -> None:
    """Arrivals between steps; whoever asked is answered, once."""
    clients = EncoderClients()
    config = EngineConfig(max_requests=5, max_batch_tokens=100)
    engine = EncoderEngine(config, runner, MAX_LEN, clients.publish, clients)
    inputs: dict[int, EncodeInput] = {}
    for request_id in range(12 if bench.library.device.type == "cpu" else 200):
        (inputs[request_id],) = make_inputs(rnd, 1, MAX_TOKENS)
        ids, types = inputs[request_id].token_ids.tolist(), inputs[request_id].type_ids
        message = Encode(
            id=request_id, token_ids=tuple(ids), type_ids=() if types is None else tuple(types.tolist())
        )
        clients.client_of[request_id] = 0
        engine.submit(message, 0)
        if rnd.random() < 0.5:
            engine.step()
    run_out(engine)
    check_rest(engine)
    assert clients.answers.keys() == inputs.keys() and not clients.failed
    for request_id, entry in inputs.items():
        (want,) = expected(twin, pack_inputs((entry,)))
        np.testing.assert_allclose(clients.answers[request_id], want.numpy(), rtol=0, atol=TOLERANCE)
