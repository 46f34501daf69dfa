"""What the kinds of file have in common."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch

Shape = tuple[int, ...]

# Tables that older files keep and that are computed here.
HARMLESS = re.compile(r"(^|\.)(rotary_emb\.inv_freq|position_ids|token_type_ids)$")


@dataclass(frozen=True, slots=True)
class Piece:
    """Some consecutive elements of a tensor, as they can be read at once."""

    start: int  # of the tensor's elements, flat
    num_elements: int
    dtype: torch.dtype  # that `read` leaves them in
    read: Callable[[torch.Tensor], None]  # into a contiguous tensor [num_elements] on the CPU; in any thread

    @property
    def num_bytes(self) -> int:
        return self.num_elements * self.dtype.itemsize


class TensorSource(Protocol):
    """Where tensors are read from. Names are those of a folder of safetensors, not the file's own."""

    @property
    def shapes(self) -> Mapping[str, Shape]:
        """Of every tensor there is."""
        ...

    def label(self, name: str) -> str:
        """The tensor and its file, as a message should name them."""
        ...

    def num_bytes(self, name: str) -> int:
        """As stored."""
        ...

    def read(self, name: str, out: torch.Tensor) -> None:
        """Into out, in out's dtype. Errors: CheckpointError for a damaged tensor."""
        ...


class FileSource(TensorSource, Protocol):
    """Tensors that can be read in pieces, by several threads."""

    def pieces(self, name: str, max_bytes: int) -> Iterator[Piece]:
        """The whole tensor, none of its pieces larger than max_bytes. Errors, those of reading too: CheckpointError."""
        ...
