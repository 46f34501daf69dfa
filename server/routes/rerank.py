"""POST /v1/rerank."""

from collections.abc import Iterator

from fastapi import APIRouter
from msgspec import UNSET
from starlette.requests import Request
from starlette.responses import Response

from server.context import AppContext, Reading
from server.encoding.compare import Sides, compare
from server.encoding.respond import add_posts, head
from server.generation.respond import json_response, receive
from server.schema.encoded import Document, Rank, Ranked, Ranking
from server.schema.rerank import RerankRequest

PATHS = ("/v1/rerank", "/rerank", "/v2/rerank")


def rerank_routes(context: AppContext, reading: Reading) -> APIRouter:
    router = APIRouter()

    async def rerank(http: Request) -> Response:
        """Documents, the most relevant to a query first."""
        request = await receive(context, http, RerankRequest)
        context.check_model(request.model)
        names = ("query", "documents" if request.texts is None else "texts")
        sides = Sides(names, (request.query,), request.ranked, request.max_tokens_per_doc)
        compared = await compare(context, reading, http, request, sides)
        if request.texts is not None:
            return json_response(_bare(request, compared.scores))
        top = head(context, http, request, "rerank", compared.wanted)
        results = _ranked(request, compared.scores)
        return json_response(Ranking(id=top.id, model=top.model, usage=top.usage, results=results))

    add_posts(router, PATHS, RerankRequest, rerank)
    return router


def _places(request: RerankRequest, scores: list[float]) -> Iterator[int]:
    """The best first. Equal ones stay in the order they came in."""
    places = sorted(range(len(scores)), key=lambda place: -scores[place])
    return iter(places[: request.top_n or None])


def _ranked(request: RerankRequest, scores: list[float]) -> list[Ranked]:
    return [
        Ranked(
            index=place,
            document=UNSET if request.return_documents is False else Document(request.ranked[place]),
            relevance_score=scores[place],
        )
        for place in _places(request, scores)
    ]


def _bare(request: RerankRequest, scores: list[float]) -> list[Rank]:
    return [
        Rank(index=place, score=scores[place], text=request.ranked[place] if request.return_text else UNSET)
        for place in _places(request, scores)
    ]
