"""Encoding that does not hold up the event loop."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from server.text.tokenizer import Tokenizer

_SHORT = 2_000  # characters: about a millisecond, less than a trip through a thread costs the others


class Encoder:
    """Short texts are encoded at once, long ones in a few threads of its own."""

    def __init__(self, tokenizer: Tokenizer, num_threads: int = 2) -> None:
        self._tokenizer = tokenizer
        self._threads = ThreadPoolExecutor(num_threads, thread_name_prefix="encode")

    async def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
        """As Tokenizer.encode."""
        if len(text) <= _SHORT:
            return self._tokenizer.encode(text, add_special_tokens)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._tokenizer.encode, text, add_special_tokens)

    def close(self) -> None:
        """Texts that still wait are dropped; those being encoded finish."""
        self._threads.shutdown(wait=False, cancel_futures=True)
