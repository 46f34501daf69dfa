"""Tensors from files into a GPU's memory: threads read pieces into pinned buffers while earlier pieces are copied."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from queue import SimpleQueue

import torch

from engine.weights.source import FileSource, Piece

# A thread takes some 6 GB/s out of the page cache, and a PCIe 5 slot takes 50 in all.
NUM_THREADS = 8
PIECE_BYTES = 8 << 20


@dataclass(frozen=True, slots=True)
class Buffer:
    """Memory of the host, pinned for a GPU, that a copy may still read until `copied`."""

    memory: torch.Tensor  # uint8
    copied: torch.cuda.Event | None  # None on a CPU, where a copy is over when it returns


class StagedReader:
    """Fills tensors of one device. All that `read` was given is there once `finish` has returned; after it nothing is read."""

    def __init__(self, source: FileSource, device: torch.device, piece_bytes: int = PIECE_BYTES) -> None:
        """piece_bytes: read at once, a multiple of 4."""
        self._source, self._device = source, device
        self._piece_bytes = piece_bytes
        self._stream = _make_stream(device) if device.type == "cuda" else None
        self._threads = ThreadPoolExecutor(NUM_THREADS, "weights")
        self._buffers: SimpleQueue[Buffer] = SimpleQueue()
        for _ in range(2 * NUM_THREADS):
            self._buffers.put(self._make_buffer())
        self._pending: list[tuple[str, list[Future[None]]]] = []

    def read(self, name: str, out: torch.Tensor) -> None:
        """Begin to fill out, which is contiguous; in its dtype, whatever the file's."""
        flat = out.view(-1)
        if self._stream is not None:  # what was queued before may still read this memory for somebody else
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        pieces = self._source.pieces(name, self._piece_bytes)
        self._pending.append((name, [self._threads.submit(self._fill, flat, piece) for piece in pieces]))

    def wait(self) -> None:
        """For what was given so far, to be computed with. Errors: the first of those of reading."""
        for _, futures in self._pending:
            for future in futures:
                future.result()
        if self._stream is not None:
            self._stream.synchronize()

    def finish(self, on_read: Callable[[str], None]) -> None:
        """Wait for the rest; on_read gets each tensor's name, in order. Errors: the first of those of reading."""
        try:
            for name, futures in self._pending:
                for future in futures:
                    future.result()
                on_read(name)
        finally:
            self._threads.shutdown(cancel_futures=True)
            if self._stream is not None:
                self._stream.synchronize()
                torch.cuda.empty_cache()  # what conversions left

    @torch.inference_mode()  # as a model is built, and that is a thread's own: its tensors can be written by no other mode
    def _fill(self, out: torch.Tensor, piece: Piece) -> None:
        buffer = self._buffers.get()
        try:
            if buffer.copied is not None:
                buffer.copied.synchronize()
            values = buffer.memory[: piece.num_bytes].view(piece.dtype)
            piece.read(values)
            self._copy(out[piece.start : piece.start + piece.num_elements], values, buffer)
        finally:
            self._buffers.put(buffer)

    def _copy(self, out: torch.Tensor, values: torch.Tensor, buffer: Buffer) -> None:
        """A conversion is the device's work: torch would do it on the CPU before the copy."""
        with torch.cuda.stream(self._stream):
            out.copy_(
                values.to(self._device, non_blocking=True) if values.dtype != out.dtype else values, True
            )
            if buffer.copied is not None:
                buffer.copied.record()

    def _make_buffer(self) -> Buffer:
        is_pinned = self._stream is not None
        memory = torch.empty(self._piece_bytes, dtype=torch.uint8, pin_memory=is_pinned)
        return Buffer(memory, _make_event() if is_pinned else None)


def _make_stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


def _make_event() -> torch.cuda.Event:
    return torch.cuda.Event()  # type: ignore[no-untyped-call]
