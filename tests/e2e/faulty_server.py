"""`tokenloom serve` whose engine breaks when it gets a signal, and whose model has a token that it cannot compute."""

import json
import signal
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType

from engine.config import EngineConfig
from engine.process.load import Loaded, load_model
from engine.startup import StartupReport
from engine.step import Pending, Plan, Runner, StepResult
from server.config import Config, ServerConfig
from server.process.supervisor import serve
from tests.engine.scripted_runner import load_scripted

DEVICE_FAULT, NO_MEMORY = signal.SIGUSR1, signal.SIGUSR2
SLOW, SLOW_SECONDS = signal.SIGWINCH, 0.5  # no fault: from then on each step takes so long
POISON = 16  # no text has this token
SCRIPTED = {
    "max_model_len": 2048,
    "max_requests": 16,
    "max_batch_tokens": 64,
    "kv_tokens": 32768,
    "threads": 1,
}
Load = Callable[[EngineConfig, StartupReport], Loaded]

FAULTS: dict[int, Callable[[], Exception]] = {
    # What torch raises is an heir of this; the server processes load this file too, and no torch.
    DEVICE_FAULT: lambda: RuntimeError("CUDA error: an illegal memory access was encountered"),
    NO_MEMORY: lambda: MemoryError("cannot allocate 2.00 GiB"),
}


class BreakableRunner:
    """A runner that a signal breaks, or slows down: memory is missed when a step is launched, a device's fault shows when it is read."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._broken_by = 0
        self._delay = 0.0
        for signum in (*FAULTS, SLOW):
            signal.signal(signum, self._on_signal)

    @property
    def num_blocks(self) -> int:
        return self._runner.num_blocks

    def launch(self, plan: Plan) -> Pending:
        self.fail_if(NO_MEMORY)
        time.sleep(self._delay)
        return Breakable(self, self._runner.launch(plan))

    def close(self) -> None:
        self._runner.close()

    def fail_if(self, signum: int) -> None:
        """Raises what a signal stands for, once it came."""
        if self._broken_by == signum:
            raise FAULTS[signum]()

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == SLOW:
            self._delay = SLOW_SECONDS
        else:
            self._broken_by = signum


@dataclass(frozen=True, slots=True)
class Breakable:
    """A launched step of such a runner."""

    runner: BreakableRunner
    pending: Pending

    def result(self) -> StepResult:
        self.runner.fail_if(DEVICE_FAULT)
        return self.pending.result()

    def done(self) -> bool:
        return self.pending.done()


def load_breakable(config: EngineConfig, report: StartupReport, load: Load) -> Loaded:
    """A runner factory."""
    loaded = load(config, report)
    return replace(loaded, runner=BreakableRunner(loaded.runner))


def load_poisoned(config: EngineConfig, report: StartupReport) -> Loaded:
    """A runner factory: the model itself, but for what it reads where POISON stands."""
    from engine.models.llama import Llama
    from engine.quantised import Quantised
    from engine.runner.runner import CpuRunner

    loaded = load_model(config, report)
    assert isinstance(loaded, Loaded) and isinstance(loaded.runner, CpuRunner)
    model = loaded.runner._model
    assert isinstance(model, Llama) and isinstance(model.embedding, Quantised)
    model.embedding.scales[POISON] = float("nan")  # a tied head has a copy of its own
    return loaded


def scripted_command(step_seconds: float, **server: object) -> list[str]:
    """What starts one with a runner that has no model, as a module and its arguments."""
    return faulty_command({"served_model_name": "scripted", **server}, SCRIPTED, step_seconds)


def faulty_command(
    server: Mapping[str, object], engine: Mapping[str, object], step_seconds: float = 0.0
) -> list[str]:
    """The same with the model that `engine` names."""
    settings = json.dumps({"server": {"port": 0, **server}, "engine": engine})
    return ["tests.e2e.faulty_server", settings, str(step_seconds)]


def main() -> int:
    """Arguments: the deployment as JSON, the seconds of a step of the runner that has no model; 0: a model."""
    settings = json.loads(sys.argv[1])
    step_seconds = float(sys.argv[2])
    load: Load = load_poisoned
    if step_seconds:
        load = partial(load_scripted, step_seconds=step_seconds)
    config = Config(ServerConfig(**settings["server"]), EngineConfig(**settings["engine"]))
    return serve(config, partial(load_breakable, load=load))


if __name__ == "__main__":
    sys.exit(main())
