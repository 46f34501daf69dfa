"""How large one operation of a chat template may make its result: told before it is carried out."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from server.text.errors import TextError

MAX_JOINED = 32 << 20  # characters or items of two texts or lists put together
MAX_REPEATED = 1 << 20  # of one that is repeated; and bits of a number
_NODE = 64  # what an item that is no text weighs, in characters
_WIDE = re.compile(r"[0-9]{6}|\*")  # a width that `%` would fill
_WIDE_FIELD = re.compile(r"[0-9]{6}|{[^}]*{")  # likewise for `format`, or a width that comes from an argument

Args = Sequence[Any]

# Filters that look at items and write none.
_LOOK_ONLY = frozenset(
    (
        "attr",
        "batch",
        "count",
        "d",
        "default",
        "dictsort",
        "first",
        "groupby",
        "items",
        "last",
        "length",
        "list",
    )
    + (
        "map",
        "max",
        "min",
        "random",
        "reject",
        "rejectattr",
        "reverse",
        "select",
        "selectattr",
        "slice",
        "sort",
    )
    + ("sum", "unique")
)


def check_size(operation: str, size: int, max_size: int = MAX_JOINED) -> None:
    """Raises TextError."""
    if size > max_size:
        raise TextError(
            f"messages: {operation} in the chat template makes something longer than {max_size}",
            field="messages",
        )


def check_written(operation: str, *values: object) -> None:
    """Before values are written as text: a list may hold another one many times over."""
    total = 0
    for value in values:
        if isinstance(value, list | tuple | Mapping):
            total += _weight(value)
            check_size(operation, total)


def check_percent(left: str, right: object) -> None:
    check_size("%", MAX_REPEATED + 1 if _WIDE.search(left) else 0, MAX_REPEATED)
    check_written("%", right)


def check_filter(name: str, value: object, args: Args) -> None:
    """Raises TextError for a filter's value and arguments."""
    if name not in _LOOK_ONLY:
        check_written(name, value, *args)
    if name in _SIZES:
        check_size(name, _SIZES[name](value, args))


def check_method(name: str, owner: object, args: Args) -> None:
    """Raises TextError for a call of a method of a text or a number."""
    if name in _SIZES:
        check_size(name, _SIZES[name](owner, args))


def _weight(value: object) -> int:
    """Characters of all texts within, and some for all else; no more is counted than is needed to refuse it."""
    total = 0
    inside = [iter((value,))]
    while inside and total <= MAX_JOINED:
        item = next(inside[-1], inside)
        if item is inside:
            inside.pop()
            continue
        total += len(item) if isinstance(item, str) else _NODE
        if isinstance(item, list | tuple):
            inside.append(iter(item))
        elif isinstance(item, Mapping):
            inside.append(iter(item.items()))
    return total


def _numbers(args: Args) -> int:
    """The largest number among them."""
    return max((abs(arg) for arg in args if isinstance(arg, int)), default=0)


def _texts(args: Args) -> int:
    """The length of the longest text among them."""
    return max((len(arg) for arg in args if isinstance(arg, str | bytes)), default=0)


def _length(value: object) -> int:
    return len(value) if isinstance(value, str | bytes) else 1


def _wide(value: object, args: Args) -> int:
    """As wide as a number says; a million is much."""
    return _numbers(args) * (MAX_JOINED // MAX_REPEATED)


def _tabs(value: object, args: Args) -> int:
    return (str(value).count("\t") + 1) * max(_numbers(args), 8)


def _lines(value: object, args: Args) -> int:
    return (str(value).count("\n") + 1) * max(_numbers(args), _texts(args))


def _at_each_character(value: object, args: Args) -> int:
    return (_length(value) + 1) * _texts(args)


def _replaced(value: object, args: Args) -> int:
    if len(args) < 2 or not isinstance(args[0], str) or not isinstance(args[1], str):
        return 0
    text = str(value)
    return len(text) + text.count(args[0]) * len(args[1])


def _translated(value: object, args: Args) -> int:
    table = args[0] if args else None
    texts = [len(text) for text in table.values() if isinstance(text, str)] if isinstance(table, dict) else []
    return _length(value) * max(texts, default=1)


def _joined(value: object, args: Args) -> int:
    """`separator.join(items)`, and the filter's `items | join(separator)`."""
    items, separator = (args[0] if args else (), value) if isinstance(value, str) else (value, "")
    if not isinstance(items, str | list | tuple | Mapping):
        return 0  # what comes one by one is counted as it comes
    return sum(map(_length, items)) + len(items) * max(_length(separator), _texts(args))


def _formatted(value: object, args: Args) -> int:
    wide = _WIDE_FIELD.search(str(value)) or _WIDE.search(str(value))
    check_written("format", *args)
    return MAX_JOINED + 1 if wide else 0


def _summed(value: object, args: Args) -> int:
    """Numbers; lists would be put together again and again."""
    return MAX_JOINED + 1 if any(isinstance(arg, list | tuple) for arg in args) else 0


def _indented(value: object, args: Args) -> int:
    return MAX_JOINED + 1 if max(_numbers(args), _texts(args)) > 64 else 0


_WIDTHS = ("center", "ljust", "rjust", "zfill", "batch", "slice", "truncate", "to_bytes")
_SIZES: dict[str, Callable[[object, Args], int]] = {
    **dict.fromkeys(_WIDTHS, _wide),
    **dict.fromkeys(("wordwrap", "urlize", "xmlattr"), _at_each_character),
    **dict.fromkeys(("format", "format_map"), _formatted),
    "expandtabs": _tabs,
    "indent": _lines,
    "join": _joined,
    "sum": _summed,
    "replace": _replaced,
    "tojson": _indented,
    "translate": _translated,
}
