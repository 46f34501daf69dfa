"""What an administrator may order, and what each process says it did."""

from dataclasses import dataclass

from server.auth.key import Key


@dataclass(frozen=True, slots=True)
class StartDrain:
    """As SIGTERM to the supervisor."""


@dataclass(frozen=True, slots=True)
class ReloadKeys:
    """As SIGHUP to the supervisor, which reads the key file."""


@dataclass(frozen=True, slots=True)
class UnloadModel:
    """The engine's process ends once what runs has ended."""


@dataclass(frozen=True, slots=True)
class LoadModel:
    """The engine's process is started."""


@dataclass(frozen=True, slots=True)
class EndCalls:
    """Requests with this id end, wherever they are."""

    request_id: str


@dataclass(frozen=True, slots=True)
class UseKeys:
    """From now on these are the keys."""

    keys: tuple[Key, ...]


@dataclass(frozen=True, slots=True)
class SetLogLevel:
    """The log of every server process; successors of those that die have it too."""

    level: str


@dataclass(frozen=True, slots=True)
class ListCalls:
    """What runs."""


@dataclass(frozen=True, slots=True)
class CallReport:
    """One running request. Never what was asked or answered."""

    key: str
    request_id: str
    age: float  # seconds
    num_prompt_tokens: int
    num_output_tokens: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of a command, in one process. `refusal` says in words why nothing did."""

    count: int = (
        0  # calls that were ended, keys that are in use, calls that run, engines that are started or ended
    )
    calls: tuple[CallReport, ...] = ()  # the oldest
    refusal: str = ""


ForSupervisor = StartDrain | ReloadKeys | UnloadModel | LoadModel
ForWorkers = EndCalls | UseKeys | SetLogLevel | ListCalls
Command = ForSupervisor | ForWorkers
