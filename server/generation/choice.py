"""One choice of an answer: the engine's tokens as they come, made into pieces of text."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass

from engine.client.client import Output, Stream
from engine.request import Finish, TokenLogprobs
from server.context import not_ready
from server.errors import ApiError
from server.generation.wanted import Prompt, TextOptions
from server.metrics.request_timer import RequestTimer
from server.text.detokenizer import Detokenizer
from server.text.stop import StopStrings
from server.text.stream import Delta, TextStream
from server.text.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Piece:
    """What a choice gained since its last piece. The first carries the echo and the prompt's logprobs."""

    index: int
    text: str
    token_ids: list[int]
    offsets: list[int]  # where each token's text begins
    logprobs: list[TokenLogprobs]
    finish_reason: str | None = None
    stop_reason: int | str | None = None
    is_first: bool = False
    prompt_logprobs: Sequence[TokenLogprobs] = ()


class Choice:
    """Reads one stream. The caller ends it early with `abort`."""

    def __init__(
        self,
        index: int,
        prompt: Prompt,
        options: TextOptions,
        tokenizer: Tokenizer,
        stops: StopStrings,
        stream: Stream,
        timer: RequestTimer,
    ) -> None:
        self.index = index
        self.prompt = prompt
        self.stream = stream
        self.num_tokens = 0
        self._options = options
        self._timer = timer
        self._shown = TextStream(
            Detokenizer(tokenizer, prompt.token_ids, options.skip_special_tokens),
            stops,
            min_tokens=prompt.sampling.min_tokens,
            show_stop_token=options.include_stop,
            start=len(prompt.echo),
        )
        self._ended = False
        self._end: ApiError | None = None  # what it was ended with from outside
        self._is_first = True
        self._texts = [prompt.echo]
        self._token_ids: list[int] = []
        self._offsets: list[int] = []
        self._logprobs: list[TokenLogprobs] = []
        self._prompt_logprobs: list[TokenLogprobs] = []

    @property
    def num_cached(self) -> int:
        """Prompt tokens that did not have to be computed."""
        return self.stream.started.num_cached if self.stream.started is not None else 0

    async def pieces(self) -> AsyncGenerator[Piece, None]:
        """Until it is complete or aborted. Raises EngineDied, RequestFailed, and ApiError at shutdown and after `end`."""
        async for output in self.stream:
            piece = self._take(output)
            if piece is not None:
                yield piece
            if self._ended:
                return
        if self._end is not None:
            raise self._end

    def abort(self, cause: str) -> None:
        """Does nothing to a choice that is complete."""
        if not self._ended:
            self._ended = True
            self.stream.abort(cause)
            self._timer.cancelled(cause)

    def end(self, error: ApiError, cause: str) -> None:
        """As abort; its reader is told `error`."""
        if not self._ended:
            self._end = error
            self.abort(cause)

    def drop(self) -> None:
        """It never began: nothing is measured of it."""
        self._ended = True

    def fail(self) -> None:
        """It ended by the engine's fault, its own or a fellow's."""
        self._ended = True
        self.stream.abort("error")
        self._timer.finish("error")

    def _take(self, output: Output) -> Piece | None:
        if self.stream.started is not None:
            self._timer.on_started(self.stream.started.queued, self.stream.started.num_cached)
        self._timer.on_tokens(len(output.token_ids))
        self._prompt_logprobs += output.prompt_logprobs
        if output.finish is Finish.ABORT:
            raise not_ready("draining")
        if self._options.drops_output:
            return self._finish("length", None) if output.token_ids else None
        delta = self._shown.push(output.token_ids, output.finish)
        self._add(output, delta)
        if delta.stop is not None:
            self.stream.abort("stop_string")
            return self._finish("stop", delta.stop)
        if output.finish is Finish.LENGTH:
            return self._finish("length", None)
        if output.finish is Finish.STOP:
            last = output.token_ids[-1]
            return self._finish("stop", last if last in self._options.user_stop_ids else None)
        if len(self._token_ids) >= self._options.interval and any(self._texts):
            return self._piece()
        return None

    def _add(self, output: Output, delta: Delta) -> None:
        self.num_tokens += len(delta.token_ids)
        self._texts.append(delta.text)
        self._token_ids += delta.token_ids
        self._offsets += delta.offsets
        self._logprobs += output.logprobs[: len(delta.token_ids)]

    def _finish(self, reason: str, stop_reason: int | str | None) -> Piece:
        self._ended = True
        self._timer.finish(reason)
        return self._piece(reason, stop_reason)

    def _piece(self, finish_reason: str | None = None, stop_reason: int | str | None = None) -> Piece:
        piece = Piece(
            self.index,
            "".join(self._texts),
            self._token_ids,
            self._offsets,
            self._logprobs,
            finish_reason,
            stop_reason,
            self._is_first,
            self._prompt_logprobs,
        )
        self._texts, self._token_ids, self._offsets, self._logprobs = [], [], [], []
        self._prompt_logprobs, self._is_first = [], False
        return piece
