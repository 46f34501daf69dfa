"""The log of a process: one line a record on standard error, plain or JSON."""

import json
import logging
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import msgspec

FORMATS = ("plain", "json")
TRACE = 5  # as uvicorn has it
PLAIN = "%(asctime)s %(levelname)s %(name)s: %(message)s"

Value = str | int | float


@dataclass(frozen=True, slots=True)
class Line:
    """A message with fields, to be logged as it is: `logger.info(Line(...))`."""

    text: str
    fields: Mapping[str, Value]

    def __str__(self) -> str:
        return " ".join([self.text, *(f"{name}={_plain(value)}" for name, value in self.fields.items())])


class PlainFormatter(logging.Formatter):
    """Times in UTC, as JSON has them."""

    def __init__(self) -> None:
        super().__init__(PLAIN)

    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return utc(record.created)


class JsonFormatter(logging.Formatter):
    """An object a line: time, level, logger, message, and the fields of a Line."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Value] = {
            "time": utc(record.created),
            "level": record.levelname.lower(),
            "logger": record.name,
        }
        match record.msg:
            case Line(text, own):
                fields |= {"message": text, **own}
            case _:
                fields["message"] = record.getMessage()
        if record.exc_info is not None and record.exc_info[0] is not None:
            fields["exception"] = "".join(traceback.format_exception(*record.exc_info))
        return msgspec.json.encode(fields).decode()


def configure_logs(level: str, form: str) -> None:
    """Of this process. `level` and `form` were checked."""
    logging.addLevelName(TRACE, "TRACE")
    handler = logging.StreamHandler()
    handler.setFormatter(JsonFormatter() if form == "json" else PlainFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.root.level))


def utc(seconds: float) -> str:
    """ISO 8601 with milliseconds, of seconds since 1970."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _plain(value: Value) -> str:
    """Quoted where it would not read as one word."""
    text = str(value)
    is_word = bool(text) and text.isprintable() and not any(mark in text for mark in ' "=')
    return text if is_word else json.dumps(text)
