"""Arrays from the host to the device and back, without waiting for it."""

import numpy as np
import numpy.typing as npt
import torch

NUM_BUFFERS = 4  # more than steps in flight, so that none is waited for
SMALLEST = 1 << 12  # words


class Staging:
    """A ring of pinned buffers, each used again only when the copy from it is over."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._buffers = [_PinnedBuffer() for _ in range(NUM_BUFFERS)] if device.type == "cuda" else []
        self._next = 0

    def copy(self, words: npt.NDArray[np.int32]) -> torch.Tensor:
        """int32 [n] on the device once the current stream comes to it; `words` may be written to at once."""
        out = torch.empty(len(words), dtype=torch.int32, device=self._device)
        self.write(words, out)
        return out

    def write(self, words: npt.NDArray[np.int32], out: torch.Tensor) -> None:
        """The same into out, int32 [n] on the device."""
        if not self._buffers:
            out.copy_(torch.from_numpy(words))
            return
        buffer = self._buffers[self._next]
        self._next = (self._next + 1) % NUM_BUFFERS
        buffer.write(words, out)


class _PinnedBuffer:
    def __init__(self) -> None:
        self._words = torch.empty(0, dtype=torch.int32)
        self._copied = torch.cuda.Event()  # type: ignore[no-untyped-call]

    def write(self, words: npt.NDArray[np.int32], out: torch.Tensor) -> None:
        self._copied.synchronize()
        if len(words) > len(self._words):
            length = max(SMALLEST, 1 << (len(words) - 1).bit_length())
            self._words = torch.empty(length, dtype=torch.int32, pin_memory=True)
        self._words.numpy()[: len(words)] = words
        out.copy_(self._words[: len(words)], non_blocking=True)
        self._copied.record(torch.cuda.current_stream(out.device))


def to_host(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in the host's memory, once the current stream has come so far."""
    if not tensor.is_cuda:
        return tensor.clone()
    out = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    return out.copy_(tensor, non_blocking=True)
