"""The compiled kernels, where this machine can have them."""

import ctypes
import logging

from engine.kernels import build

logger = logging.getLogger(__name__)


def load_kernels() -> ctypes.CDLL | None:
    """None, with a warning, if they cannot be compiled here: whoever asked runs the plain ones."""
    try:
        return build.load()
    except (build.CompilerMissing, build.CompileFailed, OSError) as error:  # OSError: a full disk
        logger.warning("no compiled kernels, running the plain ones, which are slower: %s", error)
        logger.warning("g++ or clang++ with OpenMP makes them")
        return None
