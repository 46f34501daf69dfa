"""GGUF metadata: the key-value section and the tensor table, read without touching the tensors.

The format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. The `gguf` package's own reader makes
an array of every string of the vocabulary, which takes seconds where this takes milliseconds.
"""

import mmap
import struct
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from engine.checkpoint.error import CheckpointError

Scalar = str | int | float | bool

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
_F32 = 0
_U64 = struct.Struct("<Q")
_MAX_DIMS = 4


@dataclass(frozen=True, slots=True)
class GgufArray:
    """An array's place in the file; its elements are read when they are asked for."""

    type: int
    count: int
    start: int


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """A tensor's place in the file. `shape` is outermost first; `type` is a GGMLQuantizationType."""

    name: str
    shape: tuple[int, ...]
    type: int
    start: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """The metadata of one .gguf file."""

    path: Path
    scalars: Mapping[str, Scalar]
    arrays: Mapping[str, GgufArray]
    tensors: Mapping[str, GgufTensor]

    def strings(self, key: str) -> list[str]:
        """An array of strings; empty where the file has none."""
        array = self.arrays.get(key)
        if array is None:
            return []
        if array.type != _STRING:
            raise CheckpointError(f"{self.path}: {key} is not an array of strings")
        with _open(self.path) as data:
            return [_text(self.path, key, raw) for raw in _strings(data, array)]

    def numbers(self, key: str) -> list[float]:
        """An array of numbers; empty where the file has none."""
        array = self.arrays.get(key)
        if array is None:
            return []
        if array.type == _STRING:
            raise CheckpointError(f"{self.path}: {key} is not an array of numbers")
        with _open(self.path) as data:
            return list(struct.unpack_from(f"<{array.count}{_SCALARS[array.type]}", data, array.start))

    def floats(self, tensor: GgufTensor) -> tuple[float, ...]:
        """The elements of a small vector of type F32."""
        if tensor.type != _F32 or len(tensor.shape) != 1:
            raise CheckpointError(f"{self.path}: tensor {tensor.name} is not a vector of type F32")
        with _open(self.path) as data:
            return struct.unpack_from(f"<{tensor.shape[0]}f", data, tensor.start)


def read_gguf(path: Path) -> GgufFile:
    """Errors: CheckpointError for a file that is not GGUF 2 or 3, is cut short, or has a malformed table."""
    with _open(path) as data:
        return _Reader(path, data).read()


@contextmanager
def _open(path: Path) -> Iterator[mmap.mmap]:
    """The file's bytes; what reaches past their end is reported as a file cut short."""
    if path.stat().st_size == 0:
        raise CheckpointError(f"{path}: the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            yield data
        except (struct.error, OverflowError) as error:
            raise CheckpointError(f"{path}: the file is cut short or damaged ({error})") from error


def _strings(data: mmap.mmap, array: GgufArray) -> list[bytes]:
    place, found = array.start, []
    for _ in range(array.count):
        start = place + 8
        place = start + _U64.unpack_from(data, place)[0]
        found.append(data[start:place])
    return found


def _text(path: Path, key: str, raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{path}: {key} holds text that is not UTF-8 ({raw[:40]!r})") from error


class _Reader:
    """Walks the file once, front to back."""

    def __init__(self, path: Path, data: mmap.mmap) -> None:
        self.path, self.data, self.place = path, data, 0

    def read(self) -> GgufFile:
        if self.data[:4] != b"GGUF":
            raise CheckpointError(f"{self.path}: not a GGUF file (it begins with {self.data[:4]!r})")
        self.place = 4
        version, num_tensors, num_fields = self._take("I"), self._take("Q"), self._take("Q")
        if version not in (2, 3):
            raise CheckpointError(f"{self.path}: GGUF version {version}; accepted: 2 and 3, little-endian")
        scalars, arrays = self._fields(num_fields)
        return GgufFile(self.path, scalars, arrays, self._tensors(num_tensors, scalars))

    def _fields(self, count: int) -> tuple[dict[str, Scalar], dict[str, GgufArray]]:
        scalars: dict[str, Scalar] = {}
        arrays: dict[str, GgufArray] = {}
        for _ in range(count):
            key = self._string("a key")
            if key in scalars or key in arrays:
                raise CheckpointError(f"{self.path}: the key {key} is there twice")
            value = self._value(key)
            if isinstance(value, GgufArray):
                arrays[key] = value
            else:
                scalars[key] = value
        return scalars, arrays

    def _value(self, key: str) -> Scalar | GgufArray:
        kind = self._take("I")
        if kind in _SCALARS:
            return self._take(_SCALARS[kind])
        if kind == _STRING:
            return self._string(key)
        if kind == _ARRAY:
            return self._array(key)
        raise CheckpointError(f"{self.path}: {key} has the unknown type {kind}")

    def _array(self, key: str) -> GgufArray:
        array = GgufArray(self._take("I"), self._take("Q"), self.place)
        if array.type in _SCALARS:
            self._skip(array.count * struct.calcsize(_SCALARS[array.type]))
        elif array.type == _STRING:
            for _ in range(array.count):
                self.place += 8 + _U64.unpack_from(self.data, self.place)[0]
            self._skip(0)
        else:
            raise CheckpointError(f"{self.path}: {key} is an array of the unsupported type {array.type}")
        return array

    def _tensors(self, count: int, scalars: Mapping[str, Scalar]) -> dict[str, GgufTensor]:
        table = [self._tensor() for _ in range(count)]
        alignment = scalars.get("general.alignment", 32)
        if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
            raise CheckpointError(
                f"{self.path}: general.alignment is {alignment!r}; accepted: a power of two"
            )
        for tensor in table:
            if tensor.start % alignment:
                raise CheckpointError(
                    f"{self.path}: tensor {tensor.name} begins at {tensor.start} of the data; accepted: a multiple of"
                    f" general.alignment, {alignment}"
                )
        base = -(-self.place // alignment) * alignment
        tensors = {t.name: GgufTensor(t.name, t.shape, t.type, base + t.start) for t in table}
        if len(tensors) != len(table):
            raise CheckpointError(f"{self.path}: two tensors have the same name")
        return tensors

    def _tensor(self) -> GgufTensor:
        name, num_dims = self._string("a tensor's name"), self._take("I")
        if not 1 <= num_dims <= _MAX_DIMS:
            raise CheckpointError(
                f"{self.path}: tensor {name} has {num_dims} dimensions; accepted: 1 to {_MAX_DIMS}"
            )
        shape = tuple(self._take("Q") for _ in range(num_dims))
        return GgufTensor(name, shape[::-1], self._take("I"), self._take("Q"))

    def _take(self, kind: str) -> int:
        value: int = struct.unpack_from("<" + kind, self.data, self.place)[0]
        self.place += struct.calcsize("<" + kind)
        return value

    def _string(self, what: str) -> str:
        start = self.place + 8
        size = _U64.unpack_from(self.data, self.place)[0]
        self.place = start
        self._skip(size)
        return _text(self.path, what, self.data[start : self.place])

    def _skip(self, size: int) -> None:
        self.place += size
        if self.place > len(self.data):
            raise CheckpointError(f"{self.path}: the file is cut short ({len(self.data)} bytes)")
