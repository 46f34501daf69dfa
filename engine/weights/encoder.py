"""An encoder's tensors under one set of names, whatever its files call them."""

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import torch

from engine.checkpoint import CheckpointError
from engine.weights.safetensors import SafetensorsSource
from engine.weights.source import Piece, Shape
from engine.weights.weights import Layout

_OLD_ENDINGS = {".gamma": ".weight", ".beta": ".bias"}  # of norms


class EncoderSource:
    """engine.weights.source.FileSource of a folder, and of the folders of layers behind its pooling.

    A name of the model has the layout's prefix or has not, may be an alias, and a norm may have gamma and beta; a name of
    a folder within begins with the folder's own.
    """

    def __init__(self, path: Path, layout: Layout, folders: Iterable[str]) -> None:
        """Errors: CheckpointError as SafetensorsSource, and for two tensors that come to the same name."""
        self._places: dict[str, tuple[SafetensorsSource, str]] = {}
        self._add(SafetensorsSource(path), layout.prefix, "")
        for folder in folders:
            self._add(SafetensorsSource(path / folder), "", f"{folder}.")
        for name, alias in layout.aliases.items():
            if name not in self._places and alias in self._places:
                self._places[name] = self._places.pop(alias)
        self.shapes: Mapping[str, Shape] = {
            name: source.shapes[own] for name, (source, own) in self._places.items()
        }

    def label(self, name: str) -> str:
        if name not in self._places:
            return f"tensor {name}"
        source, own = self._places[name]
        return source.label(own) if own == name else f"{source.label(own)} ({name})"

    def num_bytes(self, name: str) -> int:
        source, own = self._places[name]
        return source.num_bytes(own)

    def read(self, name: str, out: torch.Tensor) -> None:
        source, own = self._places[name]
        source.read(own, out)

    def pieces(self, name: str, max_bytes: int) -> Iterator[Piece]:
        source, own = self._places[name]
        return source.pieces(own, max_bytes)

    def _add(self, source: SafetensorsSource, prefix: str, before: str) -> None:
        for own in source.shapes:
            name = before + _modern(own.removeprefix(prefix))
            if name in self._places:
                both = f"{self.label(name)} and {source.label(own)}"
                raise CheckpointError(f"{both} are the same tensor of the model")
            self._places[name] = source, own


def _modern(name: str) -> str:
    for old, new in _OLD_ENDINGS.items():
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name
