"""Tensors of a folder of safetensors files."""

import json
import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from engine.checkpoint import CheckpointError
from engine.checkpoint.json_file import read_json
from engine.weights.source import HARMLESS, Piece, Shape

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.pkl")


@dataclass(frozen=True, slots=True)
class Stored:
    """Where a tensor's bytes begin, and what they are."""

    path: Path
    start: int
    dtype: torch.dtype


class SafetensorsSource:
    """engine.weights.source.FileSource of all the files of one model."""

    def __init__(self, folder: Path) -> None:
        """Errors: CheckpointError for a folder without safetensors, a damaged file, an unsupported dtype."""
        self.shapes: dict[str, Shape] = {}
        self._stored: dict[str, Stored] = {}
        for path in _files(folder):
            self._open(path)

    def label(self, name: str) -> str:
        return f"tensor {name} in {self._stored[name].path}" if name in self._stored else f"tensor {name}"

    def num_bytes(self, name: str) -> int:
        return math.prod(self.shapes[name]) * self._stored[name].dtype.itemsize

    def read(self, name: str, out: torch.Tensor) -> None:
        with safe_open(self._stored[name].path, framework="pt") as file:
            out.copy_(file.get_tensor(name))

    def pieces(self, name: str, max_bytes: int) -> Iterator[Piece]:
        stored, num_elements = self._stored[name], math.prod(self.shapes[name])
        step = max_bytes // stored.dtype.itemsize
        for start in range(0, num_elements, step):
            read = partial(self._read_bytes, name, stored.start + start * stored.dtype.itemsize)
            yield Piece(start, min(step, num_elements - start), stored.dtype, read)

    def _read_bytes(self, name: str, start: int, out: torch.Tensor) -> None:
        """Not through a mapping of the file: its pages would come one fault at a time."""
        left = out.view(torch.uint8).numpy().data
        with self._stored[name].path.open("rb", buffering=0) as file:
            while left:
                count = os.preadv(file.fileno(), [left], start)
                if count == 0:
                    raise CheckpointError(f"{self.label(name)}: the file was cut short while it was read")
                left, start = left[count:], start + count

    def _open(self, path: Path) -> None:
        if not path.exists():
            raise CheckpointError(f"{path} is missing, and {_INDEX} names it")
        if not path.is_file():
            raise CheckpointError(f"{path} is not a file")
        try:
            with safe_open(path, framework="pt") as file:
                starts = _read_starts(path)
                for name in file.keys():  # noqa: SIM118 - the file is no mapping
                    tensor = file.get_slice(name)
                    self._add(path, name, tuple(tensor.get_shape()), tensor.get_dtype(), starts[name])
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{path}: the file is cut short or damaged ({error})") from error

    def _add(self, path: Path, name: str, shape: Shape, dtype: str, start: int) -> None:
        if HARMLESS.search(name):  # some of them are whole numbers
            return
        if name in self._stored:
            raise CheckpointError(f"tensor {name} is both in {self._stored[name].path} and in {path}")
        if dtype not in _DTYPES:
            raise CheckpointError(f"tensor {name} in {path} is {dtype}; accepted: {', '.join(_DTYPES)}")
        self._stored[name], self.shapes[name] = Stored(path, start, _DTYPES[dtype]), shape


def _read_starts(path: Path) -> dict[str, int]:
    """Of each tensor in a file whose header safetensors has found sound: its first byte."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size), object_pairs_hook=partial(_unique, path))
    return {
        name: 8 + size + entry["data_offsets"][0] for name, entry in header.items() if name != "__metadata__"
    }


def _unique(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object of the header: safetensors takes the last of two tensors with one name, others the first."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in found if names.count(name) > 1)
        raise CheckpointError(f"{path}: {twice} is there twice")
    return found


def _files(folder: Path) -> list[Path]:
    if (folder / _INDEX).exists():
        table = read_json(folder / _INDEX).table("weight_map")
        names = {table.text(tensor) for tensor in table.values}
        return [_inside(folder, name) for name in sorted(names)]
    if (folder / _SINGLE).exists():
        return [folder / _SINGLE]
    found = sorted(folder.glob("*.safetensors"))
    if len(found) == 1:
        return found
    raise CheckpointError(_why_none(folder, found))


def _inside(folder: Path, name: str) -> Path:
    if Path(name).name != name or name in ("", "..") or not _is_plain(name):
        raise CheckpointError(
            f"{folder / _INDEX} names the file {name[:80]!r}; accepted: a file of the same folder"
        )
    return folder / name


def _is_plain(name: str) -> bool:
    """A name that any file system takes, and any terminal shows."""
    return name.isprintable() and len(name.encode()) < 256


def _why_none(folder: Path, found: list[Path]) -> str:
    if found:
        return f"{folder} has {len(found)} .safetensors files and no {_INDEX} to say which belong together"
    pickles = sorted(path.name for pattern in _PICKLES for path in folder.glob(pattern))
    if pickles:
        return (
            f"{folder} has weights only as pickles ({pickles[0]}), which can run code when they are read; "
            "accepted: .safetensors (transformers' save_pretrained writes them) or a .gguf file"
        )
    return f"{folder} has no .safetensors file; for random weights, load with the format dummy"
