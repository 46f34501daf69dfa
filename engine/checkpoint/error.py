"""The one error of a model that cannot be used as it is."""

_MAX_MESSAGE = 2000  # characters


class CheckpointError(ValueError):
    """Something in a model's files is missing, damaged or not supported.

    The message names the file, the place, what was found and what is accepted.
    """

    def __init__(self, message: str) -> None:
        super().__init__(fit_to_show(message))


def fit_to_show(message: str) -> str:
    """What was found in a file is anybody's: the message is cut, and holds nothing that a terminal would obey."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in message[:_MAX_MESSAGE])
