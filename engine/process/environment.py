"""What a child process sets before anything heavy is imported, and how it ends when its parent is gone."""

import contextlib
import io
import multiprocessing
import os
import shutil
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from engine.process import metric_files

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

NO_METRICS = "warning: {directory} has no room for this process's metrics, which go uncounted: {error}"


def share_metrics(directory: Path) -> None:
    """Metrics of this process go to files in `directory`, where any process can add all of them up.

    prometheus_client looks at the variable once, when it is imported: call this before.
    """
    if "prometheus_client" in sys.modules:
        raise RuntimeError("prometheus_client was imported before its directory was set")
    try:
        metric_files.reserve(directory)
    except OSError as error:
        print(NO_METRICS.format(directory=directory, error=error), file=sys.stderr, flush=True)
    else:
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(directory)


def set_threads(num_threads: int) -> None:
    """Threads of OpenMP and BLAS; 0: one a usable core. They read this when torch and numpy are imported."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    count = str(num_threads or usable)
    os.environ["OMP_NUM_THREADS"] = count
    os.environ["MKL_NUM_THREADS"] = count
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # numpy multiplies nothing here
    share_cores()


def share_cores() -> None:
    """A thread of a step that waits for the others gives its core away soon. To be called before torch is imported.

    With libgomp's own count of turns it keeps the core until its time slice ends, and beside another busy process every
    operation of a step waits for that.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")


def ignore_interrupts() -> None:
    """Ctrl-C reaches the whole process group; only the supervisor answers it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


class Sink(io.FileIO):
    """A descriptor to write to that never fails: what cannot be written is dropped."""

    def write(self, data: "ReadableBuffer", /) -> int:
        num_bytes = len(memoryview(data).cast("B"))
        try:
            return super().write(data) or num_bytes
        except OSError:
            return num_bytes


def outlive_output() -> None:
    """What is printed to a full disk or a closed pipe is lost, and nothing but that."""
    sys.stdout, sys.stderr = _unfailing(sys.stdout), _unfailing(sys.stderr)


def _unfailing(stream: TextIO) -> TextIO:
    with contextlib.suppress(OSError):  # of what was printed before, as of all that will be
        stream.flush()
    sink = io.BufferedWriter(Sink(stream.fileno(), "wb", closefd=False))
    return io.TextIOWrapper(sink, stream.encoding, "backslashreplace", line_buffering=True)


def name_process(name: str) -> None:
    """What ps and top show (15 characters), where the system has a file for that."""
    comm = Path("/proc/self/comm")
    if comm.exists():
        comm.write_text(name[:15])


def parent_sentinel() -> int | None:
    """A descriptor that turns readable when the parent is gone; None in a process that was not spawned."""
    parent = multiprocessing.parent_process()
    return None if parent is None else parent.sentinel


def exit_orphaned(directory: Path) -> None:
    """The parent died without cleaning up: do it for it, and end at once."""
    shutil.rmtree(directory, ignore_errors=True)
    os._exit(1)
