"""The servers that are compared, and how each is started so that it gives its best."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from benchmarks.machine import usable_cores

SLOT_TOKENS = 256  # room for one prompt and its answer


@dataclass(frozen=True, slots=True)
class Peer:
    """One server in one configuration."""

    name: str
    command: tuple[str, ...]
    port: int
    model: str = ""  # as requests name it; "": the first it lists
    ignores_eos: bool = True  # it knows `ignore_eos`; the others get a model that never ends
    environment: Mapping[str, str] = field(default_factory=dict)
    probe: Literal["completions", "embeddings"] = "completions"  # what shows that it answers
    key: str = ""  # that it asks for

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


def tokenloom(dtype: str, model: Path, port: int) -> Peer:
    """This server, as it is in this tree."""
    flags = ("--port", str(port), "--device", "cpu", "--dtype", dtype)
    command = (sys.executable, "-m", "server", "serve", str(model), *flags)
    return Peer(f"tokenloom {dtype}", command, port)


def llama_server(binary: Path, model: Path, port: int, num_slots: int) -> Peer:
    """llama.cpp's server on the GGUF as it is, with a slot for each concurrent request."""
    cores = str(usable_cores())
    limits = ("-np", str(num_slots), "-c", str(num_slots * SLOT_TOKENS))
    place = ("--host", "127.0.0.1", "--port", str(port))
    command = (str(binary), "-m", str(model), "-t", cores, "-tb", cores, *limits, *place)
    return Peer(f"llama-server {model.stem.rpartition('.')[2]}", command, port)


def transformers_serve(binary: Path, folder: Path, dtype: str, port: int, cache: Path) -> Peer:
    """transformers' own server, batching continuously; its default cache would take most of the memory."""
    sizes = ("--cb-block-size", "32", "--cb-num-blocks", "512", "--cb-max-batch-tokens", "512")
    flags = ("--device", "cpu", "--dtype", dtype, "--port", str(port), "--continuous-batching", *sizes)
    environment = {"OMP_NUM_THREADS": str(usable_cores()), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(cache)}
    command = (str(binary), "serve", str(folder), *flags)
    return Peer(f"transformers serve {dtype}", command, port, str(folder), False, environment)


def vllm_cpu(binary: Path, folder: Path, dtype: str, port: int, num_slots: int) -> Peer:
    """vLLM's CPU build, bound to all cores: its own choice leaves one idle."""
    cores = usable_cores()
    flags = (
        "--dtype",
        dtype,
        "--max-model-len",
        "2048",
        "--max-num-seqs",
        str(num_slots),
        "--port",
        str(port),
    )
    environment = {
        "VLLM_CPU_KVCACHE_SPACE": "2",
        "VLLM_CPU_OMP_THREADS_BIND": f"0-{cores - 1}",
        "OMP_NUM_THREADS": str(cores),
        "HF_HUB_OFFLINE": "1",
    }
    return Peer(
        f"vLLM CPU {dtype}", (str(binary), "serve", str(folder), *flags), port, str(folder), True, environment
    )


def full_environment(peer: Peer) -> dict[str, str]:
    """The caller's own, without thread counts meant for something else."""
    own = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return own | dict(peer.environment)
