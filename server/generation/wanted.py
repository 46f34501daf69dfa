"""One HTTP request, ready for the engine. Made by `server.prepare`, carried out by `server.generate`."""

import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from engine.request import SamplingParams, Submit
from server.generation.sampling import seed_of_choice

WHOLE = 2**31  # an interval no answer reaches: it comes in one piece


@dataclass(frozen=True, slots=True)
class Prompt:
    """What is sent to the engine, and what an echo shows of it."""

    token_ids: tuple[int, ...]
    sampling: SamplingParams
    echo: str = ""
    offsets: tuple[int, ...] = ()  # where each token begins in `echo`; empty unless logprobs are echoed


@dataclass(frozen=True, slots=True)
class TextOptions:
    """How tokens become the text that is shown."""

    stop: tuple[str, ...] = ()
    include_stop: bool = False
    skip_special_tokens: bool = True
    user_stop_ids: frozenset[int] = frozenset()  # stop tokens the request named: reported as the reason
    interval: int = 1  # tokens that a piece of a stream holds, at least
    drops_output: bool = False  # only the prompt was asked for: the engine's one token is not shown


@dataclass(frozen=True, slots=True)
class Wanted:
    """Prompts and how often to answer each."""

    prompts: tuple[Prompt, ...]
    num_choices: int
    text: TextOptions
    priority: int = 0
    cache_salt: str = ""
    timeout: float | None = None  # seconds
    owner: str = ""  # the name of its key

    @property
    def num_prompt_tokens(self) -> int:
        """A prompt counts once, however often it is answered."""
        return sum(len(prompt.token_ids) for prompt in self.prompts)

    def submits(self, next_id: Callable[[], int]) -> list[tuple[Prompt, Submit]]:
        """One Submit a choice, those of a prompt together."""
        arrived = time.time()
        return [
            (prompt, self._submit(prompt, next_id(), choice, arrived))
            for prompt in self.prompts
            for choice in range(self.num_choices)
        ]

    def _submit(self, prompt: Prompt, request_id: int, choice: int, arrived: float) -> Submit:
        seed = seed_of_choice(prompt.sampling.seed, choice)
        return Submit(
            id=request_id,
            prompt=prompt.token_ids,
            sampling=msgspec.structs.replace(prompt.sampling, seed=seed),
            priority=self.priority,
            cache_salt=self.cache_salt,
            arrived=arrived,
            owner=self.owner,
        )
