"""Answers of a runner that has no model: one that streams, and one in whole."""

import json
import threading

import httpx

from tests.e2e.deployment import wait_until


class Answer:
    """A streamed completion, read in a thread."""

    def __init__(
        self, url: str, max_tokens: int, prompt: list[int] | None = None, key: str | None = None
    ) -> None:
        self.events: list[str] = []
        self.request_id = ""
        self.body = {
            "prompt": prompt or [1, 2, 3],
            "max_tokens": max_tokens,
            "stream": True,
            "ignore_eos": True,
            "return_token_ids": True,
        }
        self.broken = False  # the connection ended in the middle
        self._url = url
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    @property
    def error(self) -> dict[str, object] | None:
        found = [json.loads(event)["error"] for event in self.events if event.startswith('{"error"')]
        return found[0] if found else None

    @property
    def id(self) -> object:
        """As its chunks have it."""
        return json.loads(self.events[0])["id"]

    @property
    def token_ids(self) -> list[int]:
        """Those that came."""
        chunks = [json.loads(event) for event in self.events if event.startswith('{"id"')]
        return [token for chunk in chunks for token in chunk["choices"][0]["token_ids"]]

    def begin(self) -> "Answer":
        wait_until(lambda: len(self.events) > 2)
        return self

    def go_on(self) -> None:
        """Returns once more of it has come."""
        seen = len(self.events)
        wait_until(lambda: len(self.events) > seen + 2)

    def end(self) -> "Answer":
        self._thread.join(30.0)
        assert not self._thread.is_alive()
        return self

    def _read(self) -> None:
        try:
            self._stream()
        except httpx.TransportError:
            self.broken = True

    def _stream(self) -> None:
        url = f"{self._url}/v1/completions"
        with httpx.stream("POST", url, json=self.body, headers=self._headers, timeout=60) as response:
            assert response.status_code == 200, response.read()
            self.request_id = response.headers["x-request-id"]
            for line in response.iter_lines():
                if line.startswith("data: "):
                    self.events.append(line[6:])


def post(url: str, max_tokens: int = 4, prompt: list[int] | None = None) -> httpx.Response:
    body = {
        "prompt": prompt or [1, 2, 3],
        "max_tokens": max_tokens,
        "ignore_eos": True,
        "return_token_ids": True,
    }
    return httpx.post(f"{url}/v1/completions", json=body, timeout=60)
