"""What every route is given: the engine's client, the model's text side, the settings."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from engine.checkpoint import EncoderConfig
from engine.client.client import Answer, State, Stream
from engine.request import Encode, EngineInfo, SamplingParams, Submit
from server.access_log import AccessLog
from server.admin.desk import AdminDesk
from server.auth.access import Access
from server.config import Config
from server.errors import ApiError, model_not_found, unavailable
from server.limits import Limits
from server.metrics.metrics import ServerMetrics
from server.text.encoder import Encoder
from server.text.input_encoder import InputEncoder
from server.text.input_tokenizer import InputTokenizer
from server.text.template import ChatTemplate
from server.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from server.tracing.tracer import RequestTracer  # an extra: there only if it was asked for

REASONS = {
    "starting": "the model is still being loaded",
    "draining": "the server is shutting down",
    "down": "the engine stopped and is being started again",
    "unloaded": "an administrator has unloaded the model",
}


class Client(Protocol):
    """What the routes need of `engine.client.EngineClient`."""

    @property
    def info(self) -> EngineInfo | None: ...

    @property
    def state(self) -> State: ...

    def next_id(self) -> int: ...

    def submit(self, submit: Submit) -> Stream: ...

    def encode(self, message: Encode) -> Answer: ...

    def healthy(self, progress_seconds: float) -> tuple[bool, str]: ...


@dataclass(frozen=True, slots=True)
class Reading:
    """What the routes of an encoder need beside the rest: what its answers mean, and how its texts are read."""

    config: EncoderConfig
    tokenizer: InputTokenizer
    inputs: InputEncoder


@dataclass(frozen=True, slots=True)
class AppContext:
    """Everything that lives as long as the server process."""

    config: Config
    client: Client
    tokenizer: Tokenizer
    encoder: Encoder
    template: ChatTemplate
    metrics: ServerMetrics
    model: str  # the name it is served by
    created: int  # when the server started, seconds since 1970
    version: str
    sampling: SamplingParams = SamplingParams()  # the model's own, for requests that do not say
    reading: Reading | None = None  # None: the model is a decoder
    access_log: AccessLog | None = None
    tracer: "RequestTracer | None" = None
    access: Access = field(default_factory=Access)  # open to everyone
    desk: AdminDesk | None = None  # None: there is nobody to pass an administrator's commands on

    def check_model(self, name: str | None) -> None:
        """Null is the served model. Raises ApiError (404) for any other."""
        if name is not None and name != self.model:
            raise model_not_found(name, self.model)

    def engine_info(self) -> EngineInfo:
        """Raises ApiError (503) unless the engine takes requests."""
        info = self.client.info
        if info is None or self.client.state != "ready":
            raise not_ready(self.client.state)
        return info

    def limits(self) -> Limits:
        """Raises ApiError (503) unless the engine takes requests; that counts as a rejection."""
        if self.client.state != "ready":
            self.metrics.rejected(self.client.state)
        info, engine = self.engine_info(), self.config.engine
        return Limits(
            max_model_len=info.max_model_len,
            vocab_size=self.tokenizer.vocab_size,
            max_logprobs=engine.max_logprobs,
            max_choices=engine.max_queued_inputs if self.reading else engine.max_queued_requests,
            has_priority=engine.policy == "priority",
            sampling=self.sampling,
        )


def not_ready(state: str, retry_after: float = 5.0) -> ApiError:
    """The engine takes no requests now."""
    return unavailable(REASONS.get(state, "the engine is not ready"), f"engine_{state}", retry_after)
