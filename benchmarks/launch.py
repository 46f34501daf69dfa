"""Starts a server for a benchmark, waits until it answers, and ends it and all its processes."""

import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from benchmarks.peers import Peer, full_environment

READY_SECONDS = 300.0
CLOSE_SECONDS = 20.0


class StartFailed(Exception):
    """The server ended, or never answered; the message holds the end of its log."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers."""

    process: psutil.Process
    first_token_seconds: float  # from its start to the first token of its first answer

    def memory(self) -> int:
        """Bytes resident now, over all its processes; shared pages count once (PSS) where Linux tells."""
        return sum(_resident(process) for process in [self.process, *self.process.children(recursive=True)])


def _resident(process: psutil.Process) -> int:
    try:
        full = process.memory_full_info()
    except psutil.NoSuchProcess:  # it ended since it was listed
        return 0
    return int(full.pss) if hasattr(full, "pss") else int(full.rss)


@contextmanager
def running(peer: Peer, log: Path) -> Iterator[Running]:
    """It ends with this program, also where SIGTERM ends that. Raises StartFailed."""
    if _is_taken(peer.port):
        raise StartFailed(f"{peer.name} cannot have port {peer.port}: another program serves there; end that")
    began = time.perf_counter()
    with _sigterm_unwinds(), log.open("wb") as output:
        child = subprocess.Popen(
            peer.command,
            env=full_environment(peer),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        process = psutil.Process(child.pid)
        try:
            _wait_for_answer(peer, child, log, began)
            yield Running(process, time.perf_counter() - began)
        finally:
            _end(process, child)


def _is_taken(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def _sigterm_unwinds() -> Iterator[None]:
    """SIGTERM raises SystemExit, so that what was started is ended; threads beside the main one get no signals."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, lambda signum, frame: sys.exit(128 + signum))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _wait_for_answer(peer: Peer, child: "subprocess.Popen[bytes]", log: Path, began: float) -> None:
    headers = {"Authorization": f"Bearer {peer.key}"} if peer.key else {}
    with httpx.Client(base_url=peer.url, headers=headers, timeout=60.0) as client:
        while time.perf_counter() - began < READY_SECONDS:
            if child.poll() is not None:
                break
            if _answers(client, peer):
                return
            time.sleep(0.05)
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise StartFailed(
        f"{peer.name} does not answer (exit status {child.poll()}); the end of its log:\n{tail}"
    )


def _answers(client: httpx.Client, peer: Peer) -> bool:
    """Whether it computes: open ports and health routes come earlier in some servers."""
    try:
        model = peer.model or client.get("/v1/models").json()["data"][0]["id"]
        text = {"prompt": "The sky is", "max_tokens": 1} if peer.probe == "completions" else {"input": "Sky"}
        return client.post(f"/v1/{peer.probe}", json={"model": model, **text}).status_code == 200
    except (httpx.HTTPError, ValueError, LookupError, TypeError):  # not up yet, or up and not ready
        return False


def _end(process: psutil.Process, child: "subprocess.Popen[bytes]") -> None:
    children = process.children(recursive=True) if child.poll() is None else []
    child.terminate()
    try:
        child.wait(CLOSE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()
    _, alive = psutil.wait_procs(children, timeout=2)
    for left in alive:
        left.kill()
