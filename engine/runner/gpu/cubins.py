"""Compiles every kernel for every architecture and several models. Needs no GPU.

Fails where registers spill, and where a block asks for more shared memory than its GPUs have.

python -m engine.runner.gpu.cubins [SOURCE ...]
"""

import re
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from engine.kernels.gpu.compiler import CompileFailed, compile_source, source_dir
from engine.kernels.gpu.decode_attention import max_shared_bytes
from engine.runner.gpu.encoder_set import record_encoders
from engine.runner.gpu.kernel_set import RecordingLibrary, Unit, record_decoders
from engine.runner.hardware import num_usable_cores

ARCHITECTURES = ("sm_80", "sm_90a", "sm_100", "sm_120")
_FUNCTION = re.compile(
    r"Compiling entry function '(?P<function>\w+)'"
    r".*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes spill loads"
    r".*?Used (?P<registers>\d+) registers(?P<rest>[^\n]*)",
    re.DOTALL,
)
_SHARED = re.compile(r"(\d+) bytes smem")
_WARNING = re.compile(r"^.*\bwarning\b.*$", re.MULTILINE | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Usage:
    """What one kernel takes of a multiprocessor."""

    function: str
    num_registers: int  # of a thread
    shared_bytes: int  # of a block
    spilled_bytes: int  # stores and loads, of a thread


@dataclass(frozen=True, slots=True)
class Outcome:
    unit: Unit
    usages: tuple[Usage, ...]
    complaints: tuple[str, ...]  # of the compiler, and of what it said of registers


def read_log(log: str, dynamic: Mapping[str, int]) -> tuple[Usage, ...]:
    """One a kernel. dynamic: bytes of shared memory that launches ask for, by function."""
    usages = []
    for found in _FUNCTION.finditer(log):
        shared = _SHARED.search(found["rest"])
        static = int(shared[1]) if shared else 0
        spilled = int(found["stores"]) + int(found["loads"])
        function = found["function"]
        usages.append(Usage(function, int(found["registers"]), static + dynamic.get(function, 0), spilled))
    return tuple(usages)


def compile_unit(unit: Unit, dynamic: Mapping[str, int]) -> Outcome:
    try:
        log = compile_source(unit.source, dict(unit.defines), unit.architecture).log
    except CompileFailed as error:
        return Outcome(unit, (), (str(error),))
    usages = read_log(log, dynamic)
    complaints = [warning.strip() for warning in _WARNING.findall(log)]
    complaints += [f"{u.function} spills {u.spilled_bytes} bytes" for u in usages if u.spilled_bytes]
    limit = max_shared_bytes(unit.architecture)
    complaints += [
        f"{u.function} takes {u.shared_bytes} bytes of shared memory; accepted: {limit}"
        for u in usages
        if u.shared_bytes > limit
    ]
    complaints += [f"{name} is not in it" for name in dynamic.keys() - {u.function for u in usages}]
    return Outcome(unit, usages, tuple(complaints))


def table(outcomes: Iterable[Outcome]) -> list[str]:
    """The most that any of a kernel's shapes takes, a line a kernel and architecture."""
    groups: dict[tuple[str, str, str], list[Usage]] = defaultdict(list)
    for outcome in outcomes:
        for usage in outcome.usages:
            groups[outcome.unit.source, usage.function, outcome.unit.architecture].append(usage)
    lines = [f"{'kernel':<48}{'':<8}{'shapes':>7}{'registers':>11}{'shared':>9}{'spilled':>9}"]
    for (source, function, architecture), usages in sorted(groups.items()):
        most = [max(u.num_registers for u in usages), max(u.shared_bytes for u in usages)]
        spilled = max(u.spilled_bytes for u in usages)
        name = f"{source} {function}"
        lines.append(f"{name:<48}{architecture:<8}{len(usages):>7}{most[0]:>11}{most[1]:>9}{spilled:>9}")
    return lines


def ask_for_all() -> dict[Unit, dict[str, int]]:
    """What is compiled for the samples: dynamic shared memory by function, by unit."""
    asked: dict[Unit, dict[str, int]] = {}
    for architecture in ARCHITECTURES:
        library = RecordingLibrary(architecture)
        record_decoders(library)
        record_encoders(library)
        asked |= library.shared_bytes
    return asked


def main(sources: list[str]) -> int:
    """The exit status. sources: compile these files alone."""
    asked = ask_for_all()
    unused = {path.name for path in source_dir().glob("*.cu")} - {unit.source for unit in asked}
    wanted = [unit for unit in asked if unit.source in sources or not sources]
    with ThreadPoolExecutor(num_usable_cores()) as threads:
        outcomes = list(threads.map(lambda unit: compile_unit(unit, asked[unit]), wanted))
    print("\n".join(table(outcomes)))
    failed = [outcome for outcome in outcomes if outcome.complaints]
    for outcome in failed:
        unit, defines = outcome.unit, " ".join(f"{name}={value}" for name, value in outcome.unit.defines)
        print(f"\n{unit.source} for {unit.architecture} with {defines}:", *outcome.complaints, sep="\n  ")
    if unused:
        print(f"\nno sample asks for {', '.join(sorted(unused))}")
    print(f"\n{len(outcomes)} compiled, {len(failed)} of them with complaints")
    return 1 if failed or unused or not outcomes else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
