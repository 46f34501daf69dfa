"""What clients tell the engine, taken in between two steps."""

import time
from typing import TYPE_CHECKING

import msgspec
import zmq

from engine.request import Abort, ClientGone, Encode, Submit, ToEngine

if TYPE_CHECKING:
    from engine.loop.encoder_loop import EncoderEngine
    from engine.loop.loop import Engine

MIN_MESSAGES = 128  # taken between two steps, so that a storm of requests does not hold up the rows
STEP_PART = (
    1 / 16
)  # of the last step's time, where that is enough for more: a long step computes much for clients that have left


class Intake:
    """Reads the socket that the clients' requests come to."""

    def __init__(self, socket: zmq.Socket[bytes]) -> None:
        self._socket = socket
        self._decode = msgspec.msgpack.Decoder(ToEngine).decode

    def take(self, engine: "Engine | EncoderEngine", step_seconds: float) -> None:
        """What has come, or as much of it as the rows can wait for."""
        limit, count = time.perf_counter() + step_seconds * STEP_PART, 0
        while count < MIN_MESSAGES or time.perf_counter() < limit:
            count += 1
            try:
                client, payload = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            match self._decode(payload):
                case (Submit() | Encode()) as request:
                    engine.submit(request, int(client))
                case Abort() as abort:
                    engine.abort(abort)
                case ClientGone() as gone:
                    engine.abort(Abort(ids=tuple(engine.requests_of(gone.client)), cause="client_gone"))
