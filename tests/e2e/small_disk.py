"""A small disk of a deployment's own, and filling it."""

import shutil
import subprocess
from pathlib import Path

ROOM = 16 << 20  # bytes
MOUNT = f'mount -t tmpfs -o size={ROOM} full "$TMPDIR" && exec "$@"'
WITHIN = ("unshare", "-rm", "sh", "-c", MOUNT, "sh")  # what a command is to be run by


def may_mount() -> bool:
    """Whether this user gets a mount namespace of their own, in which the disk lies."""
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "mount", "-t", "tmpfs", "full", "/mnt"]
    return subprocess.run(probe, capture_output=True).returncode == 0


def fill(process_id: int, directory: Path) -> int:
    """Leaves no byte of the disk that a process has at `directory`; returns how many there were."""
    with Path(f"/proc/{process_id}/root{directory}/filler").open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(bytes(size)) == size:
                    continue
            except OSError:
                continue
        return file.tell()
