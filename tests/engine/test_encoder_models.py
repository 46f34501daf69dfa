"""Every family and head against transformers: the same random weights in float32, an input at a time there, packed here."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.checkpoint import Checkpoint, open_checkpoint
from engine.checkpoint.encoder import Pooling
from engine.kernels.encoder_reference import ReferenceEncoderOps
from engine.layers.encoder_pooling import pool
from engine.models.encoder import load_encoder
from tests.engine.encoder_models import (
    CONFIGS,
    DEBERTA,
    HEADS,
    MASK_ID,
    Inputs,
    answer,
    load,
    make_inputs,
    make_theirs,
    relative_error,
    save,
)

MAX_ERROR = 1e-5  # relative to the largest number of an answer
MAX_MATE_ERROR = 5e-6  # likewise: torch sums in another order for another number of rows, and no more


@torch.inference_mode()
def _theirs(model: Any, task: str, inputs: Inputs) -> list[torch.Tensor]:
    answers = []
    for tokens, types in zip(inputs.tokens, inputs.types, strict=True):
        segments = {"token_type_ids": torch.tensor([types])} if any(types) else {}
        found = model(torch.tensor([tokens]), **segments)
        match task:
            case "embed":
                answers.append(found.last_hidden_state[0].mean(0))
            case "fill_mask":
                answers.append(found.logits[0][torch.tensor(tokens) == MASK_ID])
            case _:
                answers.append(found.logits[0])
    return answers


def _saved(name: str, task: str, folder: Path) -> tuple[Any, Checkpoint]:
    theirs = make_theirs(name, task)
    save(theirs, folder)
    return theirs, open_checkpoint(str(folder))


@pytest.mark.parametrize("task", HEADS)
@pytest.mark.parametrize("name", CONFIGS)
def test_answers_are_those_of_transformers(name: str, task: str, tmp_path: Path) -> None:
    theirs, checkpoint = _saved(name, task, tmp_path)
    model = load(tmp_path)
    assert model.task == checkpoint.task == task
    inputs = make_inputs(num_types=model.config.num_types)
    for ours, wanted in zip(answer(model, inputs), _theirs(theirs, task, inputs), strict=True):
        assert ours.dtype == torch.float32
        assert relative_error(ours, wanted) <= MAX_ERROR


def test_buckets_of_far_distances(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sizes of the published models, where rounding of a logarithm decides the bucket."""
    options = DEBERTA | {"position_buckets": 256, "max_position_embeddings": 512, "num_hidden_layers": 1}
    monkeypatch.setitem(CONFIGS, "deberta-long", ("DebertaV2", options))
    theirs, _ = _saved("deberta-long", "embed", tmp_path)
    inputs = make_inputs((512,))
    ours = answer(load(tmp_path), inputs)[0]
    assert relative_error(ours, _theirs(theirs, "embed", inputs)[0]) <= MAX_ERROR


def test_the_longest_input_of_a_model_that_begins_beyond_padding(tmp_path: Path) -> None:
    theirs, _ = _saved("xlm-roberta", "embed", tmp_path)
    model = load(tmp_path)
    assert model.max_len == 64 - 3 - 1  # positions, less those up to padding's
    inputs = make_inputs((60, 3))
    assert relative_error(answer(model, inputs)[0], _theirs(theirs, "embed", inputs)[0]) <= MAX_ERROR


@pytest.mark.parametrize("name", ["bert", "albert-groups", "deberta-v3", "modernbert"])
@pytest.mark.parametrize("task", HEADS)
def test_batch_mates_change_nothing(name: str, task: str, tmp_path: Path) -> None:
    _, checkpoint = _saved(name, task, tmp_path)
    model = load(tmp_path)
    inputs = make_inputs(num_types=checkpoint.encoder.num_types)
    together = answer(model, inputs)
    for i, whole in enumerate(together):
        alone = answer(model, inputs.alone(i))[0]
        assert relative_error(alone, whole) <= MAX_MATE_ERROR


@pytest.mark.parametrize("name", ["bert", "albert", "distilbert", "deberta-v3", "modernbert"])
@pytest.mark.parametrize("task", HEADS)
def test_bfloat16_is_near(name: str, task: str, tmp_path: Path) -> None:
    _, checkpoint = _saved(name, task, tmp_path)
    inputs = make_inputs(num_types=checkpoint.encoder.num_types)
    model = load(tmp_path, torch.bfloat16)
    assert model.dtype == torch.bfloat16
    for ours, exact in zip(answer(model, inputs), answer(load(tmp_path), inputs), strict=True):
        assert ours.dtype == torch.float32
        assert relative_error(ours, exact) <= 0.1


def test_no_mask_in_any_input(tmp_path: Path) -> None:
    _saved("bert", "fill_mask", tmp_path)
    answers = answer(load(tmp_path), Inputs([[7, 8], [9]], [[0, 0], [0]]))
    assert [tuple(found.shape) for found in answers] == [(0, 83), (0, 83)]


@pytest.mark.parametrize("name", CONFIGS)
def test_random_weights_answer_in_the_right_shapes(name: str, tmp_path: Path) -> None:
    _, checkpoint = _saved(name, "token_classify", tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model = load_encoder(checkpoint, ReferenceEncoderOps(), torch.float32, "dummy")
    answers = answer(model, make_inputs())
    assert [tuple(found.shape) for found in answers] == [(9, 3), (1, 3), (23, 3), (2, 3), (30, 3)]
    assert all(bool(found.isfinite().all()) for found in answers)


def test_bytes_are_counted_once_for_shared_layers(tmp_path: Path) -> None:
    theirs, _ = _saved("albert-groups", "token_classify", tmp_path)
    assert load(tmp_path).num_bytes == sum(p.nbytes for p in theirs.parameters())


POOLINGS: dict[Pooling, Callable[[torch.Tensor], torch.Tensor]] = {
    "cls": lambda x: x[0],
    "lasttoken": lambda x: x[-1],
    "max": lambda x: x.amax(0),
    "mean": lambda x: x.mean(0),
    "mean_sqrt_len_tokens": lambda x: x.sum(0) / len(x) ** 0.5,
    "weightedmean": lambda x: (
        torch.stack([(i + 1) * v for i, v in enumerate(x)]).sum(0) / (sum(range(len(x) + 1)))
    ),
}


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 12), min_size=1, max_size=6),
    st.lists(st.sampled_from(list(POOLINGS)), min_size=1),
)
def test_pooling_is_by_input(lengths: list[int], kinds: list[Pooling]) -> None:
    batch = make_inputs(tuple(lengths)).batch()
    x = torch.randn(batch.num_tokens, 16, generator=torch.Generator().manual_seed(5))
    pooled = pool(x, batch, tuple(kinds), ReferenceEncoderOps())
    for row, tokens in zip(pooled, torch.split(x, lengths), strict=True):
        expected = torch.cat([POOLINGS[kind](tokens) for kind in kinds])
        assert relative_error(row, expected) <= MAX_ERROR
