"""What can be wrong with text: the request's own, or the model's files."""

from engine.checkpoint import fit_to_show


class TextError(ValueError):
    """A request's text, token ids or messages cannot be used. It says which, why, and what is accepted."""

    def __init__(self, message: str, *, field: str | None = None) -> None:
        super().__init__(message)
        self.field = field  # the request's field, such as "messages"; None where only the caller knows it


class TokenizerFault(RuntimeError):
    """The tokenizers library failed on one text: no fault of the request's, and none of the others'."""


class ModelTextError(ValueError):
    """The model's tokenizer or chat template cannot be used. Found at start-up, the operator's to mend."""

    def __init__(self, message: str) -> None:
        super().__init__(fit_to_show(message))
