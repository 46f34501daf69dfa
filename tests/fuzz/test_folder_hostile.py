"""config.json, tokenizer.json and what lies beside them, from somebody who means no good: each fault is one clear refusal."""

import base64
import json
import os
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint import CheckpointError, open_checkpoint
from server.text.errors import ModelTextError, TextError, TokenizerFault
from server.text.load import load_template, load_tokenizer
from server.text.tokenizer import Tokenizer
from tests.fuzz import targets
from tests.fuzz.effort import effort
from tests.fuzz.raw_folder import BPE, BYTE_LEVEL, CONFIG, ENCODER, TOKENIZER, Json

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


def put(folder: Path, config: Json = CONFIG, tokenizer: Json = TOKENIZER) -> Path:
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    return folder


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


def changed(path: str, value: object) -> Json:
    """The tokenizer with something else at a place."""
    tokenizer = deepcopy(TOKENIZER)
    *parts, last = path.split(".")
    inner: Any = tokenizer
    for part in parts:
        inner = inner[part]
    inner[last] = value
    return tokenizer


def around(token_id: int) -> Json:
    """A post-processor that puts a token before each text."""
    token = {"id": "[X]", "ids": [token_id], "tokens": ["[X]"]}
    single = [{"SpecialToken": {"id": "[X]", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    return {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {"[X]": token}}


CHARSMAP = base64.b64encode(b"\xff\xff\xff\xff" + bytes(8)).decode()
TOKENIZERS: dict[str, tuple[Json, str]] = {
    "no object": (changed("model", 3), "ModelUntagged"),
    "a negative id": (changed("model.vocab", {"a": -1}), "-1"),
    "a merge of nothing": (changed("model.merges", ["x y"]), "Token `x` out of vocabulary"),
    "a pattern that is none": (
        changed(
            "pre_tokenizer",
            {"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated", "invert": False},
        ),
        "Oniguruma error",
    ),
    "a table that is cut short": (
        changed("normalizer", {"type": "Precompiled", "precompiled_charsmap": "AAAA"}),
        "precompiled_charsmap is cut short",
    ),
    "a table that asks for 8 GiB": (
        changed("normalizer", {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}),
        "precompiled_charsmap is cut short",
    ),
    "a token of no name": (
        changed("post_processor", around(1) | {"special_tokens": {}}),
        "failed on a text",
    ),
    "a token beyond the model": (
        changed("post_processor", around(2**32 - 1)),
        "token 4294967295 is unknown to the model",
    ),
    "no decoder": (changed("decoder", None), "it has no decoder"),
    "deep brackets": (changed("normalizer", json.loads('{"a":' * 500 + "1" + "}" * 500)), "recursion limit"),
}


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    content, message = TOKENIZERS[name]
    checkpoint = open_checkpoint(str(put(tmp_path, tokenizer=content)))
    with pytest.raises(ModelTextError, match=message) as caught:
        load_tokenizer(checkpoint)
    assert str(caught.value).isprintable()


def load(folder: Path) -> Tokenizer:
    return load_tokenizer(open_checkpoint(str(folder)))


@pytest.mark.parametrize("token_id", [100, 2**32 - 1])
def test_a_token_that_the_model_has_no_row_for_is_the_texts_fault(token_id: int, tmp_path: Path) -> None:
    """The others are read: models with a token too many are about."""
    tokenizer = load(
        put(tmp_path, tokenizer=changed("model", BPE | {"vocab": {"a": 0, "b": token_id}, "merges": []}))
    )
    assert tokenizer.encode("aa") == [0, 0]
    with pytest.raises(TextError, match=f"token {token_id} is unknown to the model, which has 100"):
        tokenizer.encode("ab")
    with pytest.raises(TextError, match=f"tokens: {token_id} is unknown; accepted: 0 to 99"):
        tokenizer.check_ids([0, token_id], "tokens")


def test_a_text_that_a_vocabulary_has_no_word_for(tmp_path: Path) -> None:
    """Where it has none for unknown ones either the library gives up."""
    model = {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"a": 0}}
    tokenizer = load(put(tmp_path, tokenizer=changed("model", model)))
    assert tokenizer.encode("a") == [0]
    with pytest.raises(TokenizerFault):
        tokenizer.encode("b")


def test_a_pattern_that_never_ends_is_given_up(tmp_path: Path) -> None:
    split = {"type": "Split", "pattern": {"Regex": "(a|a|aa)+$"}, "behavior": "Isolated", "invert": False}
    steps = {"type": "Sequence", "pretokenizers": [split, BYTE_LEVEL]}
    tokenizer = load(put(tmp_path, tokenizer=changed("pre_tokenizer", steps)))
    with pytest.raises(TokenizerFault):
        tokenizer.encode("a" * 1000 + "b")
    assert tokenizer.encode("b") == [1]


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("{% if", "line 1: unexpected 'end of template'"),
        ("{% for a in [1] %}" * 30 + "{% endfor %}" * 30, "too many statically nested blocks"),
        ("{{ " + "(" * 10_000 + "1" + ")" * 10_000 + " }}", "RecursionError"),
        ("{% if 1 %}" * 500 + "{% endif %}" * 500, "RecursionError"),
        ("{{ 1 }}" * 100_000, "has 700000 characters"),
        ("{{ " + "9" * 5000 + " }}", "ValueError"),
        ("{{ 'a'|no_such_filter }}", "No filter named 'no_such_filter'"),
    ],
)
def test_a_template_that_cannot_be_compiled_is_refused(source: str, message: str, tmp_path: Path) -> None:
    (put(tmp_path) / "chat_template.jinja").write_text(source)
    checkpoint = open_checkpoint(str(tmp_path))
    with pytest.raises(ModelTextError, match=message):
        load_template(checkpoint, load_tokenizer(checkpoint))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-1, 2**64)
    | st.sampled_from([HUGE, 10**400, 1e308, 0.5, "silu", "yarn", "\x1b[2J", "x" * 300])
    | st.floats()
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
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


@effort(1)
@given(
    part=st.sampled_from(
        ["normalizer", "pre_tokenizer", "post_processor", "decoder", "model", "added_tokens", "truncation"]
    ),
    key=st.sampled_from(
        [
            "type",
            "vocab",
            "merges",
            "unk_token",
            "pattern",
            "prepend_scheme",
            "dropout",
            "",
            "add_prefix_space",
        ]
    ),
    value=VALUES,
)
def test_any_tokenizer(part: str, key: str, value: object, tmp_path_factory: pytest.TempPathFactory) -> None:
    content = deepcopy(TOKENIZER)
    if key and isinstance(content.get(part), dict):
        content[part][key] = value
    else:
        content[part] = value
    targets.tokenizer(json.dumps(content).encode(), tmp_path_factory.getbasetemp())
