"""How fast the queue drains, for telling a client when to come back."""

import math

MEMORY_SECONDS = 30.0  # what was measured this long ago weighs 1 / e
MIN_SECONDS, MAX_SECONDS = 1.0, 600.0


class DrainMeter:
    """Tokens that leave the queue a second while others wait. An unloaded engine says nothing of it."""

    def __init__(self) -> None:
        self._num_tokens = 0.0
        self._seconds = 0.0

    def observe(self, num_tokens: int, seconds: float) -> None:
        """One step whose plan left requests waiting."""
        decay = math.exp(-seconds / MEMORY_SECONDS)
        self._num_tokens = self._num_tokens * decay + num_tokens
        self._seconds = self._seconds * decay + seconds

    def seconds(self, num_tokens: int) -> float:
        """Until so many tokens have left: 0 as long as nothing was measured, and if none left as long as that was so."""
        if self._num_tokens == 0:
            return self._seconds if num_tokens else 0.0
        return num_tokens * self._seconds / self._num_tokens


def whole_wait(seconds: float) -> float:
    """What a client is told: whole seconds, 1 to 600."""
    return min(max(float(math.ceil(seconds)), MIN_SECONDS), MAX_SECONDS)
