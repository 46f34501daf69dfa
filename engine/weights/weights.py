"""Tensors on their way from a source into a model."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from math import prod

import torch

from engine.checkpoint import CheckpointError
from engine.quantised import Matrix, Quantised, concatenate
from engine.weights.source import HARMLESS, Shape, TensorSource
from engine.weights.staging import StagedReader

Progress = Callable[[str, int, int], None]  # name of the tensor just read, bytes so far, bytes in all
FindQuantised = Callable[
    [str], Quantised | None
]  # a tensor as it lies in the file; None where it is not quantised so

_NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Layout:
    """The tensors a model wants, by their names in a folder of safetensors, and which it wants as one."""

    shapes: Mapping[str, Shape]
    fused: Mapping[str, tuple[str, ...]]  # module: the modules whose rows it holds, in order
    ignored: tuple[str, ...] = ()  # may be there and are not read
    prefix: str = ""  # may be before a name in the file
    aliases: Mapping[str, str] = field(default_factory=dict)  # name: what the file may call it instead

    @property
    def num_weights(self) -> int:
        return sum(map(prod, self.shapes.values()))


class Weights:
    """Hands each tensor out once, so that only what the model keeps of it stays in memory."""

    def __init__(
        self,
        source: TensorSource,
        layout: Layout,
        dtype: torch.dtype,
        progress: Progress | None,
        device: torch.device,
        staged: StagedReader | None = None,
        find_quantised: FindQuantised | None = None,
    ) -> None:
        """staged: reads the same source, for this device; without it tensors are read one by one.

        Errors: CheckpointError naming tensors that are missing, left over, or of the wrong shape.
        """
        _check(source, layout)
        self.dtype, self.device = dtype, device
        self._source, self._layout, self._progress, self._staged = source, layout, progress, staged
        self._find_quantised = find_quantised
        self._left = dict.fromkeys(layout.shapes)
        self._total = sum(map(source.num_bytes, layout.shapes))
        self._done = 0
        self.num_bytes = 0  # of the tensors handed out, in the dtype they are computed with

    @property
    def left(self) -> tuple[str, ...]:
        """Names not taken yet."""
        return tuple(self._left)

    def take(self, name: str, dtype: torch.dtype | None = None) -> torch.Tensor:
        """A tensor, or several as one [sum of rows, ...] where the name's module is in the fused table.

        On a GPU its values are there once `finish` or a `wait` has returned.
        """
        parts = self._parts(name)
        rows = [self._layout.shapes[part][0] for part in parts]
        inner = self._layout.shapes[parts[0]][1:]
        out = torch.empty((sum(rows), *inner), dtype=dtype or self.dtype, device=self.device)
        self.num_bytes += out.nbytes
        for part, piece in zip(parts, torch.split(out, rows), strict=True):
            self._read(part, piece)
        return out

    def take_matrix(self, name: str) -> Matrix:
        """As `take`; quantised where all its parts are so, and in one way, and it is wanted so."""
        found = self._take_quantised(self._parts(name))
        if found is None:
            return self.take(name)
        self.num_bytes += found.nbytes
        return replace(found, dtype=self.dtype)

    def wait(self) -> None:
        """For what was taken so far. Errors: CheckpointError for a damaged tensor."""
        if self._staged is not None:
            self._staged.wait()

    def finish(self) -> None:
        """Wait for what was taken; nothing is taken after it. Errors: CheckpointError for a damaged tensor."""
        if self._staged is not None:
            self._staged.finish(self._tell)

    def _parts(self, name: str) -> list[str]:
        module = name.split(".")[-2]
        return [
            name.replace(f".{module}.", f".{part}.") for part in self._layout.fused.get(module, (module,))
        ]

    def _take_quantised(self, names: list[str]) -> Quantised | None:
        if self._find_quantised is None:
            return None
        parts = [part for part in map(self._find_quantised, names) if part is not None]
        whole = concatenate(parts) if len(parts) == len(names) else None
        if whole is not None:
            for name in names:
                del self._left[name]
                self._tell(name)
        return whole

    def _read(self, name: str, out: torch.Tensor) -> None:
        del self._left[name]
        if self._staged is None:
            self._source.read(name, out)
            self._tell(name)
        else:
            self._staged.read(name, out)

    def _tell(self, name: str) -> None:
        """A tensor was read."""
        self._done += self._source.num_bytes(name)
        if self._progress is not None:
            self._progress(name, self._done, self._total)


def _check(source: TensorSource, layout: Layout) -> None:
    there = source.shapes
    missing = [name for name in layout.shapes if name not in there]
    if missing:
        raise CheckpointError(f"missing: {_listed(source, missing)}")
    left = [n for n in there if n not in layout.shapes and n not in layout.ignored and not HARMLESS.search(n)]
    if left:
        raise CheckpointError(f"left over, with no place in the model: {_listed(source, left)}")
    for name, shape in layout.shapes.items():
        if there[name] != shape:
            found = f"{source.label(name)} has the shape {list(there[name])}"
            raise CheckpointError(f"{found}; the model's configuration asks for {list(shape)}")


def _listed(source: TensorSource, names: list[str]) -> str:
    shown = ", ".join(map(source.label, names[:_NAMES_SHOWN]))
    return shown if len(names) <= _NAMES_SHOWN else f"{shown} and {len(names) - _NAMES_SHOWN} more"
