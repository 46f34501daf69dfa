"""Compiles a decoder's kernels into the cache, so that its first start on a GPU has nothing to compile. Needs no GPU.

python -m engine.runner.gpu.precompile [MODEL] ARCHITECTURE ...
"""

import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from engine.checkpoint import open_checkpoint
from engine.kernels.gpu.compiler import Compiler, default_cache_dir
from engine.runner.gpu.cubins import ARCHITECTURES
from engine.runner.gpu.kernel_set import RecordingLibrary, Sample, Unit, record_decoder
from engine.runner.hardware import num_usable_cores

# Some kernels are made for so many: A30, L4, A10, RTX 3090, A40, A100, RTX 4090, L40; H20, H100 PCIe, H100 and H200; B200.
MULTIPROCESSORS = {
    "sm_80": (56, 58, 72, 82, 84, 108, 128, 142),
    "sm_90a": (78, 114, 132),
    "sm_100": (148,),
}


def kernels_of(model: str, architectures: Iterable[str]) -> list[Unit]:
    """What serving this model with the usual settings may launch on the GPUs there are. Raises CheckpointError."""
    checkpoint = open_checkpoint(model)
    sample = Sample(checkpoint.name, checkpoint.decoder)
    units: dict[Unit, None] = {}
    for architecture in architectures:
        for num_multiprocessors in MULTIPROCESSORS[architecture]:
            library = RecordingLibrary(architecture, num_multiprocessors)
            record_decoder(sample, False, library)
            units |= dict.fromkeys(library.shared_bytes)
    return list(units)


def precompile(units: Iterable[Unit], cache_dir: Path) -> list[Path]:
    """Where the cubins lie. Raises CompileFailed."""
    compilers: dict[str, Compiler] = {}

    def compile_one(unit: Unit) -> Path:
        return compilers[unit.architecture].compile(unit.source, dict(unit.defines))

    wanted = list(units)
    compilers |= {name: Compiler(name, cache_dir) for name in {unit.architecture for unit in wanted}}
    with ThreadPoolExecutor(num_usable_cores()) as threads:
        return list(threads.map(compile_one, wanted))


def main(arguments: list[str]) -> None:
    architectures = [word for word in arguments if word.startswith("sm_")] or list(ARCHITECTURES)
    if unknown := [name for name in architectures if name not in MULTIPROCESSORS]:
        sys.exit(f"error: {', '.join(unknown)}: accepted: {', '.join(MULTIPROCESSORS)}")
    models = [word for word in arguments if not word.startswith("sm_")] or [""]
    units = [unit for model in models for unit in kernels_of(model, architectures)]
    paths = precompile(units, default_cache_dir())
    print(f"{len(set(paths))} cubins for {', '.join(architectures)} in {default_cache_dir()}")


if __name__ == "__main__":
    main(sys.argv[1:])
