"""Typed reading of a file's keys: every refusal names the key, the value, the file and what is accepted."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass

from engine.checkpoint.error import CheckpointError

_MAX_WHOLE = 2**31 - 1  # every size is computed with as a 32-bit number somewhere
_MAX_NUMBER = sys.float_info.max  # whole numbers of JSON may be larger
_MAX_SHOWN = 200  # characters of a value in a message


@dataclass(frozen=True, slots=True)
class Fields:
    """Keys and values of one file. A value of None counts as absent, as in config.json."""

    source: str  # the file, for messages
    values: Mapping[str, object]
    prefix: str = ""  # where in the file these keys lie, for messages

    def get(self, key: str) -> object:
        return self.values.get(key)

    def integer(self, key: str, default: int | None = None) -> int:
        return self._whole(key, self._value(key, default), 1)

    def count(self, key: str, default: int) -> int:
        """A whole number of at least 0."""
        return self._whole(key, self._value(key, default), 0)

    def token_id(self, key: str) -> int | None:
        """A token id, or None where the file has none."""
        value = self.get(key)
        if value is None or (isinstance(value, int) and not isinstance(value, bool) and value >= 0):
            return value
        raise self.refuse(key, value, "a token id")

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them."""
        value = self.get(key)
        found = value if isinstance(value, list) else [] if value is None else [value]
        ids = tuple(i for i in found if isinstance(i, int) and not isinstance(i, bool) and i >= 0)
        if len(ids) < len(found):
            raise self.refuse(key, value, "a token id or a list of token ids")
        return ids

    def number(self, key: str, default: float | None = None) -> float:
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= _MAX_NUMBER:
            raise self.refuse(key, value, "a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.refuse(key, value, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.refuse(key, value, "a string")
        return value

    def table(self, key: str) -> "Fields":
        """A nested object; empty where the file has none."""
        value = self.get(key)
        return self.entry(key, {} if value is None else value)

    def entry(self, key: str, value: object) -> "Fields":
        """An object found at `key`, or in the list found there."""
        if not isinstance(value, dict):
            raise self.refuse(key, value, "an object")
        return Fields(self.source, value, f"{self.prefix}{key}.")

    def only(self, key: str, *accepted: object) -> None:
        """Refuse any value but the accepted ones; an absent key is taken for the first."""
        value = self.get(key)
        if value is not None and value not in accepted:
            raise self.refuse(key, value, " or ".join(repr(a) for a in accepted))

    def refuse(self, key: str, value: object, accepted: str) -> CheckpointError:
        return CheckpointError(f"{self.source}: {self.prefix}{key} is {_shown(value)}; accepted: {accepted}")

    def _whole(self, key: str, value: object, least: int) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise self.refuse(key, value, f"a whole number of at least {least}")
        if value > _MAX_WHOLE:
            raise self.refuse(key, value, f"a whole number up to {_MAX_WHOLE}")
        return value

    def _value(self, key: str, default: object) -> object:
        value = self.get(key)
        if value is None and default is None:
            raise CheckpointError(f"{self.source}: {self.prefix}{key} is missing")
        return default if value is None else value


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else text[: _MAX_SHOWN - 3] + "..."
