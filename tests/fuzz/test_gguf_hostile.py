"""GGUF files that lie: each is one clear refusal, soon, and without much memory."""

import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint import CheckpointError, open_checkpoint
from engine.weights.gguf import GgufSource
from server.text.load import load_template, load_tokenizer
from tests.fuzz import targets
from tests.fuzz.effort import effort
from tests.fuzz.raw_gguf import (
    ARRAY,
    EMBEDDING,
    F32,
    STRING,
    U8,
    Fields,
    RawGguf,
    RawTensor,
    array,
    number,
    real,
    string,
    strings,
    text,
    u32,
)

HUGE = 2**64 - 1
GOOD = RawGguf()
NORM = RawTensor(b"output_norm.weight", (8,), offset=128)


def tensors(*found: RawTensor) -> RawGguf:
    return replace(GOOD, tensors=found)


def fields(changes: Fields) -> RawGguf:
    return GOOD.with_fields(changes)


REFUSED: dict[str, tuple[RawGguf, str]] = {
    "too many tensors": (replace(GOOD, num_tensors=HUGE), "has 0 dimensions"),
    "too many fields": (replace(GOOD, num_fields=HUGE), "."),
    "a key of all lengths": (replace(GOOD, fields=((b"", b""),), num_fields=1), "."),
    "an endless string": (fields({b"x": u32(STRING) + string(b"abc", HUGE)}), "cut short"),
    "a string of half the numbers": (fields({b"x": u32(STRING) + string(b"abc", 2**63)}), "cut short"),
    "an endless array": (fields({b"x": array(U8, HUGE)}), "cut short"),
    "an array of endless numbers": (fields({b"x": array(F32, 2**62)}), "cut short"),
    "endless strings": (fields({b"x": strings([b"a"], HUGE)}), "cut short"),
    "arrays in arrays": (
        fields({b"x": array(ARRAY, 1, array(U8, 1))}),
        "x is an array of the unsupported type 9",
    ),
    "an unknown type": (fields({b"x": u32(99)}), "x has the unknown type 99"),
    "the same key": (
        replace(GOOD, fields=(*GOOD.fields, (b"llama.block_count", number(1)))),
        "block_count is there twice",
    ),
    "the same tensor": (tensors(EMBEDDING, EMBEDDING), "two tensors have the same name"),
    "no dimensions": (tensors(RawTensor(b"t", ())), "t has 0 dimensions"),
    "many dimensions": (tensors(RawTensor(b"t", (1,) * 5)), "t has 5 dimensions"),
    "endless dimensions": (tensors(RawTensor(b"t", (), num_dims=2**32 - 1)), "t has 4294967295 dimensions"),
    "no alignment": (fields({b"general.alignment": number(0)}), "general.alignment is 0"),
    "an odd alignment": (fields({b"general.alignment": number(24)}), "general.alignment is 24"),
    "an alignment in words": (fields({b"general.alignment": text(b"32")}), "general.alignment is '32'"),
    "a tensor off its place": (tensors(EMBEDDING, replace(NORM, offset=129)), "begins at 129 .* multiple of"),
    "no vocabulary": (tensors(replace(EMBEDDING, dims=(8, 0))), "a vocabulary of 0"),
    "a vocabulary of all numbers": (
        tensors(replace(EMBEDDING, dims=(8, 2**62))),
        "a vocabulary of 4611686018427387904",
    ),
    "no embedding": (tensors(NORM), "token_embd.weight is missing"),
    "no layers": (fields({b"llama.block_count": number(0)}), "block_count is 0"),
    "all the layers": (fields({b"llama.block_count": number(2**30)}), "1073741824 layers"),
    "an endless context": (
        fields({b"llama.context_length": number(2**32 - 1)}),
        "context_length is 4294967295",
    ),
    "no number": (
        fields({b"llama.attention.layer_norm_rms_epsilon": real(float("nan"))}),
        "rms_epsilon is nan",
    ),
    "no heads": (fields({b"llama.attention.head_count": number(9)}), "attention.key_length is 0"),
    "endless heads": (
        fields({b"llama.attention.head_count_kv": array(F32, 2, bytes(8))}),
        "head_count_kv is 0.0",
    ),
    "a special token beyond all": (
        fields({b"tokenizer.ggml.eos_token_id": number(2**32 - 1)}),
        "special token id",
    ),
    "words for a number": (fields({b"llama.embedding_length": text(b"8")}), "embedding_length is '8'"),
    "bytes for words": (
        fields({b"general.name": text(b"\xff\xfe")}),
        "general.name holds text that is not UTF-8",
    ),
    "orders to the terminal": (
        fields({b"general.architecture": text(b"\x1b[2J\x00\n")}),
        r"\\x1b\[2J\\x00\\n",
    ),
    "a long word": (fields({b"general.architecture": text(b"x" * 10**6)}), "architecture is 'xxx"),
    "a name with a zero": (
        tensors(replace(EMBEDDING, num_dims=9, name=b"a\0b\x1b")),
        r"tensor a\\x00b\\x1b has",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    raw, message = REFUSED[name]
    path = tmp_path / "model.gguf"
    path.write_bytes(raw.content())
    began = time.process_time()
    with pytest.raises(CheckpointError, match=message) as caught:
        open_checkpoint(str(path))
    assert str(path) in str(caught.value) and str(caught.value).isprintable()
    assert time.process_time() - began < 2


STRETCHED = {b"llama.rope.scaling.type": text(b"yarn"), b"llama.rope.scaling.factor": real(3e38)}


def test_a_file_without_a_fault_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(GOOD.content())
    assert open_checkpoint(str(path)).decoder.vocab_size == 4
    path.write_bytes(fields(STRETCHED).content())
    assert open_checkpoint(str(path)).decoder.max_context == 2**31 - 1


def test_a_padding_token_may_be_missing(tmp_path: Path) -> None:
    """Files with a padding token that the model has no row for are about."""
    path = tmp_path / "model.gguf"
    path.write_bytes(fields({b"tokenizer.ggml.padding_token_id": number(2**32 - 1)}).content())
    checkpoint = open_checkpoint(str(path))
    assert load_template(checkpoint, load_tokenizer(checkpoint)).render(targets.CHAT)


def test_cut_anywhere(tmp_path: Path) -> None:
    """Up to where the tensors begin the file cannot be opened, behind that its tensors cannot be read."""
    path, content = tmp_path / "model.gguf", GOOD.content()
    for size in range(len(content)):
        path.write_bytes(content[:size])
        if size < len(GOOD.header()):
            with pytest.raises(CheckpointError, match=r"empty|cut short|not a GGUF"):
                open_checkpoint(str(path))
        else:
            with pytest.raises(CheckpointError, match="cut short"):
                source_of(path)


def source_of(path: Path) -> GgufSource:
    checkpoint = open_checkpoint(str(path))
    assert checkpoint.gguf is not None
    return GgufSource(checkpoint.gguf, checkpoint.decoder, permuted=True)


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (replace(NORM, offset=96), "tensors token_embd.weight and output_norm.weight overlap at byte"),
        (replace(NORM, offset=0), "overlap"),
        (replace(NORM, offset=2**63), "cut short; tensor output_norm.weight ends at byte"),
        (replace(NORM, dims=(2**63,)), "cut short"),
        (replace(NORM, dims=(2**62,) * 4), "cut short"),
        (replace(NORM, type=255), "unknown type 255"),
        (replace(NORM, type=2), "the vector output_norm.weight is quantised"),
        (replace(NORM, dims=(8, 0)), "impossible shape"),
        (replace(NORM, dims=(3, 2), type=2), "impossible shape"),
    ],
)
def test_a_tensor_that_cannot_be_is_named(tensor: RawTensor, message: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(tensors(EMBEDDING, tensor).content())
    with pytest.raises(CheckpointError, match=message):
        source_of(path)


VALUES = st.one_of(
    st.integers(0, 2**32 - 1).map(number),
    st.floats(width=32).map(real),
    st.binary(max_size=20).map(text),
    st.lists(st.binary(max_size=5), max_size=5).map(strings),
    st.builds(
        array, st.integers(0, 13), st.sampled_from([0, 1, 4, 2**31, 2**63, HUGE]), st.binary(max_size=32)
    ),
    st.binary(max_size=12),
)
TENSORS = st.builds(
    RawTensor,
    st.sampled_from([b"token_embd.weight", b"output.weight", b"rope_freqs.weight", b"x"])
    | st.binary(max_size=8),
    st.lists(st.sampled_from([0, 1, 2, 4, 8, 2**31, 2**63]), max_size=5).map(tuple),
    st.integers(0, 40),
    st.sampled_from([0, 32, 33, 128, 2**40, HUGE]),
)


@effort(1.5)
@given(
    changes=st.dictionaries(
        st.sampled_from(sorted(dict(GOOD.fields))) | st.binary(max_size=12), VALUES, max_size=3
    ),
    found=st.lists(TENSORS, max_size=3),
    size=st.floats(0.3, 1) | st.just(1.0),
)
def test_any_structure(
    changes: Fields, found: list[RawTensor], size: float, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Well formed files of odd values, cut or whole: read or refused."""
    content = replace(GOOD.with_fields(changes), tensors=(EMBEDDING, *found)).content()
    targets.gguf(content[: int(len(content) * size)], tmp_path_factory.getbasetemp())
