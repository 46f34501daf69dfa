"""POST /embed."""

from typing import Annotated

from pydantic import Field

from server.schema.encoding import InputRequest, Inputs, TruncatedRequest
from server.schema.sampling import INT32_MAX


class EmbedRequest(TruncatedRequest, InputRequest):
    """Texts, or token ids, to turn into vectors, as text-embeddings-inference asks for them."""

    input: Annotated[Inputs, Field(alias="inputs")]
    normalize: Annotated[bool | None, Field(description="default true")] = None
    dimensions: Annotated[int | None, Field(ge=1, le=INT32_MAX)] = None
    prompt_name: Annotated[str | None, Field(description="the model's own prompt before each text")] = None
