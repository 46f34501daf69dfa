"""The compiled kernels as Python calls them."""

import ctypes
from collections.abc import Callable

import torch

Kernel = Callable[..., None]
POINTER, INT, FLOAT = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float


def bind_kernels(
    library: ctypes.CDLL, signatures: dict[str, list[type]]
) -> dict[tuple[str, torch.dtype], Kernel]:
    """Each kernel in both dtypes, by name and dtype."""
    return {
        (name, dtype): bind_kernel(library, f"{name}_{str(dtype).removeprefix('torch.')}", signature)
        for name, signature in signatures.items()
        for dtype in (torch.float32, torch.bfloat16)
    }


def bind_kernel(library: ctypes.CDLL, name: str, signature: list[type]) -> Kernel:
    function = library[name]
    function.argtypes = signature
    function.restype = None
    return function
