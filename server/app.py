"""The HTTP application."""

import logging

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from server.auth.gate import Gate
from server.context import AppContext
from server.errors import ApiError, bad_request, http_fault, internal
from server.middleware import HEADER, Observed, request_id
from server.openapi import describe
from server.routes.admin import admin_routes
from server.routes.health import health_routes
from server.routes.models import model_routes
from server.routes.services import service_routes
from server.routes.tokens import token_routes
from server.sse import ClientGone

CORS_SENT = ("Authorization", "Content-Type", "X-Api-Key", HEADER, "traceparent")
CORS_READ = (
    HEADER,
    "Retry-After",
    *(
        f"x-ratelimit-{what}-{of}"
        for what in ("limit", "remaining", "reset")
        for of in ("requests", "tokens")
    ),
)
CLIENT_CLOSED = 499  # no client reads it; the metrics do
LOG = logging.getLogger("tokenloom.server")

__all__ = ["AppContext", "create_app"]


def create_app(context: AppContext) -> FastAPI:
    """All routes, and one shape for every error. The caller starts and closes the context's client."""
    app = FastAPI(title="Tokenloom", version=context.version, redirect_slashes=False)
    app.add_middleware(Gate, access=context.access)
    if origins := context.config.server.cors_origin:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=[origin.strip() for origin in origins.split(",")],
            allow_methods=["GET", "POST"],
            allow_headers=CORS_SENT,
            expose_headers=CORS_READ,
        )
    app.add_middleware(
        Observed, metrics=context.metrics, access_log=context.access_log, tracer=context.tracer
    )
    for routes in (service_routes, model_routes, token_routes, health_routes):
        app.include_router(routes(context))
    if context.desk is not None:
        app.include_router(admin_routes(context, context.desk))
    describe(app)
    app.add_exception_handler(ApiError, _on_api_error)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(ClientGone, _on_gone)
    app.add_exception_handler(ClientDisconnect, _on_gone)
    app.add_exception_handler(Exception, _on_bug)
    return app


def error_response(error: ApiError) -> Response:
    return Response(error.body(), error.status, error.headers, "application/json")


async def _on_api_error(http: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error_response(error)


async def _on_http_exception(http: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    message = f"{http.method} {http.url.path}: {error.detail}"
    return error_response(http_fault(error.status_code, message, error.headers))


async def _on_invalid(http: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    return error_response(bad_request(f"{first['loc'][-1]}: {first['msg']}", str(first["loc"][-1])))


async def _on_gone(http: Request, error: Exception) -> Response:
    return Response(status_code=CLIENT_CLOSED)


async def _on_bug(http: Request, error: Exception) -> Response:
    """The framework raises on: the traceback is logged, and the connection closed after the answer."""
    response = error_response(internal())
    response.headers.update({HEADER: request_id(http), "Connection": "close"})
    return response
