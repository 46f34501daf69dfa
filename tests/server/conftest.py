"""The HTTP server before a scripted engine, of a decoder or of an encoder."""

from collections.abc import Iterator

import pytest

from tests.server.scripted import Api, serve_api
from tests.server.scripted_encoder_client import EncoderApi, serve_encoder


@pytest.fixture(scope="session")
def shared_api() -> Iterator[Api]:
    with serve_api() as api:
        yield api


@pytest.fixture
def api(shared_api: Api) -> Api:
    """Reset to its first state."""
    shared_api.reset()
    return shared_api


@pytest.fixture
def embedder(shared_embedder: EncoderApi) -> EncoderApi:
    """The module's own, reset to its first state."""
    shared_embedder.reset()
    return shared_embedder


@pytest.fixture(scope="module")
def shared_cross_encoder() -> Iterator[EncoderApi]:
    with serve_encoder(task="classify", labels=("LABEL_0",), activation="sigmoid") as api:
        yield api


@pytest.fixture
def cross_encoder(shared_cross_encoder: EncoderApi) -> EncoderApi:
    shared_cross_encoder.reset()
    return shared_cross_encoder
