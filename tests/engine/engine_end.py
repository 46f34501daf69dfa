"""The engine's end of the sockets, driven by a test."""

import asyncio
import time
from collections.abc import Callable

import msgspec
import numpy as np
import zmq

from engine import wire
from engine.client.client import EngineClient
from engine.request import Emit, EngineInfo, Finish, Status, ToEngine


class EngineEnd:
    def __init__(self, endpoint: str, epoch: int) -> None:
        self.epoch = epoch
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._router = wire.open_socket(self._context, zmq.ROUTER)
        self._router.setsockopt(
            zmq.ROUTER_MANDATORY, 1
        )  # else what is sent to a client that is connecting is dropped
        self._router.bind(wire.requests_address(endpoint, epoch))
        self._status = wire.open_socket(self._context, zmq.XPUB)
        self._status.bind(wire.status_address(endpoint, epoch))

    async def ready(self, client: EngineClient) -> None:
        await self.subscribed()
        self.publish(info(self.epoch))
        self.publish(status(self.epoch))
        await until(lambda: client.state == "ready")

    async def subscribed(self) -> None:
        await until(lambda: bool(self._status.poll(0)))
        self._status.recv()

    def publish(self, message: Status | EngineInfo) -> None:
        self._status.send(msgspec.msgpack.encode(message))

    def emit(self, emit: Emit, client: int = 3) -> None:
        """To a client that is connected, or will be in a moment."""
        message = (wire.identity(client), msgspec.msgpack.encode(emit))
        deadline = time.monotonic() + 5.0
        while True:
            try:
                self._router.send_multipart(message)
                return
            except zmq.ZMQError as error:
                if error.errno != zmq.EHOSTUNREACH or time.monotonic() > deadline:
                    raise
                time.sleep(0.001)

    async def received(self) -> ToEngine:
        await until(lambda: bool(self._router.poll(0)))
        _, payload = self._router.recv_multipart()
        message: ToEngine = msgspec.msgpack.decode(payload, type=ToEngine)
        return message

    def close(self) -> None:
        self._router.close()
        self._status.close()
        self._context.term()


async def until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    """Wait for it, as long as it may take."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        await asyncio.sleep(0.002)


def info(epoch: int) -> EngineInfo:
    return EngineInfo(
        epoch=epoch,
        max_model_len=64,
        max_requests=4,
        kv_tokens=256,
        block_size=16,
        dtype="float32",
        device="cpu",
        phases={"load": 2.5},
        memory={},
    )


def status(epoch: int, step: int = 0, num_running: int = 0, state: str = "ready") -> Status:
    return Status(epoch=epoch, state=state, step=step, num_running=num_running, num_waiting=0, kv_usage=0.0)


def tokens_of(step: int, *entries: tuple[int, int, Finish]) -> Emit:
    return Emit(
        step=step,
        ids=np.array([id for id, _, _ in entries], "<i8").tobytes(),
        tokens=np.array([token for _, token, _ in entries], "<i4").tobytes(),
        finishes=np.array([finish for _, _, finish in entries], np.uint8).tobytes(),
    )
