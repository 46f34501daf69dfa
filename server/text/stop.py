"""Stop strings, found as the text comes."""

from collections.abc import Sequence
from copy import copy


class StopStrings:
    """Watches one text for any of several strings.

    The first to be complete wins, as generating further would be for nothing; of those complete at the same
    character the longest. Nothing of it is returned, unless `include_in_output`: then it ends the text. No
    more is held back than the longest end of the text that could still become a stop string. The automaton is
    that of Aho and Corasick (CACM 18(6), 1975); the work is in proportion to the text.
    """

    def __init__(self, stops: Sequence[str], include_in_output: bool = False) -> None:
        if "" in stops:
            raise ValueError("a stop string is empty; accepted: at least one character")
        self._include = include_in_output
        self._next, self._depth, self._stop = _trie(stops)
        self._fall = _fallbacks(self._next, self._stop)
        self._node = 0  # the longest end of the text that begins a stop string
        self._held = ""

    def anew(self) -> "StopStrings":
        """Another watch for the same strings, over another text. What was built of them is shared."""
        watcher = copy(self)
        watcher._node, watcher._held = 0, ""
        return watcher

    def push(self, text: str, armed: bool = True) -> tuple[str, str | None]:
        """Text to show and, once one is found, the stop string; nothing is to be pushed after that.

        Unarmed, a string that is complete is let through (one only begun may still be found when armed).
        """
        if not self._node and self._next[0].keys().isdisjoint(text):
            return text, None
        for i, character in enumerate(text):
            self._node = self._step(character)
            stop = self._stop[self._node]
            if stop is not None and armed:
                return self._finish(text[: i + 1], stop), stop
        return self._release(text), None

    def flush(self) -> str:
        """The text ended: what was held back."""
        held, self._held, self._node = self._held, "", 0
        return held

    def _step(self, character: str) -> int:
        node = self._node
        while node and character not in self._next[node]:
            node = self._fall[node]
        return self._next[node].get(character, 0)

    def _finish(self, text: str, stop: str) -> str:
        self._held, self._node, shown = "", 0, self._held + text
        return shown if self._include else shown[: len(shown) - len(stop)]

    def _release(self, text: str) -> str:
        # At the end of a string that was let through, only what it ends with can still go on.
        while self._node and not self._next[self._node]:
            self._node = self._fall[self._node]
        seen = self._held + text
        shown = seen[: len(seen) - self._depth[self._node]]
        self._held = seen[len(shown) :]
        return shown


def _trie(stops: Sequence[str]) -> tuple[list[dict[str, int]], list[int], list[str | None]]:
    """Nodes by number, 0 the root: their children by character, their depth, the string that ends there."""
    children: list[dict[str, int]] = [{}]
    depth, stop = [0], list[str | None]([None])
    for string in stops:
        node = 0
        for character in string:
            if character not in children[node]:
                children[node][character] = len(children)
                children.append({})
                depth.append(depth[node] + 1)
                stop.append(None)
            node = children[node][character]
        stop[node] = string
    return children, depth, stop


def _fallbacks(children: list[dict[str, int]], stop: list[str | None]) -> list[int]:
    """For each node its longest proper suffix in the trie. `stop` gets the strings that end there too."""
    fall = [0] * len(children)
    queue = list(children[0].values())
    for node in queue:  # breadth first: it grows as it is walked
        for character, child in children[node].items():
            suffix = fall[node]
            while suffix and character not in children[suffix]:
                suffix = fall[suffix]
            fall[child] = children[suffix].get(character, 0)
            if stop[child] is None:
                stop[child] = stop[fall[child]]
            queue.append(child)
    return fall
