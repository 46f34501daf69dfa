"""Weights packed for the compiled matrix products, and the products."""

import ctypes
from enum import IntEnum

import torch

from engine.kernels.cpu_library import INT, POINTER, Kernel, bind_kernel, bind_kernels
from engine.quantised import EIGHT_BLOCK, FOUR_BLOCK, Matrix, Quantised

PAIR = 32  # outputs are padded to a multiple of it


class Kind(IntEnum):
    """What panels are made of: Weight::Kind in engine/kernels/cpu/linear.h."""

    DENSE = 0
    FOUR = 1
    EIGHT = 2


class _Weight(ctypes.Structure):
    _fields_ = [("kind", ctypes.c_int64), ("panels", ctypes.c_void_p)]


class PackedWeight:
    """A weight [outputs, inputs] laid out in panels, an output a lane (engine/kernels/cpu/linear.h)."""

    def __init__(self, kind: Kind, panels: torch.Tensor, shape: torch.Size) -> None:
        self.outputs, self.inputs = shape
        self._panels = panels
        self._structure = _Weight(kind, panels.data_ptr())
        self.pointer = ctypes.addressof(self._structure)


class Packer:
    """From weights, which are contiguous, to panels. The weight may be freed afterwards."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._dense = bind_kernels(library, {"pack_weight": [POINTER] * 2 + [INT] * 2})
        self._four = bind_kernel(library, "pack_four", [POINTER] * 4 + [INT] * 2)
        self._eight = bind_kernel(library, "pack_eight", [POINTER] * 3 + [INT] * 2)

    def __call__(self, weight: Matrix) -> PackedWeight:
        if isinstance(weight, Quantised):
            return (
                self._pack_eight(weight) if weight.leasts is None else self._pack_four(weight, weight.leasts)
            )
        outputs, inputs = weight.shape
        panels = torch.empty(_padded(outputs), -(-inputs // 2) * 2, dtype=weight.dtype)
        self._dense["pack_weight", weight.dtype](weight.data_ptr(), panels.data_ptr(), outputs, inputs)
        return PackedWeight(Kind.DENSE, panels, weight.shape)

    def _pack_four(self, weight: Quantised, leasts: torch.Tensor) -> PackedWeight:
        outputs, inputs = weight.shape
        panels = torch.empty(_padded(outputs), inputs // FOUR_BLOCK, FOUR_BLOCK // 2 + 8, dtype=torch.uint8)
        sources = weight.quants.data_ptr(), weight.scales.data_ptr(), leasts.data_ptr()
        self._four(*sources, panels.data_ptr(), outputs, inputs)
        return PackedWeight(Kind.FOUR, panels, weight.shape)

    def _pack_eight(self, weight: Quantised) -> PackedWeight:
        outputs, inputs = weight.shape
        panels = torch.empty(_padded(outputs), inputs // EIGHT_BLOCK, EIGHT_BLOCK + 4, dtype=torch.uint8)
        sources = weight.quants.data_ptr(), weight.scales.data_ptr()
        self._eight(*sources, panels.data_ptr(), outputs, inputs)
        return PackedWeight(Kind.EIGHT, panels, weight.shape)


def _padded(outputs: int) -> int:
    return -(-outputs // PAIR) * PAIR


class CpuLinear:
    """x [tokens, inputs] -> x w^T + b [tokens, outputs], both in the weight's dtype."""

    def __init__(self, weight: PackedWeight, bias: torch.Tensor | None, kernel: Kernel) -> None:
        self.weight = weight
        self.bias = bias
        self._kernel = kernel

    @property
    def bias_pointer(self) -> int:
        """0: there is none."""
        return 0 if self.bias is None else self.bias.data_ptr()

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, tokens = self.weight, x.shape[0]
        out = x.new_empty(tokens, weight.outputs)
        self._kernel(
            x.data_ptr(), weight.pointer, self.bias_pointer, out.data_ptr(),
            tokens, weight.inputs, weight.outputs,
        )  # fmt: skip
        return out


class CpuHead:
    """x [tokens, inputs] -> logits, float32 [tokens, outputs]."""

    def __init__(self, weight: PackedWeight, kernel: Kernel) -> None:
        self._weight = weight
        self._kernel = kernel

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, tokens = self._weight, x.shape[0]
        out = torch.empty(tokens, weight.outputs)
        self._kernel(x.data_ptr(), weight.pointer, out.data_ptr(), tokens, weight.inputs, weight.outputs)
        return out
