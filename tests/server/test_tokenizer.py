"""The tokenizer of the bundled model and of folders, and what is refused."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, pre_tokenizers

from engine.checkpoint import Checkpoint, GgufTokenizer, GgufVocabulary, TokenizerFile, open_checkpoint
from server.text.encoder import Encoder
from server.text.errors import ModelTextError, TextError
from server.text.gguf import build_gguf
from server.text.load import load_tokenizer
from server.text.tokenizer import Tokenizer
from server.text.truncation import truncate

REFERENCES = json.loads((Path(__file__).parents[1] / "data" / "smollm2_refs.json").read_text("utf-8"))[
    "items"
]


@pytest.fixture(scope="module")
def checkpoint() -> Checkpoint:
    return open_checkpoint("")


@pytest.fixture(scope="module")
def vocabulary(checkpoint: Checkpoint) -> GgufVocabulary:
    assert isinstance(checkpoint.tokenizer, GgufTokenizer)
    return checkpoint.tokenizer.vocabulary()


@pytest.fixture(scope="module")
def backend(checkpoint: Checkpoint, vocabulary: GgufVocabulary) -> Backend:
    return build_gguf(vocabulary, checkpoint.special)


@pytest.fixture(scope="module")
def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    return load_tokenizer(checkpoint)


@pytest.mark.parametrize("item", REFERENCES, ids=lambda item: str(item["prompt_text"])[-30:])
def test_encodes_and_decodes_as_the_references(tokenizer: Tokenizer, item: dict[str, Any]) -> None:
    ids = item["output_ids"]
    assert tokenizer.encode(item["prompt_text"], add_special_tokens=False) == item["prompt_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=False) == item["output_text"]
    assert tokenizer.decode(ids) == item["output_text_skip_special"]


@pytest.fixture(scope="module")
def known_bytes(tokenizer: Tokenizer) -> frozenset[int]:
    """This vocabulary has no token for some bytes that only rare or no characters have."""
    known = frozenset(b for i in range(tokenizer.vocab_size) for b in tokenizer.token_bytes(i))
    assert len(known) > 230
    return known


@settings(max_examples=200, deadline=None)
@given(text=st.text(max_size=60))
def test_the_bytes_of_a_texts_tokens_are_the_text(
    tokenizer: Tokenizer, known_bytes: frozenset[int], text: str
) -> None:
    data = bytes(byte for byte in text.encode() if byte in known_bytes)
    ids = tokenizer.encode(text)
    assert b"".join(tokenizer.token_bytes(i) for i in ids) == data
    assert tokenizer.decode(ids, skip_special_tokens=False) == data.decode(errors="replace")


@settings(max_examples=300, deadline=None)
@given(ids=st.lists(st.integers(0, 49_151), max_size=20), skip=st.booleans())
def test_decodes_any_ids_as_the_library_does(
    tokenizer: Tokenizer, backend: Backend, ids: list[int], skip: bool
) -> None:
    assert tokenizer.decode(ids, skip) == backend.decode(ids, skip_special_tokens=skip)


def test_digits_are_split_before_anything_is_merged(tokenizer: Tokenizer) -> None:
    """A space before a digit stands alone, which plain byte-level splitting gets wrong."""
    texts = [tokenizer.token_text(i) for i in tokenizer.encode("\r\n3 rows\n 10 in 25")]
    assert texts == ["\r\n", "3", " rows", "\n ", "1", "0", " in", " ", "2", "5"]


def test_special_tokens_in_a_text_are_read_as_such(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("<|im_start|>user<|im_end|>")[0] == 1
    assert tokenizer.encode("<|im_start|>user<|im_end|>")[-1] == 2
    assert tokenizer.decode([1, 2]) == ""
    assert tokenizer.decode([1, 2], skip_special_tokens=False) == "<|im_start|><|im_end|>"
    assert {0, 1, 2} <= tokenizer.special_ids and len(tokenizer.special_ids) == 17
    assert not tokenizer.adds_bos


def test_a_token_by_itself(tokenizer: Tokenizer) -> None:
    euro = tokenizer.encode("€")
    assert b"".join(tokenizer.token_bytes(i) for i in euro) == b"\xe2\x82\xac"
    parts = tokenizer.encode("🦜")
    assert len(parts) > 1
    assert "\ufffd" in tokenizer.token_text(parts[0])
    first = tokenizer.token_bytes(parts[0])
    assert tokenizer.token_label(parts[0]) == "bytes:" + "".join(f"\\x{b:02x}" for b in first)
    the = tokenizer.encode(" the")[0]
    assert (tokenizer.token_text(the), tokenizer.token_label(the), tokenizer.token_piece(the)) == (
        " the",
        " the",
        "Ġthe",
    )
    assert tokenizer.token_id("Ġthe") == the and tokenizer.token_id("no such piece") is None


@pytest.mark.parametrize("token_id", [-1, 49_152, 1 << 40])
def test_ids_out_of_the_vocabulary_are_named(tokenizer: Tokenizer, token_id: int) -> None:
    with pytest.raises(TextError, match=rf"{token_id} is unknown; accepted: 0 to 49151"):
        tokenizer.decode([5, token_id])
    with pytest.raises(TextError, match=rf"prompt: {token_id} is unknown") as caught:
        tokenizer.check_ids([5, token_id, 6], "prompt")
    assert caught.value.field == "prompt"
    tokenizer.check_ids([0, 49_151], "prompt")


def test_ids_the_model_has_beyond_the_tokenizer_are_empty(backend: Backend, checkpoint: Checkpoint) -> None:
    padded = Tokenizer(backend, checkpoint.special, vocab_size=49_200)
    assert padded.decode([49_199, *padded.encode("a")]) == "a"
    assert padded.token_piece(49_199) == ""


def test_lone_surrogates_are_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(TextError, match=r"lone surrogate, '\\ud800', at character 2"):
        tokenizer.encode("ab\ud800c")


def test_truncation() -> None:
    assert truncate([1, 2, 3], 2) == [2, 3]
    assert truncate([1, 2, 3], 2, "right") == [1, 2]
    assert truncate([1, 2, 3], 9) == [1, 2, 3]
    with pytest.raises(TextError, match="truncate_prompt_tokens: 0"):
        truncate([1], 0)


async def test_long_texts_leave_the_event_loop_free(tokenizer: Tokenizer) -> None:
    encoder = Encoder(tokenizer)
    text = "Many words, one after the other, 12345 of them.\n" * 10_000
    num_turns = 0
    pending = asyncio.create_task(encoder.encode(text))
    while not pending.done():
        await asyncio.sleep(0.001)
        num_turns += 1
    encoder.close()
    assert await pending == tokenizer.encode(text)
    assert num_turns > 10


def test_a_folders_tokenizer_json_is_the_same(
    tmp_path: Path, checkpoint: Checkpoint, backend: Backend, tokenizer: Tokenizer
) -> None:
    backend.enable_truncation(3)  # a limit saved with the file is not the server's
    backend.save(str(tmp_path / "tokenizer.json"))
    backend.no_truncation()
    loaded = load_tokenizer(replace(checkpoint, tokenizer=TokenizerFile(tmp_path / "tokenizer.json")))
    text = "Résumé: naïve café 2024 — 日本語 🎉\r\n 10 <|im_end|>"
    assert loaded.encode(text) == tokenizer.encode(text)
    assert loaded.decode(loaded.encode(text)) == tokenizer.decode(tokenizer.encode(text))


def test_what_a_folder_lacks_is_named(tmp_path: Path, checkpoint: Checkpoint) -> None:
    with pytest.raises(ModelTextError, match=r"tokenizer\.json is missing"):
        load_tokenizer(replace(checkpoint, tokenizer=None))
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(ModelTextError, match=r"tokenizer\.json: not a tokenizer"):
        load_tokenizer(replace(checkpoint, tokenizer=TokenizerFile(tmp_path / "tokenizer.json")))


def test_spaces_marked_as_sentencepiece_marks_them(checkpoint: Checkpoint) -> None:
    pieces = ["<unk>", "\u2581Hello", "\u2581wor", "ld", "\u2581", "!"]
    backend = Backend(models.Unigram([(piece, -float(i)) for i, piece in enumerate(pieces)], unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    backend.decoder = decoders.Metaspace()
    made = Tokenizer(backend, checkpoint.special)
    ids = made.encode("Hello world! Hello")
    assert made.decode(ids) == backend.decode(ids) == "Hello world! Hello"
    backend.decoder = decoders.Metaspace(prepend_scheme="never")
    assert Tokenizer(backend, checkpoint.special).decode(ids) == backend.decode(ids) == " Hello world! Hello"


def test_a_decoder_without_bytes_for_each_token_is_refused(checkpoint: Checkpoint) -> None:
    backend = Backend(models.WordPiece({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    with pytest.raises(ModelTextError, match="no decoder"):
        Tokenizer(backend, checkpoint.special)
    backend.decoder = decoders.WordPiece()
    with pytest.raises(ModelTextError, match=r"WordPiece is not supported.*accepted: ByteLevel"):
        Tokenizer(backend, checkpoint.special)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("pre", "tekken", r"tokenizer\.ggml\.pre: 'tekken'.*accepted: default, gpt-2, llama-bpe.*smollm"),
        ("model", "bert", r"tokenizer\.ggml\.model: 'bert'.*accepted: gpt2, llama"),
        ("token_types", [1, 2], r"tokenizer\.ggml\.token_type has 2 entries"),
        ("merges", ["onlyone"], r"tokenizer\.ggml\.merges: 'onlyone' is not a pair"),
    ],
)
def test_a_vocabulary_that_is_not_supported_is_named(
    checkpoint: Checkpoint, vocabulary: GgufVocabulary, field: str, value: object, message: str
) -> None:
    wrong = replace(vocabulary, **{field: value})  # type: ignore[arg-type]
    with pytest.raises(ModelTextError, match=message):
        build_gguf(wrong, checkpoint.special)


def test_special_ids_must_be_tokens(checkpoint: Checkpoint, vocabulary: GgufVocabulary) -> None:
    with pytest.raises(ModelTextError, match=r"bos_token_id: 60000 is not below the 49152"):
        build_gguf(vocabulary, replace(checkpoint.special, bos_id=60_000))


@pytest.mark.parametrize(
    ("pre", "pieces"),
    [
        ("gpt-2", ["It", "'s", " 12345", " cats", "\r\n", "\n", "(", "ok", ")!", "\n  ", " I", "'", "M"]),
        ("llama-bpe", ["It", "'s", " ", "123", "45", " cats", "\r\n\n", "(ok", ")!\n", "  ", " I", "'M"]),
        (
            "qwen2",
            ["It", "'s", " ", "1", "2", "3", "4", "5", " cats", "\r\n\n", "(ok", ")!\n", "  ", " I", "'M"],
        ),
    ],
)
def test_how_each_kind_splits(
    checkpoint: Checkpoint, vocabulary: GgufVocabulary, pre: str, pieces: list[str]
) -> None:
    backend = build_gguf(replace(vocabulary, pre=pre), checkpoint.special)
    assert isinstance(backend.pre_tokenizer, pre_tokenizers.PreTokenizer)
    text = "It's 12345 cats\r\n\n(ok)!\n   I'M"
    parts = [text[a:b] for _, (a, b) in backend.pre_tokenizer.pre_tokenize_str(text)]
    assert parts == pieces


def test_a_first_token_is_put_before_texts_where_the_file_says_so(
    checkpoint: Checkpoint, vocabulary: GgufVocabulary
) -> None:
    special = replace(checkpoint.special, add_bos=True, add_eos=True)
    made = Tokenizer(build_gguf(vocabulary, special), special)
    assert made.adds_bos
    assert made.encode("a") == [1, *made.encode("a", add_special_tokens=False), 2]
    unsaid = replace(checkpoint.special, add_bos=None)
    assert Tokenizer(build_gguf(replace(vocabulary, pre="llama-bpe"), unsaid), unsaid).adds_bos
    assert not Tokenizer(build_gguf(vocabulary, unsaid), unsaid).adds_bos
