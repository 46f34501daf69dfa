"""The files that the processes of a deployment count in, as prometheus_client names and reads them.

They are mapped into memory, and a page that the disk has no room for ends the process that writes it (SIGBUS). So their room is taken
before they are used.
"""

import os
import struct
from pathlib import Path

KINDS = ("counter", "histogram", "gauge_livemostrecent")  # of engine.metrics.family
RESERVED_BYTES = 1 << 19  # of a file: several times what is counted in it
USED = struct.Struct("i")  # how a file begins: the bytes of it that hold something


def reserve(directory: Path) -> None:
    """Room for this process's files. Raises OSError, and leaves nothing, where there is none."""
    paths = [directory / f"{kind}_{os.getpid()}.db" for kind in KINDS]
    new = [path for path in paths if not path.exists()]  # a dead process may have had this one's id
    try:
        for path in paths:
            _allocate(path)
    except OSError:
        for path in new:
            path.unlink(missing_ok=True)
        raise


def trim(directory: Path, pid: int) -> None:
    """A dead process counts no more: its files give back what they do not hold."""
    for path in directory.glob(f"*_{pid}.db"):
        with path.open("r+b") as file:
            head = file.read(USED.size)
            if len(head) == USED.size:
                file.truncate(max(USED.size, USED.unpack(head)[0]))


def _allocate(path: Path) -> None:
    with path.open("ab") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, RESERVED_BYTES)
        else:
            file.write(bytes(max(0, RESERVED_BYTES - file.tell())))
