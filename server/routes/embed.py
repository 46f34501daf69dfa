"""POST /embed."""

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.context import AppContext, Reading
from server.encoding.encoding import encode
from server.encoding.prepare import want_inputs
from server.encoding.respond import add_posts
from server.encoding.values import Values, cutter, normalize, write
from server.errors import bad_request
from server.generation.respond import json_response, receive
from server.schema.embed import EmbedRequest
from server.schema.encoded import Written

PATHS = ("/embed",)


def embed_routes(context: AppContext, reading: Reading) -> APIRouter:
    router = APIRouter()
    sentence = reading.config.sentence
    normed = sentence is not None and sentence.normalize and sentence.num_kept is None

    async def embed(http: Request) -> Response:
        """A vector for each text, as a bare list."""
        request = await receive(context, http, EmbedRequest)
        context.check_model(request.model)
        if request.normalize is False and normed:
            message = "normalize: false is not possible: the model norms its embeddings; accepted: true"
            raise bad_request(message, "normalize", "invalid_value")
        cut = cutter(reading.config, request.dimensions)
        wanted = await want_inputs(context, reading, request, request.prompt_name, "inputs")

        def shape(values: Values) -> Written:
            vector = cut(values)
            return write(vector if normed or request.normalize is False else normalize(vector), "float")

        return json_response(await encode(context, http, wanted, shape))

    add_posts(router, PATHS, EmbedRequest, embed)
    return router
