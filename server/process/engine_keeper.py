"""Keeps the engine's process alive and listens to its heart-beat."""

import asyncio
from collections.abc import Callable
from dataclasses import replace

import msgspec

from engine import wire
from engine.client.link import Link
from engine.config import EngineConfig
from engine.process.load import RunnerFactory
from engine.process.process import Place, run_engine
from engine.request import ClientGone, EngineInfo, FromEngine, LoadPhase, Status
from server.process.child import Child
from server.process.control import EngineDown, EngineUnloading, EngineUp, ToWorker
from server.process.keeper import Keeper
from server.process.vigil import TICK_SECONDS, Vigil


class EngineKeeper(Keeper):
    """Each start is a new epoch. `tell` reaches the server processes, `on_ready` is called once an epoch.

    An engine that hangs is killed, and so started again.
    """

    def __init__(
        self,
        config: EngineConfig,
        place: Place,
        factory: RunnerFactory | None,
        tell: Callable[[ToWorker], None],
        on_phase: Callable[[str, float], None],
        on_ready: Callable[[EngineInfo], None],
        vigil: Vigil,
    ) -> None:
        super().__init__("the engine", place.directory)
        self._config = config
        self._place = place
        self._factory = factory
        self._tell = tell
        self._on_phase = on_phase
        self._on_ready = on_ready
        self._vigil = vigil
        self._next_look: asyncio.TimerHandle | None = None
        self._epoch = place.epoch - 1
        self._info: EngineInfo | None = None
        self._cut_off: asyncio.TimerHandle | None = None  # of an engine that takes too long to end
        self._decode = msgspec.msgpack.Decoder(FromEngine).decode
        self._link = Link(place.endpoint, wire.SUPERVISOR, lambda payload: None, self._on_status)

    @property
    def epoch(self) -> int:
        """The life that runs now; 0 when there is none."""
        return self._epoch if self._link.is_open else 0

    def spawn(self) -> Child:
        self._keep_on()
        self._epoch += 1
        place = replace(self._place, epoch=self._epoch)
        child = Child("engine", run_engine, (self._config, place, self._factory))
        self._link.open(self._epoch)
        self._tell(EngineUp(self._epoch))
        self._vigil.begin()
        self._look_again()
        return child

    def on_death(self, cause: str) -> None:
        self._keep_on()
        self._look_away()
        self._link.shut()
        self._tell(EngineDown(cause))

    def terminate(self) -> None:
        """One that was told to end may be silent: whoever told it waits for as long as they like."""
        self._look_away()
        super().terminate()

    def unload(self, seconds: float) -> bool:
        """Frees the model's memory once what runs has ended; what still runs after so long is cut off.

        False: it was unloaded before.
        """
        if self.is_paused:
            return False
        self.pause()
        self._tell(EngineUnloading())
        self.terminate()
        self._keep_on()  # an unload before this one, whose engine a load waits for
        self._cut_off = asyncio.get_running_loop().call_later(seconds, self.kill)
        return True

    def load(self) -> bool:
        """Starts the engine again, once the one that was unloaded has ended. False: it was not unloaded."""
        was_unloaded = self.is_paused
        self.resume()
        return was_unloaded

    def abort_all_of(self, client: int) -> None:
        """A server process died: nobody reads its requests."""
        self._link.send(msgspec.msgpack.encode(ClientGone(client=client)))

    def close(self) -> None:
        self._link.close()

    def _keep_on(self) -> None:
        if self._cut_off is not None:
            self._cut_off.cancel()
            self._cut_off = None

    def _look_again(self) -> None:
        self._next_look = asyncio.get_running_loop().call_later(TICK_SECONDS, self._look)

    def _look_away(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()

    def _look(self) -> None:
        verdict = self._vigil.tick()
        if verdict:
            self.condemn(verdict)
        else:
            self._look_again()

    def _on_status(self, payload: bytes) -> None:
        message = self._decode(payload)
        self._vigil.hear(message)
        match message:
            case LoadPhase(name=name, seconds=seconds):
                self._on_phase(name, seconds)
            case EngineInfo() as info:
                self._info = info
            case Status(state="ready") if not self.works and self._info is not None:
                self.works = True
                self._on_ready(self._info)
            case _:
                return
