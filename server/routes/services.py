"""The services a model may give: those of the one that is served, and a word at the paths of the others."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from server.context import AppContext, Reading
from server.encoding.abilities import WORDS, Ability, abilities
from server.errors import ApiError
from server.routes import classify, embed, embeddings, fill_mask, pooling, predict, rerank, score
from server.routes.chat import chat_routes
from server.routes.completions import completion_routes

GENERATION_PATHS = ("/v1/completions", "/v1/chat/completions")


@dataclass(frozen=True, slots=True)
class EncoderService:
    """What an encoder may be able to do, and where."""

    ability: Ability
    paths: tuple[str, ...]
    routes: Callable[[AppContext, Reading], APIRouter]


ENCODER_SERVICES = (
    EncoderService("embed", embeddings.PATHS, embeddings.embedding_routes),
    EncoderService("embed", embed.PATHS, embed.embed_routes),
    EncoderService("compare", rerank.PATHS, rerank.rerank_routes),
    EncoderService("compare", score.PATHS, score.score_routes),
    EncoderService("classify", classify.PATHS, classify.classify_routes),
    EncoderService("classify", predict.PATHS, predict.predict_routes),
    EncoderService("pool", pooling.PATHS, pooling.pooling_routes),
    EncoderService("fill_mask", fill_mask.PATHS, fill_mask.fill_mask_routes),
)


def service_routes(context: AppContext) -> APIRouter:
    """Of the model that is served."""
    router = APIRouter()
    if context.reading is None:
        router.include_router(completion_routes(context))
        router.include_router(chat_routes(context))
        unserved = [path for service in ENCODER_SERVICES for path in service.paths]
        _add_refusals(router, context, unserved, GENERATION_PATHS)
        return router
    own = abilities(context.reading.config)
    served = [service for service in ENCODER_SERVICES if service.ability in own]
    for service in served:
        router.include_router(service.routes(context, context.reading))
    others = [path for service in ENCODER_SERVICES if service not in served for path in service.paths]
    paths = [service.paths[0] for service in served]
    _add_refusals(router, context, [*GENERATION_PATHS, *others], paths)
    return router


def _add_refusals(
    router: APIRouter, context: AppContext, paths: Iterable[str], served: Iterable[str]
) -> None:
    """404 at paths that other models have, in words that help whoever took this one for them."""
    task = "generate" if context.reading is None else context.reading.config.task
    has = f"{context.model} {WORDS[task]} and serves POST {', '.join(served)}"

    async def refuse(http: Request) -> Response:
        """Another kind of model serves this."""
        message = f"POST {http.url.path} is not served by this model: {has}"
        raise ApiError(404, message, code="not_served_by_model")

    for path in paths:
        router.add_api_route(path, refuse, methods=["POST"], include_in_schema=False)
