"""The first thing behind the count of responses: nothing is read of a request that may not come in."""

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.auth.access import Access
from server.auth.refusal import rate_headers
from server.errors import ApiError


class Gate:
    """An ASGI middleware. A connection that broke a limit puts its `refusal` into the request's state."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope["state"]
        try:
            if "refusal" in state:
                raise state["refusal"]
            call = self._access.enter(scope, state)
        except ApiError as error:
            response = Response(error.body(), error.status, error.headers, "application/json")
            await response(scope, receive, send)
            return
        state["call"] = call
        state["notes"].key = call.key_name

        async def send_of_call(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(rate_headers(call.standings))
            elif not message.get("more_body", False):
                self._access.leave(call)  # whoever has read the whole answer may ask again at once
            await send(message)

        try:
            await self._app(scope, receive, send_of_call)
        finally:
            self._access.leave(call)
