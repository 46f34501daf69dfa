"""An engine's process, to be started and ended by a test."""

import multiprocessing
from functools import partial
from multiprocessing.context import SpawnProcess
from pathlib import Path

from engine.client.client import EngineClient
from engine.config import EngineConfig
from engine.process.load import RunnerFactory
from engine.process.process import Place, run_engine
from tests.engine.engine_end import until
from tests.engine.scripted_encoder import load_scripted_encoder
from tests.engine.scripted_runner import load_scripted

CONFIG = EngineConfig(max_model_len=2048, max_requests=8, max_batch_tokens=64, kv_tokens=8192, threads=1)
START_SECONDS = 20.0  # of a process, on a busy machine


class Life:
    """One deployment's engine, life after life."""

    def __init__(self, directory: Path) -> None:
        self.endpoint = f"ipc://{directory}/engine"
        self.directory = directory
        self.processes: list[SpawnProcess] = []

    def start(
        self, epoch: int = 1, step_seconds: float = 0.001, config: EngineConfig = CONFIG
    ) -> SpawnProcess:
        """A decoder."""
        return self._start(epoch, config, partial(load_scripted, step_seconds=step_seconds))

    def start_encoder(self, epoch: int = 1, step_seconds: float = 0.001) -> SpawnProcess:
        return self._start(epoch, CONFIG, partial(load_scripted_encoder, step_seconds=step_seconds))

    def _start(self, epoch: int, config: EngineConfig, factory: RunnerFactory) -> SpawnProcess:
        place = Place(self.endpoint, epoch, self.directory)
        process = multiprocessing.get_context("spawn").Process(
            target=run_engine, args=(config, place, factory)
        )
        process.start()
        self.processes.append(process)
        return process

    def close(self) -> None:
        for process in self.processes:
            process.kill()
            process.join()
            process.close()


async def is_ready(client: EngineClient) -> None:
    await until(lambda: client.state == "ready", START_SECONDS)
