"""How many tokens of prompts a step may hold, so that the rows beside them do not wait long for their next token."""

WORTH_A_STEP = 64  # tokens: a step reads all the weights, so still smaller pieces spare little
FEWEST = 16  # tokens of a piece, however long each of them takes
NEWEST = 0.2  # weight of the newest step in what is remembered
PLANNED = 0.8  # of the time a step may take; steps of one size take now more and now less


class Pace:
    """Learns what a token of a prompt adds to a step. `step_seconds` is what a step with live rows may take; 0: any time.

    A token that takes longer than was thought is believed at once, because those behind it in its prompt take longer still.
    """

    def __init__(self, step_seconds: float) -> None:
        self._step_seconds = step_seconds
        self._plain_seconds = 0.0  # of a step without chunks
        self._token_seconds = 0.0  # that one token of a chunk adds

    @property
    def max_chunk_tokens(self) -> int | None:
        """For a step with rows that wait for their next token; None: no limit, or nothing is known yet.

        Where the rows leave too little time, prompts are read all the same: for as long as the rows take, or what is worth a
        step where that takes less. A token behind a long context takes many times as long as one at a prompt's begin.
        """
        if not self._step_seconds or not self._token_seconds:
            return None
        left = PLANNED * self._step_seconds - self._plain_seconds
        least = min(self._plain_seconds, WORTH_A_STEP * self._token_seconds)
        return max(FEWEST, int(max(left, least) / self._token_seconds))

    def expect(self, num_chunk_tokens: int) -> float:
        """Seconds of a step with so many tokens of prompts."""
        return self._plain_seconds + num_chunk_tokens * self._token_seconds

    def observe(self, num_chunk_tokens: int, seconds: float) -> None:
        """One step is over."""
        if num_chunk_tokens == 0:
            self._plain_seconds = _blend(self._plain_seconds, seconds)
        else:
            added = max(0.0, seconds - self._plain_seconds) / num_chunk_tokens
            self._token_seconds = max(added, _blend(self._token_seconds, added))


def _blend(remembered: float, new: float) -> float:
    return new if remembered == 0 else remembered + NEWEST * (new - remembered)
