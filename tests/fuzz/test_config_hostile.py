"""config.json and what lies beside it, from somebody who means no good: each fault is one clear refusal."""

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint import CheckpointError, open_checkpoint
from server.text.load import load_template, load_tokenizer
from tests.fuzz import targets
from tests.fuzz.effort import effort
from tests.fuzz.raw_folder import CONFIG, ENCODER, VALUES, Json, put

HUGE = 10**30
YARN = {"rope_type": "yarn", "factor": 1e308, "original_max_position_embeddings": 10**9}

CONFIGS: dict[str, tuple[Json, str]] = {
    "a vocabulary of all numbers": (CONFIG | {"vocab_size": 10**12}, "vocab_size is 1000000000000"),
    "a vocabulary of 16 GiB": (CONFIG | {"vocab_size": 2**31 - 1}, "a vocabulary of 2147483647"),
    "an endless context": (CONFIG | {"max_position_embeddings": HUGE}, "max_position_embeddings is 1000"),
    "a number beyond all": (CONFIG | {"rope_theta": 10**400}, "rope_theta is 1000"),
    "an endless number": (CONFIG | {"rope_theta": float("inf")}, "rope_theta is inf"),
    "no number": (CONFIG | {"rms_norm_eps": float("nan")}, "rms_norm_eps is nan"),
    "layers of no kind": (CONFIG | {"layer_types": [{"a": 1}, ["b"]]}, "layer_types is"),
    "an architecture of no kind": (CONFIG | {"architectures": [{"a": 1}]}, "architectures is"),
    "a long word": (CONFIG | {"hidden_act": "x" * 10**7}, r"hidden_act is 'xxx.*\.\.\.; accepted: 'silu'"),
    "orders to the terminal": (CONFIG | {"hidden_act": "\x1b[2J\n"}, "hidden_act is"),
    "half a character": (CONFIG | {"hidden_act": "\ud800"}, "hidden_act is"),
    "endless layers": (ENCODER | {"num_hidden_layers": 2**31 - 1}, "num_hidden_layers is 2147483647"),
    "endless labels": (ENCODER | {"num_labels": 2**31 - 1}, "num_labels is 2147483647"),
    "an encoder's vocabulary": (ENCODER | {"vocab_size": 2**31 - 1}, "vocab_size is 2147483647"),
    "endless blocks": (
        ENCODER | {"architectures": ["AlbertForSequenceClassification"], "inner_group_num": 2**31 - 1},
        "inner_group_num is 2147483647",
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
def test_a_configuration_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    config, message = CONFIGS[name]
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(str(put(tmp_path, config)))
    assert str(tmp_path / "config.json") in str(caught.value) and str(caught.value).isprintable()


def test_a_stretched_context_ends_somewhere(tmp_path: Path) -> None:
    assert (
        open_checkpoint(str(put(tmp_path, CONFIG | {"rope_scaling": YARN}))).decoder.max_context == 2**31 - 1
    )


@pytest.mark.parametrize("token_id", [100, 2**31, HUGE])
def test_a_token_that_an_encoder_does_not_have_is_none(token_id: int, tmp_path: Path) -> None:
    checkpoint = open_checkpoint(str(put(tmp_path, ENCODER | {"eos_token_id": token_id})))
    source = {"default": "{{ eos_token is defined }}"}
    checkpoint = replace(checkpoint, chat_templates=source)
    assert load_template(checkpoint, load_tokenizer(checkpoint)).render(targets.CHAT) == "False"


def replace_file(name: str, make: Callable[[Path], object]) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        (folder / name).unlink(missing_ok=True)
        make(folder / name)

    return change


@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json"])
@pytest.mark.parametrize(
    "make",
    [
        lambda path: path.mkdir(),
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.write_bytes(b"\xff\xfe{"),
        lambda path: path.write_bytes(b'{"a":' * 100_000),
        lambda path: path.write_bytes(b'{"a": ' + b"9" * 5000 + b"}"),
        lambda path: os.truncate(os.open(path, os.O_CREAT | os.O_WRONLY), 1 << 30),
    ],
    ids=["a folder", "a pipe", "a device", "bytes", "deep", "a long number", "a large file"],
)
def test_what_is_no_file_of_json_is_refused(
    name: str, make: Callable[[Path], object], tmp_path: Path
) -> None:
    replace_file(name, make)(put(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(str(tmp_path))
    assert str(tmp_path / name) in str(caught.value)


def test_a_template_file_that_is_no_text_is_refused(tmp_path: Path) -> None:
    (put(tmp_path) / "chat_template.jinja").write_bytes(b"\xff\xfe")
    with pytest.raises(CheckpointError, match=r"chat_template.jinja: not UTF-8"):
        open_checkpoint(str(tmp_path))


FAMILIES = ["LlamaForCausalLM", "Qwen3ForCausalLM", "MistralForCausalLM"]
ENCODERS = [
    "BertForMaskedLM",
    "RobertaModel",
    "AlbertModel",
    "DebertaV2ForTokenClassification",
    "ModernBertModel",
]
KEYS = [
    *CONFIG,
    *(
        "rope_scaling",
        "rope_parameters",
        "sliding_window",
        "head_dim",
        "layer_types",
        "num_labels",
        "id2label",
    ),
    *(
        "local_attention",
        "global_attn_every_n_layers",
        "pad_token_id",
        "position_buckets",
        "max_relative_positions",
    ),
    *(
        "pos_att_type",
        "num_hidden_groups",
        "inner_group_num",
        "matryoshka_dimensions",
        "mask_token_id",
        "type_vocab_size",
    ),
]


@effort(1)
@given(
    architecture=st.sampled_from(FAMILIES + ENCODERS),
    changes=st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3),
)
def test_any_configuration(
    architecture: str, changes: dict[str, object], tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = CONFIG | {"architectures": [architecture]} | changes
    targets.config(json.dumps(content).encode(), tmp_path_factory.getbasetemp())
