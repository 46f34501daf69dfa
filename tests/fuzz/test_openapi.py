"""Requests made from the OpenAPI description, good ones and bad ones: no fault of the server's, and answers as described."""

from collections import Counter
from collections.abc import Iterator
from typing import Any, TypeAlias

import jsonschema_rs
import pytest
import schemathesis
import schemathesis.specs.openapi.schemas  # not at the first use: CPython 3.11 fails to parse while a server's thread does, too
from hypothesis import given
from schemathesis import Case, CheckFunction, GenerationMode
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation

from tests.fuzz.effort import effort
from tests.server.bad_request import check_error
from tests.server.scripted import Api, serve_api
from tests.server.scripted_encoder_client import serve_encoder

Operation: TypeAlias = "APIOperation[Any, Any, Any, Any]"
# Whether a good request is taken is left out: a model's limits and rules between fields are in no schema.
HELD = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
)


@pytest.fixture(scope="module")
def decoder() -> Iterator[Api]:
    with serve_api() as api:
        yield api


def whole(value: Any) -> Any:
    """JSON Schema takes 3.0 for a whole number, and the server does not."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case dict():
            return {key: whole(item) for key, item in value.items()}
        case list():
            return [whole(item) for item in value]
    return value


class Run:
    """The operations of one server."""

    def __init__(self, url: str) -> None:
        load_all_checks()
        found = CHECKS.get_by_names(list(HELD))
        self._checks: list[CheckFunction] = [check for check in found if not isinstance(check, type)]
        assert len(self._checks) == len(HELD)
        self._url = url
        self.statuses: Counter[int] = Counter()

    def operations(self) -> list[Operation]:
        schema = schemathesis.openapi.from_url(f"{self._url}/openapi.json")
        return [found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)]

    def explore(self, operation: Operation, mode: GenerationMode, part: float) -> None:
        @effort(part)
        @given(case=operation.as_strategy(generation_mode=mode))
        def one(case: "Case[Any]") -> None:
            if mode is GenerationMode.POSITIVE and isinstance(case.body, dict):
                case.body = whole(case.body) | ({"model": None} if "model" in case.body else {})
            response = case.call(timeout=20)
            case.validate_response(response, checks=self._checks)
            self.statuses[response.status_code] += 1

        one()


def explore_all(url: str, part: float) -> Run:
    run = Run(url)
    for operation in run.operations():
        has_body = bool(operation.body)
        for mode in (
            (GenerationMode.POSITIVE, GenerationMode.NEGATIVE) if has_body else (GenerationMode.POSITIVE,)
        ):
            run.explore(operation, mode, part if has_body else part / 5)
    return run


def test_a_decoders_description(decoder: Api) -> None:
    run = explore_all(f"http://127.0.0.1:{decoder.port}", 0.12)
    assert run.statuses[200] > 10 and run.statuses[400] > 10
    assert decoder.client.get("/health").status_code == 200


def test_an_encoders_description() -> None:
    with serve_encoder() as api:
        run = explore_all(str(api.client.base_url), 0.05)
        assert run.statuses[200] > 5 and run.statuses[400] > 10
        assert api.client.get("/health").status_code == 200


def test_errors_are_as_described(decoder: Api) -> None:
    document = decoder.client.get("/openapi.json").json()
    validator = jsonschema_rs.validator_for(document["components"]["schemas"]["Error"])
    for method, path in (("GET", "/no/such"), ("DELETE", "/v1/models"), ("POST", "/v1/completions")):
        response = decoder.client.request(method, path)
        check_error(response, response.status_code)
        validator.validate(response.json())


def test_every_reference_leads_somewhere(decoder: Api) -> None:
    document = decoder.client.get("/openapi.json").json()
    references = list(_references(document))
    assert len(references) > 10
    for reference in references:
        place = document
        for part in reference.removeprefix("#/").split("/"):
            place = place[part]
    for operations in document["paths"].values():
        for operation in operations.values():
            assert set(operation["responses"]) == {"200", "default"}


def _references(value: Any) -> Iterator[str]:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    for item in items:
        yield from _references(item)
    if isinstance(value, dict) and isinstance(value.get("$ref"), str):
        yield value["$ref"]
