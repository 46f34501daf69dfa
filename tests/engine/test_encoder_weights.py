"""An encoder's tensors under the names that files have for them, and real models."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import transformers
from safetensors.torch import load_file, save_file

from engine.checkpoint import CheckpointError
from tests.engine.encoder_files import MODULES
from tests.engine.encoder_models import (
    Inputs,
    answer,
    load,
    make_inputs,
    make_theirs,
    relative_error,
    save,
)
from tests.real_models import chemistry_albert, minilm

NORM = "bert.embeddings.LayerNorm"
Tensors = dict[str, torch.Tensor]


def _saved(folder: Path, name: str, task: str) -> tuple[Any, Tensors]:
    """A folder, and its tensors, to be changed and written anew."""
    theirs = make_theirs(name, task)
    save(theirs, folder)
    return theirs, load_file(folder / "model.safetensors")


def _same_after(folder: Path, tensors: Tensors) -> bool:
    """Whether the folder's model still answers as before, with these tensors."""
    inputs = make_inputs(num_types=2)
    before = answer(load(folder), inputs)
    save_file(tensors, folder / "model.safetensors")
    return all(torch.equal(a, b) for a, b in zip(answer(load(folder), inputs), before, strict=True))


def test_names_without_the_prefix(tmp_path: Path) -> None:
    _, tensors = _saved(tmp_path, "bert", "classify")
    assert any(name.startswith("bert.") for name in tensors)
    assert _same_after(tmp_path, {name.removeprefix("bert."): t for name, t in tensors.items()})


def test_a_base_model_with_the_prefix(tmp_path: Path) -> None:
    _, tensors = _saved(tmp_path, "modernbert", "embed")
    assert not any(name.startswith("model.") for name in tensors)
    assert _same_after(tmp_path, {f"model.{name}": t for name, t in tensors.items()})


def test_norms_with_gamma_and_beta(tmp_path: Path) -> None:
    _, tensors = _saved(tmp_path, "bert", "token_classify")
    renamed = {
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta"): t
        for name, t in tensors.items()
    }
    assert set(renamed) != set(tensors)
    assert _same_after(tmp_path, renamed)


@pytest.mark.parametrize(
    ("name", "bias", "other"),
    [
        ("bert", "cls.predictions.bias", "cls.predictions.decoder.bias"),
        ("roberta", "lm_head.bias", "lm_head.decoder.bias"),
        ("albert", "predictions.bias", "predictions.decoder.bias"),
    ],
)
def test_a_bias_under_either_name_or_both(tmp_path: Path, name: str, bias: str, other: str) -> None:
    _, tensors = _saved(tmp_path, name, "fill_mask")
    value = tensors.pop(bias, None)
    value = tensors.pop(other) if value is None else value
    assert _same_after(tmp_path, tensors | {bias: value})
    assert _same_after(tmp_path, tensors | {other: value})
    assert _same_after(tmp_path, tensors | {bias: value, other: value.clone()})


def test_what_serves_other_tasks_is_not_read(tmp_path: Path) -> None:
    _, tensors = _saved(tmp_path, "bert", "token_classify")
    others = {
        "bert.embeddings.position_ids": torch.arange(64).unsqueeze(0),
        "bert.pooler.dense.weight": torch.zeros(48, 48),
        "cls.predictions.transform.dense.bias": torch.zeros(48),
        "cls.predictions.decoder.weight": torch.zeros(83, 48),
        "cls.seq_relationship.weight": torch.zeros(2, 48),
    }
    assert _same_after(tmp_path, tensors | others)


def test_faults_are_named(tmp_path: Path) -> None:
    _, tensors = _saved(tmp_path, "bert", "classify")
    bad: list[tuple[Tensors, str]] = [
        (
            {k: v for k, v in tensors.items() if k != f"{NORM}.bias"},
            r"missing: tensor embeddings.LayerNorm.bias",
        ),
        (
            tensors | {"bert.encoder.layer.3.x": torch.zeros(1)},
            r"left over.*bert\.encoder\.layer\.3\.x in .*\(enc",
        ),
        (
            tensors | {"classifier.bias": torch.zeros(4)},
            r"classifier.bias in .* has the shape \[4\]; .* \[3\]",
        ),
        (tensors | {"embeddings.LayerNorm.gamma": torch.zeros(48)}, "are the same tensor of the model"),
        (tensors | {"classifier.bias": torch.zeros(3).int()}, "classifier.bias in .* is I32"),
    ]
    for changed, message in bad:
        save_file(changed, tmp_path / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            load(tmp_path)


def test_layers_behind_the_pooling(tmp_path: Path) -> None:
    theirs, _ = _saved(tmp_path, "bert", "embed")
    dense = {"in_features": 48, "out_features": 16, "bias": True}
    files: dict[str, object] = {
        "modules.json": MODULES,
        "1_Pooling/config.json": {"pooling_mode_cls_token": True},
        "2_Dense/config.json": dense,  # and the default activation, Tanh
        "config_sentence_transformers.json": {"truncate_dim": 10},
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(content))
    layer = torch.nn.Linear(48, 16)
    weights = {"linear.weight": layer.weight.detach(), "linear.bias": layer.bias.detach()}
    save_file(weights, tmp_path / "2_Dense/model.safetensors")
    inputs = make_inputs(num_types=2)
    for i, ours in enumerate(answer(load(tmp_path), inputs)):
        with torch.inference_mode():
            found = theirs(torch.tensor([inputs.tokens[i]]), token_type_ids=torch.tensor([inputs.types[i]]))
            wanted = F.normalize(layer(found.last_hidden_state[0, 0]).tanh(), dim=0)[:10]
        assert relative_error(ours, wanted) <= 1e-5
    (tmp_path / "2_Dense/model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="2_Dense has no .safetensors file"):
        load(tmp_path)


TEXTS = (
    "A bird sings.",
    "The quick brown fox jumps over the lazy dog, and nobody minds.",
    "Yes",
    "Packed inputs lie back to back; nothing is computed for a token that does not exist. " * 4,
)


def test_sentences_of_a_real_model() -> None:
    """all-MiniLM-L6-v2: cosine similarity to transformers' mean of tokens, normalised, above 1 - 1e-6."""
    folder = minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = transformers.AutoModel.from_pretrained(folder).eval()
    tokens = [tokenizer(text)["input_ids"] for text in TEXTS]
    model = load(folder)
    answers = answer(model, Inputs(tokens, [[0] * len(ids) for ids in tokens]))
    assert (model.task, model.max_len, model.config.dim) == ("embed", 256, 384)
    for ids, ours in zip(tokens, answers, strict=True):
        with torch.inference_mode():
            wanted = F.normalize(theirs(torch.tensor([ids])).last_hidden_state[0].mean(0), dim=0)
        assert relative_error(ours, wanted) <= 1e-5
        assert float(ours @ wanted) > 1 - 1e-6


def test_masks_of_a_real_model(tmp_path: Path) -> None:
    """An ALBERT of chemistry: the five likeliest tokens at each mask, and their logits."""
    source = chemistry_albert()
    for name in ("config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(source / name, tmp_path)
    tensors = torch.load(source / "pytorch_model.bin", map_location="cpu", weights_only=True)
    save_file({name: t.clone() for name, t in tensors.items()}, tmp_path / "model.safetensors")
    theirs = transformers.AutoModelForMaskedLM.from_pretrained(tmp_path).eval()
    vocabulary = (tmp_path / "vocab.txt").read_text("utf-8").split("\n")
    words = ["[CLS]", "C", "C", "(", "[MASK]", "O", ")", "O", ".", "[MASK]", "O", "[SEP]"]
    ids = [vocabulary.index(word) for word in words]
    ours = answer(load(tmp_path), Inputs([ids, ids[:3]], [[0] * len(ids), [0] * 3]))
    with torch.inference_mode():
        wanted = theirs(torch.tensor([ids])).logits[0, [4, 9]]
    assert ours[1].shape == (0, 591)
    assert relative_error(ours[0], wanted) <= 1e-5
    assert torch.equal(ours[0].topk(5).indices, wanted.topk(5).indices)
    assert vocabulary[int(ours[0][0].argmax())] == "="
