"""GET /health, /health/live, /health/ready, /version and /metrics."""

from fastapi import APIRouter
from starlette.responses import JSONResponse, Response

from server.context import AppContext
from server.errors import unavailable


def health_routes(context: AppContext) -> APIRouter:
    router = APIRouter()

    @router.head("/health/live", include_in_schema=False)
    @router.get("/health/live")
    async def live() -> Response:
        """This server process answers. A failure means: restart it."""
        return JSONResponse({"status": "live"})

    @router.head("/health/ready", include_in_schema=False)
    @router.get("/health/ready")
    async def ready() -> Response:
        """The engine takes requests. A failure means: send none now."""
        context.engine_info()
        return JSONResponse({"status": "ready"})

    @router.head("/health", include_in_schema=False)
    @router.get("/health")
    async def health() -> Response:
        """The engine is there, and does steps when there is work."""
        healthy, reason = context.client.healthy(context.config.server.progress_seconds)
        if not healthy:
            raise unavailable(reason, "unhealthy")
        return JSONResponse({"status": "healthy", "reason": reason})

    @router.get("/version")
    async def version() -> Response:
        """The version of this server."""
        return JSONResponse({"version": context.version})

    @router.get("/metrics")
    async def metrics() -> Response:
        """Prometheus's text format, for all server processes and the engine."""
        body, content_type = context.metrics.render()
        return Response(body, media_type=content_type)

    return router
