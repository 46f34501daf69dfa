"""A request whose logits are no numbers, on the GPU's runner: it fails, and nobody beside or after it."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from engine.checkpoint import open_checkpoint
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.ops import GpuOps
from engine.kernels.reference import ReferenceOps
from engine.models.load import load_model
from engine.request import Finish, SamplingParams, Submit
from tests.engine.harness import Clients, check_rest, run_out
from tests.kernels.gpu.test_gpu_runner import (
    MAX_MODEL_LEN,
    SHAPE,
    Bench,
    prompt_of,
    settings_of,
    submit,
    write_weights,
)

POISON = 100  # its embedding is not a number; prompt_of is asked for prompts without it


@pytest.fixture(scope="module")
def poisoned(kernel_library: KernelLibrary, tmp_path_factory: pytest.TempPathFactory) -> Bench:
    folder: Path = tmp_path_factory.mktemp("poisoned")
    (folder / "config.json").write_text(json.dumps(SHAPE | {"tie_word_embeddings": False}))
    checkpoint = open_checkpoint(str(folder))
    write_weights(checkpoint, folder)
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][POISON] = torch.nan
    tensors["lm_head.weight"][POISON] = 0  # nobody is to generate it
    save_file(tensors, folder / "model.safetensors")
    ops, device = GpuOps(kernel_library, 16), kernel_library.device
    model = load_model(checkpoint, ops, torch.bfloat16, MAX_MODEL_LEN, "auto", None, device)
    twin = load_model(checkpoint, ReferenceOps(), torch.float32, MAX_MODEL_LEN)
    return Bench(kernel_library, checkpoint, model, twin)


def healthy(request_id: int) -> Submit:
    prompt = tuple(min(token, POISON - 1) for token in prompt_of(request_id, 12 + 9 * request_id))
    return Submit(id=request_id, prompt=prompt, sampling=SamplingParams(max_tokens=4, temperature=0))


def test_logits_that_are_no_numbers_end_that_request_alone(poisoned: Bench) -> None:
    """Few blocks, so that the others get those that it leaves, not-a-numbers and all."""
    config = settings_of(4, 64, 7)
    alone, among = Clients(), Clients()
    engine = poisoned.engine(config, alone)
    for request_id in range(3):
        submit(engine, alone, healthy(request_id))
    run_out(engine)
    engine = poisoned.engine(config, among)
    for request_id in range(3):
        mate = healthy(request_id)
        prompt = (POISON - 1 - request_id, *mate.prompt[:9], POISON, *mate.prompt[9:])
        submit(engine, among, Submit(id=10 + request_id, prompt=prompt, sampling=mate.sampling))
        submit(engine, among, mate)
        engine.step()
    run_out(engine)
    check_rest(engine)
    assert set(among.failed) == {10, 11, 12}
    assert all("not finite" in reason for reason in among.failed.values())
    for request_id in range(3):
        assert among.finishes[request_id] is Finish.LENGTH
        assert among.tokens[request_id] == alone.tokens[request_id]
