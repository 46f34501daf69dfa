"""POST /v1/rerank."""

from typing import Annotated

from pydantic import Field, model_validator

from server.schema.encoding import Documents, TruncatedRequest
from server.schema.fields import FieldError
from server.schema.sampling import INT32_MAX


class RerankRequest(TruncatedRequest):
    """Documents to sort by what they have to do with a query; as `texts` they are answered as a bare list."""

    query: Annotated[str, Field(min_length=1)]
    documents: Documents | None = None
    texts: Annotated[Documents | None, Field(description="instead of documents")] = None
    top_n: Annotated[int | None, Field(ge=0, le=INT32_MAX, description="0: all of them")] = None
    return_documents: Annotated[bool | None, Field(description="default true")] = None
    return_text: Annotated[bool | None, Field(description="of texts; default false")] = None
    max_tokens_per_doc: Annotated[
        int | None, Field(ge=1, le=INT32_MAX, description="a longer document is cut")
    ] = None
    use_activation: Annotated[bool | None, Field(description="false: a cross-encoder's raw scores")] = None
    raw_scores: Annotated[bool | None, Field(description="true: as use_activation false")] = None

    @model_validator(mode="after")
    def check(self) -> "RerankRequest":
        if self.documents is None and self.texts is None:
            raise FieldError("documents", "this field is required")
        if self.documents is not None and self.texts is not None:
            raise FieldError("texts", "not accepted with documents")
        if self.texts is not None and self.return_documents is not None:
            raise FieldError("return_documents", "not accepted with texts; use return_text")
        if self.texts is None and self.return_text is not None:
            raise FieldError("return_text", "only accepted with texts; use return_documents")
        if self.raw_scores is not None and self.use_activation is not None:
            raise FieldError("raw_scores", "not accepted with use_activation")
        return self

    @property
    def ranked(self) -> tuple[str, ...]:
        return (self.documents if self.texts is None else self.texts) or ()

    @property
    def activated(self) -> bool | None:
        """Whether scores are wanted, not logits; None: yes."""
        return False if self.raw_scores else self.use_activation
