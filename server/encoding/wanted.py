"""One HTTP request to an encoder, ready for the engine."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from engine.request import Encode
from server.text.input_tokenizer import Encoded


@dataclass(frozen=True, slots=True)
class Wanted:
    """Inputs, each answered on its own."""

    inputs: tuple[Encoded, ...]
    priority: int = 0
    timeout: float | None = None  # seconds
    owner: str = ""  # the name of its key

    @property
    def num_tokens(self) -> int:
        return sum(len(encoded.token_ids) for encoded in self.inputs)

    def messages(self, next_id: Callable[[], int]) -> list[Encode]:
        """One an input."""
        arrived = time.time()
        return [
            Encode(
                id=next_id(),
                token_ids=tuple(encoded.token_ids),
                type_ids=tuple(encoded.type_ids),
                priority=self.priority,
                arrived=arrived,
                owner=self.owner,
            )
            for encoded in self.inputs
        ]
