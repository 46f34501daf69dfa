"""An engine on a CountingRunner, and clients that keep what they are told."""

from dataclasses import dataclass, field

import numpy as np

from engine.config import EngineConfig
from engine.loop.encoder_loop import EncoderEngine
from engine.loop.loop import Engine
from engine.request import Emit, Finish, Rejected, SamplingParams, Started, Submit, TokenLogprobs
from engine.step import Launch, Runner
from tests.engine.counting_runner import VOCAB, CountingRunner, answer

MAX_MODEL_LEN = 40


class Clients:
    """Takes what the engine publishes, and counts what it observes."""

    def __init__(self) -> None:
        self.emits: list[tuple[int, Emit]] = []
        self.tokens: dict[int, list[int]] = {}
        self.finishes: dict[int, Finish] = {}
        self.client_of: dict[int, int] = {}
        self.logprobs: dict[int, list[TokenLogprobs]] = {}
        self.prompt_logprobs: dict[int, list[TokenLogprobs]] = {}
        self.accepted: list[int] = []
        self.rejected: list[Rejected] = []
        self.started: list[Started] = []
        self.failed: dict[int, str] = {}
        self.steps: list[tuple[int, int, float, float]] = []
        self.launches: list[tuple[Launch, int]] = []
        self.num_preempted = 0
        self.prefixes: list[tuple[int, int]] = []
        self.aborted: list[str] = []
        self.refused: list[str] = []

    def publish(self, client: int, emit: Emit) -> None:
        self.emits.append((client, emit))
        ids = np.frombuffer(emit.ids, "<i8").tolist()
        tokens = np.frombuffer(emit.tokens, "<i4").tolist()
        for place, (request_id, token, finish) in enumerate(zip(ids, tokens, emit.finishes, strict=True)):
            assert request_id not in self.finishes, "a token after the end"
            assert self.client_of[request_id] == client
            self.tokens.setdefault(request_id, []).append(token)
            if finish:
                self.finishes[request_id] = Finish(finish)
            if place in emit.logprobs:
                self.logprobs.setdefault(request_id, []).append(emit.logprobs[place])
        for request_id, entries in emit.prompt_logprobs.items():
            self.prompt_logprobs.setdefault(request_id, []).extend(entries)
        self.accepted.extend(emit.accepted)
        self.rejected.extend(emit.rejected)
        self.started.extend(emit.started)
        self.failed.update(emit.failed)

    def on_step(self, num_tokens: int, num_rows: int, seconds: float, host_gap: float) -> None:
        self.steps.append((num_tokens, num_rows, seconds, host_gap))

    def on_launch(self, launch: Launch, num_moves: int) -> None:
        self.launches.append((launch, num_moves))

    def on_preempted(self) -> None:
        self.num_preempted += 1

    def on_prefix(self, queried: int, hit: int) -> None:
        self.prefixes.append((queried, hit))

    def on_aborted(self, cause: str) -> None:
        self.aborted.append(cause)

    def on_rejected(self, reason: str) -> None:
        self.refused.append(reason)


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def run_out(engine: Engine | EncoderEngine, max_steps: int = 2000) -> None:
    """Steps until there is nothing left to do."""
    for _ in range(max_steps):
        if not engine.has_work:
            break
        engine.step()
    assert not engine.has_work, f"still at work after {max_steps} steps"


def check_rest(engine: Engine | EncoderEngine) -> None:
    """Nobody is left, and the engine's own books are in order."""
    engine.idle()
    assert engine.num_running == engine.num_waiting == 0


@dataclass
class Bench:
    """An engine on a CountingRunner."""

    config: EngineConfig
    num_blocks: int = 64
    max_model_len: int = MAX_MODEL_LEN
    failing_token: int = -1
    clients: Clients = field(default_factory=Clients)
    clock: Clock = field(default_factory=Clock)

    def __post_init__(self) -> None:
        config = self.config
        self.runner = CountingRunner(
            self.num_blocks,
            config.block_size,
            config.max_requests,
            config.max_batch_tokens,
            self.max_model_len,
            self.failing_token,
        )
        self.use(self.runner)

    def use(self, runner: Runner) -> None:
        """A new engine on this runner."""
        self.engine = Engine(
            self.config, runner, self.max_model_len, self.clients.publish, self.clients, self.clock
        )

    def submit(self, message: Submit, client: int = 0) -> None:
        self.clients.client_of[message.id] = client
        self.engine.submit(message, client)

    def run(self, max_steps: int = 2000) -> None:
        run_out(self.engine, max_steps)
        self.check_empty()

    def check_empty(self) -> None:
        check_rest(self.engine)
        assert self.engine.kv_usage == 0
        assert not self.runner.rows
        assert self.runner.num_unread == 0

    def check_answer(self, message: Submit) -> None:
        expected, finish = answer(message.prompt, message.sampling, self.max_model_len)
        assert self.clients.tokens[message.id] == expected
        assert self.clients.finishes[message.id] is finish


def small(
    max_requests: int = 4,
    max_batch_tokens: int = 8,
    block_size: int = 4,
    prefix_cache: bool = True,
    max_queued_requests: int = 100,
    max_queued_tokens: int = 10_000,
) -> EngineConfig:
    return EngineConfig(
        max_requests=max_requests,
        max_batch_tokens=max_batch_tokens,
        block_size=block_size,
        prefix_cache=prefix_cache,
        max_queued_requests=max_queued_requests,
        max_queued_tokens=max_queued_tokens,
    )


def ask(request_id: int, num_prompt: int = 6, max_tokens: int = 5, first: int | None = None) -> Submit:
    """`first` the same: prompts that begin alike."""
    start = request_id if first is None else first
    prompt = tuple((start * 7 + i) % VOCAB for i in range(num_prompt))
    return Submit(id=request_id, prompt=prompt, sampling=SamplingParams(max_tokens=max_tokens), arrived=1.0)
