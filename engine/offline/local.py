"""An engine in this process, whose one client is the caller."""

from collections.abc import Callable, Sequence
from typing import Protocol

from engine.config import EngineConfig
from engine.loop.loop import Engine
from engine.loop.observer import SilentObserver
from engine.offline.interrupts import HeldInterrupts
from engine.process.environment import share_cores
from engine.process.load import ModelRefused, load_model, make_engine
from engine.request import Abort, Emit, Encode, Submit
from engine.startup import StartupReport

_CLIENT = 0


class Reader(Protocol):
    """Who reads what becomes of the requests of one call."""

    def on_emit(self, emit: Emit) -> None: ...

    def abort_rest(self, cause: str) -> Abort:
        """What ends those that have not ended."""
        ...


class LocalEngine:
    """Computes one call after the other."""

    def __init__(self, config: EngineConfig) -> None:
        """Raises ValueError for settings or a model that cannot be used."""
        self._publish: Callable[[Emit], None] = _discard
        self._is_closed = False
        share_cores()
        try:
            loaded = load_model(config, StartupReport())
            self.engine = make_engine(loaded, lambda client, emit: self._publish(emit), SilentObserver())
        except ModelRefused as error:
            raise ValueError(str(error)) from error
        self.max_model_len = loaded.max_model_len

    def run(
        self,
        messages: Sequence[Submit] | Sequence[Encode],
        reader: Reader,
        after_step: Callable[[], None],
        step_tokens: int | None = None,
    ) -> None:
        """Computes until all have ended; interrupted, between two steps, it leaves the engine empty.

        step_tokens: a decoder reads prompts while a step has no more; None: as many as the settings let it have.
        Raises RuntimeError once it is closed.
        """
        if self._is_closed:
            raise RuntimeError("this model was closed; nothing can be computed with it")
        self._publish = reader.on_emit
        with HeldInterrupts() as interrupts:
            try:
                for message in messages:
                    self.engine.submit(message, _CLIENT)
                while self.engine.has_work:
                    self._step(step_tokens)
                    after_step()
                    interrupts.let_through()
            finally:
                self._empty(reader.abort_rest("shutdown"))

    def close(self) -> None:
        """Free the model's memory and threads."""
        self._is_closed = True
        self.engine.close()

    def _step(self, step_tokens: int | None) -> None:
        if isinstance(self.engine, Engine):
            self.engine.step(step_tokens)
        else:
            self.engine.step()

    def _empty(self, abort: Abort) -> None:
        self.engine.abort(abort)
        while self.engine.has_work:
            self.engine.step()
        self._publish = _discard


def _discard(emit: Emit) -> None:
    """What the engine still says of requests that nobody waits for."""
