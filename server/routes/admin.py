"""/admin/*: for administrators alone, and there only where a key makes one."""

import time
from dataclasses import asdict
from itertools import chain

import msgspec
from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from server.admin.commands import (
    EndCalls,
    ListCalls,
    LoadModel,
    Outcome,
    ReloadKeys,
    SetLogLevel,
    StartDrain,
    UnloadModel,
)
from server.admin.desk import AdminDesk
from server.context import AppContext
from server.errors import ApiError, bad_request, shown
from server.generation.respond import receive
from server.schema.admin import AbortRequest, LogLevelRequest

_KINDS = (
    "chatcmpl",
    "cmpl",
    "embd",
    "classify",
    "score",
    "pool",
    "rerank",
    "fill",
)  # what an answer's id begins with


def admin_routes(context: AppContext, desk: AdminDesk) -> APIRouter:
    """That the caller is an administrator was checked before."""
    router = APIRouter(prefix="/admin", include_in_schema=False)

    @router.get("/status")
    async def status() -> Response:
        """What runs, by key, in all server processes."""
        return JSONResponse(_status(context, await desk.order(ListCalls())))

    @router.post("/drain")
    async def drain() -> Response:
        """Finish what runs, refuse what is new, then end: as SIGTERM does."""
        await desk.order(StartDrain())
        return JSONResponse({"status": "draining"}, 202)

    @router.post("/abort")
    async def abort(http: Request) -> Response:
        """End a request at whatever stage it is."""
        request = await receive(context, http, AbortRequest)
        for request_id in _ids(request.request_id):
            ended = sum(outcome.count for outcome in await desk.order(EndCalls(request_id)))
            if ended:
                return JSONResponse({"aborted": ended})
        message = f"request_id: {shown(request.request_id)} is not the id of a request that runs"
        raise ApiError(404, message, param="request_id", code="request_not_found")

    @router.post("/reload-keys")
    async def reload_keys() -> Response:
        """Read the key file again: as SIGHUP does."""
        outcomes = await desk.order(ReloadKeys())
        for outcome in outcomes:
            if outcome.refusal:
                raise bad_request(f"the keys stay as they were: {outcome.refusal}", code="invalid_keys")
        return JSONResponse({"keys": max((outcome.count for outcome in outcomes), default=0)})

    @router.put("/log-level")
    async def log_level(http: Request) -> Response:
        """Until the server ends."""
        request = await receive(context, http, LogLevelRequest)
        await desk.order(SetLogLevel(request.level))
        return JSONResponse({"level": request.level})

    @router.post("/unload")
    async def unload() -> Response:
        """End the engine's process, which frees the model's memory."""
        return await _engine_order(UnloadModel(), "unloading", "unloaded")

    @router.post("/load")
    async def load() -> Response:
        """Start the engine again, with the model it had."""
        return await _engine_order(LoadModel(), "loading", "loaded")

    async def _engine_order(command: LoadModel | UnloadModel, begun: str, was_so: str) -> Response:
        changed = any(outcome.count for outcome in await desk.order(command))
        return JSONResponse({"status": begun}, 202) if changed else JSONResponse({"status": was_so})

    return router


def _ids(given: str) -> list[str]:
    """The id as it is, and without what an answer's body puts before it."""
    kind, _, rest = given.partition("-")
    return [given, rest] if kind in _KINDS and rest else [given]


def _status(context: AppContext, outcomes: tuple[Outcome, ...]) -> dict[str, object]:
    info = context.client.info
    running: dict[str, list[dict[str, object]]] = {}
    for report in sorted(chain(*(outcome.calls for outcome in outcomes)), key=lambda call: -call.age):
        running.setdefault(report.key, []).append(asdict(report))
    return {
        "version": context.version,
        "model": context.model,
        "uptime": int(time.time()) - context.created,
        "processes": len(outcomes),
        "engine": {"state": context.client.state}
        | ({} if info is None else {"info": msgspec.to_builtins(info)}),
        "num_running": sum(outcome.count for outcome in outcomes),
        "running": running,
    }
