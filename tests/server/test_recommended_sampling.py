"""A model may come with settings of its own for how tokens are picked: a request that says otherwise wins."""

import json
from dataclasses import replace

from engine.request import SamplingParams
from server.generation.sampling import sampling_params
from server.schema.completion import CompletionRequest
from server.schema.parse import parse
from tests.server.scripted import Api

OWN = SamplingParams(temperature=0.6, top_k=20, top_p=0.95, min_p=0.05, repetition_penalty=1.05)
FIELDS = "temperature", "top_k", "top_p", "min_p", "repetition_penalty"


def picked(api: Api, **fields: object) -> dict[str, float]:
    request = parse(CompletionRequest, json.dumps({"prompt": "a"} | fields).encode())
    limits = replace(api.context, sampling=OWN).limits()
    params = sampling_params(request, limits, api.tokenizer, 1)
    return {name: getattr(params, name) for name in FIELDS}


def test_a_request_that_says_nothing_gets_the_models_own(api: Api) -> None:
    own = {name: getattr(OWN, name) for name in FIELDS}
    assert picked(api) == own
    assert picked(api, top_p=None, temperature=None) == own


def test_a_request_wins_field_by_field(api: Api) -> None:
    assert picked(api, temperature=1.5, top_k=0) == {
        "temperature": 1.5,
        "top_k": 0,
        "top_p": 0.95,
        "min_p": 0.05,
        "repetition_penalty": 1.05,
    }
    neutral = {"temperature": 0, "top_k": -1, "top_p": 1, "min_p": 0, "repetition_penalty": 1}
    assert picked(api, **neutral) == neutral | {"top_k": 0}
