"""Puts one server process's application together: the model's text side, the metrics, the routes."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from fastapi import FastAPI

from engine.checkpoint import Checkpoint, open_checkpoint
from engine.client.client import EngineClient
from engine.request import SamplingParams
from server.access_log import AccessLog
from server.admin.commands import Command
from server.admin.desk import AdminDesk
from server.app import create_app
from server.auth.access import Access
from server.auth.hosts import Hosts
from server.auth.key import Key
from server.auth.ledger import Ledger
from server.config import Config
from server.context import AppContext, Reading
from server.metrics.metrics import ServerMetrics
from server.text.encoder import Encoder
from server.text.input_encoder import InputEncoder
from server.text.input_tokenizer import InputTokenizer
from server.text.load import load_template, load_tokenizer
from server.text.tokenizer import Tokenizer

if TYPE_CHECKING:
    from server.tracing.tracer import RequestTracer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Served:
    """The application, and what its process needs of it."""

    app: FastAPI
    metrics: ServerMetrics
    model: str
    tracer: "RequestTracer | None"
    access: Access
    desk: AdminDesk


@dataclass(frozen=True, slots=True)
class Here:
    """This server process among those of its deployment, which began at `began` (seconds since 1970)."""

    directory: Path
    index: int
    keys: tuple[Key, ...]
    began: float

    @property
    def name(self) -> str:
        """In the metrics."""
        return f"server-{self.index}"


def assemble(config: Config, client: EngineClient, here: Here, ask: Callable[[int, Command], None]) -> Served:
    """`ask` passes an administrator's commands on. Raises CheckpointError or ModelTextError."""
    checkpoint = open_checkpoint(config.engine.model)
    tokenizer = load_tokenizer(checkpoint)
    model = config.server.served_model_name or checkpoint.name
    if here.index == 0 and checkpoint.sampling != SamplingParams():
        logger.info("where a request does not say, the model's own holds: %s", checkpoint.sampling)
    metrics = ServerMetrics(model, here.directory, here.name)
    hosts = Hosts(config.server.allowed_hosts.split(","))
    access, desk = Access(here.keys, Ledger(here.directory, here.index), hosts), AdminDesk(ask)
    context = AppContext(
        config=config,
        client=client,
        tokenizer=tokenizer,
        encoder=Encoder(tokenizer),
        template=load_template(checkpoint, tokenizer, config.server.chat_template),
        metrics=metrics,
        model=model,
        created=int(here.began),
        version=version("tokenloom"),
        sampling=checkpoint.sampling,
        reading=read_by(checkpoint, tokenizer),
        access_log=AccessLog() if config.server.access_log else None,
        tracer=make_tracer(config.server.otlp_endpoint, model, here.name),
        access=access,
        desk=desk,
    )
    return Served(create_app(context), metrics, model, context.tracer, access, desk)


def make_tracer(endpoint: str, model: str, process: str) -> "RequestTracer | None":
    """None without an endpoint: then nothing of OpenTelemetry is loaded."""
    if not endpoint:
        return None
    from server.tracing.export import exporting_tracer

    return exporting_tracer(endpoint, model, version("tokenloom"), process)


def read_by(checkpoint: Checkpoint, tokenizer: Tokenizer) -> Reading | None:
    """How an encoder reads; None for a decoder."""
    if not isinstance(tokenizer, InputTokenizer):
        return None
    return Reading(checkpoint.encoder, tokenizer, InputEncoder(tokenizer))
