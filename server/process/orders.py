"""An administrator's commands in the supervisor: carried from the process that was asked to all that obey."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import count

from server.admin.commands import (
    Command,
    EndCalls,
    ForWorkers,
    ListCalls,
    LoadModel,
    Outcome,
    ReloadKeys,
    SetLogLevel,
    StartDrain,
    UnloadModel,
    UseKeys,
)
from server.auth.key_file import KeyFileError, keys_of
from server.config import ServerConfig
from server.process.control import Answer, Ask, Done, Gone, Order
from server.process.engine_keeper import EngineKeeper
from server.process.worker_keeper import Common, WorkerKeeper


@dataclass(slots=True)
class _Open:
    """An order that somebody has not done yet."""

    answer: Callable[[tuple[Outcome, ...]], None]
    waits_for: set[WorkerKeeper]
    outcomes: list[Outcome] = field(default_factory=list)


class Orders:
    """`workers` may be filled after this is made; nothing is ordered before they run."""

    def __init__(
        self,
        config: ServerConfig,
        common: Common,
        workers: Sequence[WorkerKeeper],
        engine: EngineKeeper,
        on_drain: Callable[[], None],
    ) -> None:
        self._config = config
        self._common = common
        self._workers = workers
        self._engine = engine
        self._on_drain = on_drain
        self._numbers = count(1)
        self._open: dict[int, _Open] = {}

    def on_word(self, worker: WorkerKeeper, word: Ask | Done | Gone) -> None:
        match word:
            case Ask(number, command):
                self._on_ask(worker, number, command)
            case Done(number, outcome):
                self._on_done(worker, number, outcome)
            case Gone():
                for number, order in list(self._open.items()):
                    order.waits_for.discard(worker)
                    self._close_if_done(number, order)

    def reload_keys(self, answer: Callable[[tuple[Outcome, ...]], None]) -> None:
        """The keys stay as they were if the new ones cannot be used."""
        try:
            keys = keys_of(self._config)
        except KeyFileError as error:
            answer((Outcome(refusal=str(error)),))
            return
        self._common.keys = keys
        self._spread(UseKeys(keys), answer)

    def _on_ask(self, worker: WorkerKeeper, number: int, command: Command) -> None:
        def answer(outcomes: tuple[Outcome, ...]) -> None:
            worker.tell(Answer(number, outcomes))

        match command:
            case StartDrain():
                answer((Outcome(),))
                self._on_drain()
            case UnloadModel():
                answer((Outcome(int(self._engine.unload(self._config.drain_seconds))),))
            case LoadModel():
                answer((Outcome(int(self._engine.load())),))
            case ReloadKeys():
                self.reload_keys(answer)
            case SetLogLevel(level):
                self._common.log_level = level
                self._spread(command, answer)
            case EndCalls() | ListCalls() | UseKeys():
                self._spread(command, answer)

    def _spread(self, command: ForWorkers, answer: Callable[[tuple[Outcome, ...]], None]) -> None:
        number = next(self._numbers)
        order = self._open[number] = _Open(answer, {worker for worker in self._workers if worker.works})
        for worker in self._workers:  # those that start now read it once they are there
            worker.tell(Order(number, command))
        self._close_if_done(number, order)

    def _on_done(self, worker: WorkerKeeper, number: int, outcome: Outcome) -> None:
        order = self._open.get(number)
        if order is not None and worker in order.waits_for:
            order.waits_for.remove(worker)
            order.outcomes.append(outcome)
            self._close_if_done(number, order)

    def _close_if_done(self, number: int, order: _Open) -> None:
        if not order.waits_for:
            del self._open[number]
            order.answer(tuple(order.outcomes))
