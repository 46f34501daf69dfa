"""The messages that cross between the server and the engine. Frozen, and free of torch: a server process imports only this."""

import enum
from typing import Literal

import msgspec

MAX_STOP_IDS = (
    64  # stop token ids of one request, the model's own among them; more are refused where they enter
)


# What a model does. An encoder's answer to one input of n tokens, float32:
# embed [dim], classify [labels], token_classify [n, labels] and fill_mask [masks, vocab], the last three as logits.
Task = Literal["generate", "embed", "classify", "token_classify", "fill_mask"]


class Finish(enum.IntEnum):
    """Why a request ended; RUNNING while it has not."""

    RUNNING = 0
    STOP = 1  # a stop token (the emitted token is that token)
    LENGTH = 2  # max_tokens, or the context is full
    ABORT = 3  # the engine was told to stop it
    ERROR = 4  # this request failed; the others go on


class SamplingParams(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one request picks its tokens. Values are validated where they enter (the HTTP schema, `LLM.generate`)."""

    max_tokens: int = 16
    min_tokens: int = 0  # stop tokens are masked until this many were generated
    temperature: float = 1.0  # 0 is greedy
    top_k: int = 0  # 0 is off
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0  # over prompt and output, multiplicative (CTRL, arXiv 1909.05858)
    presence_penalty: float = 0.0  # over output
    frequency_penalty: float = 0.0  # over output, times the count
    logit_bias: dict[int, float] = {}
    allowed_token_ids: tuple[int, ...] = ()  # empty: all are allowed
    banned_token_ids: tuple[int, ...] = ()
    stop_token_ids: tuple[int, ...] = ()  # already with the model's end-of-sequence ids, unless ignore_eos
    seed: int = 0  # the server draws one when the user gave none
    logprobs: int | None = None  # None: none; 0: the sampled token's; k: and the k most likely
    prompt_logprobs: int | None = None


class Submit(msgspec.Struct, frozen=True, kw_only=True, tag="submit", omit_defaults=True):
    """A request enters. `prompt` is its token ids."""

    id: int  # unique among all the engine's clients
    prompt: tuple[int, ...]
    sampling: SamplingParams
    priority: int = 0  # lower runs sooner
    cache_salt: str = ""  # requests share cached prefixes only under the same salt
    arrived: float = 0.0  # time.time() at the server
    owner: str = ""  # the name of the key it came with: owners get equal shares of the engine


class Encode(msgspec.Struct, frozen=True, kw_only=True, tag="encode", omit_defaults=True):
    """A request to an encoder enters: one input, read whole in one step."""

    id: int  # unique among all the engine's clients
    token_ids: tuple[int, ...]  # special tokens among them
    type_ids: tuple[int, ...] = ()  # the segment of each token; empty: all 0
    priority: int = 0  # lower runs sooner
    arrived: float = 0.0  # time.time() at the server
    owner: str = ""  # the name of the key it came with: owners get equal shares of the engine


class Abort(msgspec.Struct, frozen=True, kw_only=True, tag="abort"):
    """Requests leave, at whatever stage they are. Ids that already ended are ignored."""

    ids: tuple[int, ...]
    cause: str  # disconnect | timeout | stop_string | shutdown | client_gone


class ClientGone(msgspec.Struct, frozen=True, kw_only=True, tag="client_gone"):
    """A server process died: all its requests leave. Sent by the supervisor."""

    client: int


class Rejected(msgspec.Struct, frozen=True, kw_only=True):
    """The bounded queue is full. `retry_after` seconds is from the measured drain."""

    id: int
    reason: str  # queue_requests | queue_tokens | queue_seconds | draining
    retry_after: float


class Started(msgspec.Struct, frozen=True, kw_only=True):
    """The request got a row for the first time."""

    id: int
    num_cached: int  # prompt tokens whose keys and values were found in the prefix cache
    queued: float  # seconds from reaching the engine to getting a row


class TokenLogprobs(msgspec.Struct, frozen=True, array_like=True):
    """Log probabilities (natural log, of the model's own distribution: before temperature, penalties and masks)."""

    token_id: int
    logprob: float
    rank: int  # 1 is the most likely
    top_ids: tuple[int, ...]
    top_logprobs: tuple[float, ...]


class Emit(msgspec.Struct, frozen=True, kw_only=True, tag="emit", omit_defaults=True):
    """What one step did for one client's requests: parallel arrays, little-endian, one entry a token."""

    step: int
    ids: bytes = b""  # int64 [n]
    tokens: bytes = b""  # int32 [n]
    finishes: bytes = b""  # uint8 [n], Finish
    logprobs: dict[int, TokenLogprobs] = {}  # by place in the arrays
    prompt_logprobs: dict[
        int, tuple[TokenLogprobs, ...]
    ] = {}  # by request id; a chunk's tokens, in prompt order, the first token of the prompt left out
    accepted: tuple[int, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    started: tuple[Started, ...] = ()
    failed: dict[int, str] = {}  # by request id; ended with Finish.ERROR, and why
    encoded: dict[
        int, bytes
    ] = {}  # by request id, of an encoder's requests, which end with it: float32, little-endian


class Status(msgspec.Struct, frozen=True, kw_only=True, tag="status"):
    """The engine's heart-beat, sent by a thread of its own every half second and when anything here changes kind."""

    epoch: int  # which life of the engine this is; a restart raises it
    state: str  # loading | ready | draining
    step: int  # steps done
    num_running: int
    num_waiting: int
    kv_usage: float  # 0 to 1


class LoadPhase(msgspec.Struct, frozen=True, kw_only=True, tag="phase"):
    """A phase of the engine's start is over; EngineInfo has them all."""

    name: str
    seconds: float


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True, tag="info"):
    """What the engine settled on once it had loaded; sent before its first Status in state ready."""

    epoch: int
    max_model_len: int
    max_requests: int
    kv_tokens: int
    block_size: int
    dtype: str
    device: str
    phases: dict[str, float]  # start-up phase: seconds
    memory: dict[str, int]  # what: bytes
    task: Task = "generate"


ToEngine = Submit | Encode | Abort | ClientGone
FromEngine = Emit | Status | LoadPhase | EngineInfo
