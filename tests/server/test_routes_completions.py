"""POST /v1/completions, answered in one piece."""

import pytest

from engine.request import SamplingParams
from server.text.tokenizer import Tokenizer
from tests.server.scripted import MAX_MODEL_LEN, Api, complete


def sampling(api: Api) -> SamplingParams:
    return api.engine.submits[-1].sampling


def test_an_answer_until_the_end_of_sequence(api: Api) -> None:
    answer = complete(api)
    num_tokens = len(api.tokenizer.encode("Hello, wide world.", False)) + 1
    assert answer["object"] == "text_completion"
    assert answer["model"] == "scripted"
    assert answer["id"].startswith("cmpl-")
    assert answer["choices"] == [
        {
            "index": 0,
            "text": "Hello, wide world.",
            "logprobs": None,
            "finish_reason": "stop",
            "stop_reason": None,
        }
    ]
    assert answer["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": num_tokens,
        "total_tokens": 4 + num_tokens,
        "prompt_tokens_details": {"cached_tokens": 0},
    }


def test_the_engine_gets_what_was_asked_for(api: Api) -> None:
    fields = {
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 40,
        "min_p": 0.1,
        "repetition_penalty": 1.1,
        "presence_penalty": 0.2,
        "frequency_penalty": 0.3,
        "logit_bias": {"5": -3},
        "allowed_token_ids": [5, 6, 5],
        "stop_token_ids": [7],
        "min_tokens": 2,
        "seed": 11,
        "logprobs": 3,
        "bad_words": ["the"],
    }
    complete(api, **fields)
    eos_id = api.tokenizer.special.eos_ids[0]
    the = (api.tokenizer.encode("the", False)[0], api.tokenizer.encode(" the", False)[0])
    assert sampling(api) == SamplingParams(
        max_tokens=20,
        min_tokens=2,
        temperature=0.5,
        top_k=40,
        top_p=0.9,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.2,
        frequency_penalty=0.3,
        logit_bias={5: -3.0},
        allowed_token_ids=(5, 6),
        banned_token_ids=the,
        stop_token_ids=(eos_id, 7),
        seed=11,
        logprobs=3,
    )


def test_the_defaults(api: Api) -> None:
    complete(api, max_tokens=None)
    given = sampling(api)
    assert given.max_tokens == 16
    assert given.temperature == 1.0
    assert given.stop_token_ids == api.tokenizer.special.eos_ids
    assert (given.top_k, given.logprobs, given.prompt_logprobs) == (0, None, None)
    submit = api.engine.submits[-1]
    assert (submit.priority, submit.cache_salt) == (0, "")


def test_a_seed_is_drawn_when_none_is_given(api: Api) -> None:
    seeds = set()
    for fields in ({}, {"seed": -1}, {"seed": None}):
        complete(api, **fields)
        seeds.add(sampling(api).seed)
    assert len(seeds) == 3
    complete(api, seed=-2)
    assert sampling(api).seed == 2**63 - 2


def test_greedy_and_off_values(api: Api) -> None:
    complete(api, temperature=1e-7, top_k=-1)
    assert (sampling(api).temperature, sampling(api).top_k) == (0.0, 0)
    complete(api, top_k=10**6)
    assert sampling(api).top_k == 0


def test_ignore_eos_leaves_the_users_stop_tokens(api: Api) -> None:
    complete(api, ignore_eos=True, stop_token_ids=[9])
    assert sampling(api).stop_token_ids == (9,)


def test_the_default_number_of_tokens_fits_the_context(api: Api) -> None:
    complete(api, prompt=[5] * (MAX_MODEL_LEN - 3), max_tokens=None)
    assert sampling(api).max_tokens == 3


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("Hi", ["Hi"]),
        (["Hi", "there"], ["Hi", "there"]),
        ([28120, 905], [[28120, 905]]),
        ([[28120], [905]], [[28120], [905]]),
    ],
)
def test_every_kind_of_prompt(api: Api, prompt: object, expected: list[str | list[int]]) -> None:
    answer = complete(api, prompt=prompt)
    ids = [item if isinstance(item, list) else api.tokenizer.encode(item) for item in expected]
    assert [list(submit.prompt) for submit in api.engine.submits] == ids
    assert [choice["index"] for choice in answer["choices"]] == list(range(len(expected)))
    assert answer["usage"]["prompt_tokens"] == sum(map(len, ids))


def test_n_choices_of_two_prompts(api: Api) -> None:
    api.engine.script.num_cached = 1
    answer = complete(api, prompt=["Hi", "there"], n=3, seed=5, max_tokens=2)
    assert [choice["index"] for choice in answer["choices"]] == list(range(6))
    assert [submit.sampling.seed for submit in api.engine.submits] == [5, 6, 7, 5, 6, 7]
    assert len({submit.id for submit in api.engine.submits}) == 6
    assert answer["usage"] == {
        "prompt_tokens": 2,
        "completion_tokens": 12,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_choices_without_a_seed_differ(api: Api) -> None:
    complete(api, n=4)
    assert len({submit.sampling.seed for submit in api.engine.submits}) == 4


def test_a_stop_string_ends_the_text_and_the_request(api: Api) -> None:
    answer = complete(api, stop=[" wide", "zzz"])
    assert answer["choices"][0] == {
        "index": 0,
        "text": "Hello,",
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": " wide",
    }
    assert api.engine.aborts[0][1] == "stop_string"
    assert answer["usage"]["completion_tokens"] == 3


def test_a_stop_string_across_tokens_that_arrive_together(api: Api) -> None:
    api.engine.script.together = 8
    answer = complete(api, stop="ide wor")
    assert answer["choices"][0]["text"] == "Hello, w"
    assert answer["usage"]["completion_tokens"] == 4


def test_a_stop_string_can_be_shown(api: Api) -> None:
    answer = complete(api, stop="wide", include_stop_str_in_output=True)
    assert answer["choices"][0]["text"] == "Hello, wide"


def test_a_stop_token_of_the_user_is_the_reason(api: Api) -> None:
    wide = api.tokenizer.encode(" wide", False)[0]
    choice = complete(api, stop_token_ids=[wide])["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("Hello,", "stop", wide)
    choice = complete(api, stop_token_ids=[wide], include_stop_str_in_output=True)["choices"][0]
    assert choice["text"] == "Hello, wide"


def test_the_end_by_length(api: Api) -> None:
    choice = complete(api, max_tokens=2)["choices"][0]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("Hello,", "length", None)


def test_special_tokens_are_shown_on_request(api: Api) -> None:
    api.script("<repo_name>Hi")
    assert complete(api)["choices"][0]["text"] == "Hi"
    assert complete(api, skip_special_tokens=False)["choices"][0]["text"] == "<repo_name>Hi"


def test_half_a_character_at_the_end_is_shown_as_such(api: Api) -> None:
    smile = api.tokenizer.encode("\U0001f642", False)
    assert len(smile) > 1
    api.script("\U0001f642")
    assert complete(api, max_tokens=1)["choices"][0]["text"] == "\ufffd"
    assert complete(api)["choices"][0]["text"] == "\U0001f642"


def test_token_ids_are_returned(api: Api) -> None:
    choice = complete(api, prompt=[10, 20], return_token_ids=True, max_tokens=2)["choices"][0]
    assert choice["prompt_token_ids"] == [10, 20]
    assert choice["token_ids"] == api.tokenizer.encode("Hello,", False)


def test_a_prompt_is_cut_where_asked(api: Api) -> None:
    ids = list(range(10, 30))
    complete(api, prompt=ids, truncate_prompt_tokens=4)
    assert list(api.engine.submits[-1].prompt) == ids[-4:]
    complete(api, prompt=ids, truncate_prompt_tokens=4, truncation_side="right")
    assert list(api.engine.submits[-1].prompt) == ids[:4]
    complete(api, prompt=ids * 100, truncate_prompt_tokens=-1, max_tokens=6)
    assert len(api.engine.submits[-1].prompt) == MAX_MODEL_LEN - 6


def test_a_cut_text_keeps_the_token_every_text_begins_with(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "Once upon a time in a far land"
    ids = api.tokenizer.encode(text)
    monkeypatch.setattr(Tokenizer, "first_id", ids[0])
    complete(api, prompt=text, truncate_prompt_tokens=3)
    assert list(api.engine.submits[-1].prompt) == [ids[0], *ids[-2:]]
    complete(api, prompt=ids, truncate_prompt_tokens=3)
    assert list(api.engine.submits[-1].prompt) == ids[-3:]


def test_what_prompts_share_is_made_once(api: Api) -> None:
    complete(api, prompt=["a", "b"], bad_words=["the"], n=2)
    first, *others = [submit.sampling for submit in api.engine.submits]
    assert len(first.banned_token_ids) == 2
    assert all(other.banned_token_ids is first.banned_token_ids for other in others)


def test_cache_salt_reaches_the_engine(api: Api) -> None:
    complete(api, cache_salt="tenant")
    assert api.engine.submits[-1].cache_salt == "tenant"


def test_the_request_id_is_the_callers(api: Api) -> None:
    body = {"prompt": "a", "max_tokens": 1}
    response = api.client.post("/v1/completions", json=body | {"request_id": "mine"})
    assert response.json()["id"] == "cmpl-mine"
    assert response.headers["x-request-id"] == "mine"
    response = api.client.post("/v1/completions", json=body, headers={"X-Request-Id": "header"})
    assert response.json()["id"] == "cmpl-header"
    response = api.client.post("/v1/completions", json=body, headers={"X-Request-Id": "bad header"})
    assert response.json()["id"] == f"cmpl-{response.headers['x-request-id']}"
    assert " " not in response.headers["x-request-id"]


def test_a_prompt_too_long_tells_both_numbers(api: Api) -> None:
    response = api.client.post("/v1/completions", json={"prompt": "word " * 6000, "max_tokens": 1})
    error = response.json()["error"]
    assert response.status_code == 400
    assert error["code"] == "context_length_exceeded"
    assert error["n_prompt_tokens"] > 6000
    assert error["max_model_len"] == MAX_MODEL_LEN
    assert error["param"] == "prompt"
