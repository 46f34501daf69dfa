"""tokenizer.json from somebody who means no good: refused at the start, or the fault of the text that it fails on."""

import base64
import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint import open_checkpoint
from server.text.errors import ModelTextError, TextError, TokenizerFault
from server.text.load import load_tokenizer
from server.text.tokenizer import Tokenizer
from tests.fuzz import targets
from tests.fuzz.effort import effort
from tests.fuzz.raw_folder import BPE, BYTE_LEVEL, TOKENIZER, VALUES, Json, put


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
