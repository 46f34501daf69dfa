"""POST /v1/score."""

from typing import Annotated

from pydantic import Field, model_validator

from server.schema.encoding import EncodingRequest, Texts
from server.schema.fields import FieldError


class ScoreRequest(EncodingRequest):
    """Pairs to score: one text with each of the others, or as many with as many, one by one."""

    text_1: Texts | None = None
    text_2: Texts | None = None
    queries: Texts | None = None
    documents: Texts | None = None
    use_activation: Annotated[bool | None, Field(description="false: a cross-encoder's raw scores")] = None

    @model_validator(mode="after")
    def check(self) -> "ScoreRequest":
        left, right = self.names
        others = (self.documents,) if self.queries is None else (self.text_1, self.text_2)
        if any(texts is not None for texts in others):
            raise FieldError(left, "text_1 and text_2 are accepted, or queries and documents, not both")
        for name, texts in ((left, self.left), (right, self.right)):
            if not texts:
                raise FieldError(name, "this field is required")
        if len(self.left) not in (1, len(self.right)):
            counts = f"{len(self.left)} texts do not go with the {len(self.right)} of {right}"
            raise FieldError(left, f"{counts}; accepted: one, or as many")
        return self

    @property
    def activated(self) -> bool | None:
        """Whether scores are wanted, not logits; None: yes."""
        return self.use_activation

    @property
    def names(self) -> tuple[str, str]:
        """What the two sides are called in this request."""
        return ("text_1", "text_2") if self.queries is None else ("queries", "documents")

    @property
    def left(self) -> tuple[str, ...]:
        return (self.text_1 if self.queries is None else self.queries) or ()

    @property
    def right(self) -> tuple[str, ...]:
        return (self.text_2 if self.queries is None else self.documents) or ()
