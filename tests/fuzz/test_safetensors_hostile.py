"""Safetensors files that lie, and folders of them: each is one clear refusal."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.checkpoint import CheckpointError
from engine.weights.safetensors import SafetensorsSource
from tests.fuzz import targets
from tests.fuzz.effort import effort
from tests.fuzz.raw_folder import safetensors, tensor

DATA = bytes(16)
TWICE = b'{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]},"a":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}'

REFUSED: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "cut short or damaged"),
    "half a number": (b"\1\0\0", "cut short or damaged"),
    "a header of all lengths": (safetensors(b"{}", size=2**63), "header too large"),
    "a header longer than the file": (safetensors(b"{}", size=50), "invalid header length"),
    "no object": (safetensors(b"[]"), "invalid JSON in header"),
    "deep brackets": (safetensors(b"[" * 100_000), "invalid JSON in header"),
    "deep metadata": (
        safetensors(b'{"__metadata__":' + b'{"a":' * 5000 + b"1" + b"}" * 5001),
        "invalid JSON",
    ),
    "no UTF-8": (safetensors(b'{"\xff":1}'), "invalid UTF-8"),
    "half a character": (
        safetensors(b'{"\\ud800":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}', DATA),
        "invalid JSON",
    ),
    "overlapping": (
        safetensors({"a": tensor(0, 16), "b": tensor(8, 24)}, bytes(24)),
        "invalid offset for tensor `b`",
    ),
    "a hole": (
        safetensors({"a": tensor(0, 16), "b": tensor(20, 36)}, bytes(36)),
        "invalid offset for tensor `b`",
    ),
    "before the beginning": (safetensors({"a": tensor(-4, 12)}, DATA), "invalid value"),
    "backwards": (safetensors({"a": tensor(16, 0)}, DATA), "invalid offset for tensor `a`"),
    "past the end": (safetensors({"a": tensor(0, 16)}, bytes(8)), "not fully covered"),
    "bytes left over": (safetensors({"a": tensor(0, 16)}, bytes(32)), "not fully covered"),
    "a size of all numbers": (safetensors({"a": tensor(0, 16, (2**62, 4))}, DATA), "overflow"),
    "whole numbers": (safetensors({"a": tensor(0, 32, dtype="I64")}, bytes(32)), "tensor a in .* is I64"),
    "another size": (safetensors({"a": tensor(0, 16, (5,))}, DATA), "cut short or damaged"),
    "a type of no name": (safetensors({"a": tensor(0, 16, dtype="F99")}, DATA), "unknown variant `F99`"),
    "the same name": (safetensors(TWICE, DATA), "a is there twice"),
    "orders to the terminal": (
        safetensors({"\x1b[2J": tensor(0, 32, dtype="I64")}, bytes(32)),
        r"\\x1b\[2J in",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_lies_is_refused(name: str, tmp_path: Path) -> None:
    content, message = REFUSED[name]
    (tmp_path / "model.safetensors").write_bytes(content)
    with pytest.raises(CheckpointError, match=message) as caught:
        SafetensorsSource(tmp_path)
    assert str(tmp_path / "model.safetensors") in str(caught.value) and str(caught.value).isprintable()


def test_cut_anywhere(tmp_path: Path) -> None:
    content = safetensors({"a": tensor(0, 16), "b": tensor(16, 24, (2, 2), "F16")}, bytes(24))
    for size in range(len(content)):
        (tmp_path / "model.safetensors").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match="cut short or damaged"):
            SafetensorsSource(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(content)
    assert SafetensorsSource(tmp_path).shapes == {"a": (4,), "b": (2, 2)}


def index(names: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "model.safetensors.index.json").write_text(
        f'{{"weight_map": {{"a": {names}}}}}'
    )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: (folder / "model.safetensors").mkdir(), "is not a file"),
        (lambda folder: os.mkfifo(folder / "model.safetensors"), "is not a file"),
        (lambda folder: (folder / "model.safetensors").symlink_to("/dev/zero"), "is not a file"),
        (lambda folder: (folder / "model.safetensors.index.json").mkdir(), "is not a file"),
        (lambda folder: os.mkfifo(folder / "model.safetensors.index.json"), "is not a file"),
        (index('"../other.safetensors"'), "a file of the same folder"),
        (index('".."'), "a file of the same folder"),
        (index('""'), "a file of the same folder"),
        (index('"x\\u0000.safetensors"'), "a file of the same folder"),
        (index('"\\ud800"'), "a file of the same folder"),
        (index(f'"{"x" * 5000}"'), "a file of the same folder"),
        (index("1"), "weight_map.a is 1; accepted: a string"),
        (index('"none.safetensors"'), "none.safetensors is missing"),
    ],
)
def test_a_folder_that_lies_is_refused(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make(tmp_path)
    with pytest.raises(CheckpointError, match=message):
        SafetensorsSource(tmp_path)


ENTRIES = st.builds(
    tensor,
    st.sampled_from([-1, 0, 4, 8, 16, 2**63]),
    st.sampled_from([0, 4, 8, 16, 24, 2**64]),
    st.lists(st.sampled_from([0, 1, 2, 4, 2**31, 2**63]), max_size=4).map(tuple),
    st.sampled_from(["F32", "F16", "BF16", "I64", "F8_E4M3", "F4", "X"]),
)


@effort(1)
@given(
    header=st.dictionaries(st.text(max_size=4), ENTRIES | st.none() | st.integers(), max_size=3)
    | st.binary(max_size=40),
    data=st.binary(max_size=32),
    size=st.sampled_from([None, 0, 2, 2**31, 2**64 - 1]),
)
def test_any_structure(
    header: dict[str, object] | bytes, data: bytes, size: int | None, tmp_path_factory: pytest.TempPathFactory
) -> None:
    targets.safetensors(safetensors(header, data, size), tmp_path_factory.getbasetemp())
