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


def tokenloom(dtype: str, model: Path, port: int, device: str = "cpu") -> Peer:
    """This server, as it is in this tree."""
    flags = ("--port", str(port), "--device", device, "--dtype", dtype)
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


def vllm_on_gpu(packages: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """vLLM's OpenAI-compatible server whose packages lie in a folder of their own: its program and environment."""
    program = (sys.executable, "-m", "vllm.entrypoints.openai.api_server")
    environment = {
        "PYTHONPATH": str(packages.resolve()),
        "PYTHONSAFEPATH": "1",  # this folder is not on its path
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_USE_FLASHINFER_SAMPLER": "0",  # it would be compiled, by a compiler that is seldom there
    }
    return program, environment


def vllm_pooling(packages: Path, model: Path, dtype: str, port: int) -> Peer:
    """vLLM's server of encoders."""
    program, environment = vllm_on_gpu(packages)
    kind = ("--model", str(model), "--runner", "pooling", "--dtype", dtype)
    quiet = ("--disable-log-stats", "--disable-uvicorn-access-log", "--port", str(port))
    return Peer(
        f"vLLM {dtype}",
        (*program, *kind, *quiet),
        port,
        environment=environment,
        probe="embeddings",
    )


def full_environment(peer: Peer) -> dict[str, str]:
    """The caller's own, without thread counts meant for something else."""
    own = {name: value for name, value in os.environ.items() if not name.endswith("_NUM_THREADS")}
    return own | dict(peer.environment)
