"""Uvicorn on a socket that is bound already, with signals left to the process that owns it."""

import asyncio
import contextlib
from collections.abc import Callable, Iterator
from socket import socket

import uvicorn
from fastapi import FastAPI

from server.config import ServerConfig
from server.process.certificate import Certificate, keep_fresh
from server.process.connection import ConnectionLimits, connections

CLOSE_SECONDS = 5  # for responses to reach their clients once their requests have ended
KEEP_ALIVE_SECONDS = 75  # longer than proxies keep theirs, so that none sends into a closing connection


class HttpServer(uvicorn.Server):
    """Set `should_exit` to close the port and end `serve`."""

    def __init__(
        self, app: FastAPI, on_started: Callable[[], None], settings: ServerConfig | None = None
    ) -> None:
        settings = settings or ServerConfig()
        config = uvicorn.Config(
            app,
            loop="none",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=CLOSE_SECONDS,
            ssl_certfile=settings.tls_cert or None,
            ssl_keyfile=settings.tls_key or None,
        )
        super().__init__(config)
        self._on_started = on_started
        self.servers: list[asyncio.Server] = []
        self._limits = limits_of(settings)
        self._tls_files = settings.tls_cert, settings.tls_key
        self._renewal: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket] | None = None) -> None:
        """Listens on the sockets; the handshake of TLS has the deadline of a request's head."""
        loop = asyncio.get_running_loop()
        tls = self.config.ssl
        for sock in sockets or []:
            listening = await loop.create_server(
                connections(self.config, self.server_state, self._limits),
                sock=sock,
                backlog=self.config.backlog,
                ssl=tls,
                ssl_handshake_timeout=None if tls is None else self._limits.header_seconds,
            )
            self.servers.append(listening)
        if tls is not None:
            self._renewal = asyncio.create_task(keep_fresh(Certificate(tls, *self._tls_files)))
        self.started = True
        self._on_started()

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        if self._renewal is not None:
            self._renewal.cancel()
        await super().shutdown(sockets)

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def limits_of(settings: ServerConfig) -> ConnectionLimits:
    return ConnectionLimits(
        max_header_bytes=settings.max_header_bytes,
        max_headers=settings.max_headers,
        header_seconds=settings.header_seconds,
        body_seconds=settings.body_seconds,
        stall_seconds=settings.stall_seconds,
        max_connections=settings.max_connections,
    )
