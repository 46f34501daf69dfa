"""`from engine import LLM` with the bundled model: the answers are transformers', whoever is in the batch."""

import json
import signal
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict

import pytest
from tokenizers import Tokenizer, decoders, models

from engine import LLM, SamplingParams
from engine.offline.outputs import RequestOutput
from engine.offline.turns import FEWEST_TOKENS
from engine.request import MAX_STOP_IDS, Submit

REFERENCES = Path(__file__).parents[1] / "data/smollm2_refs.json"


class Case(TypedDict):
    """Greedy output of transformers in float32."""

    prompt_text: str
    prompt_ids: list[int]
    messages: list[dict[str, object]] | None
    output_ids: list[int]
    output_text_skip_special: str
    finish: str
    max_new_tokens: int


def read_cases() -> list[Case]:
    cases: list[Case] = json.loads(REFERENCES.read_text(encoding="utf-8"))["items"]
    return cases


CASES = read_cases()


@pytest.fixture(scope="module")
def llm() -> Iterator[LLM]:
    with LLM(dtype="float32", kv_tokens=4096, max_batch_tokens=64, max_requests=16) as made:
        yield made


def greedy(max_tokens: int) -> SamplingParams:
    return SamplingParams(temperature=0.0, max_tokens=max_tokens)


def test_all_references_at_once_in_order(llm: LLM) -> None:
    params = [greedy(case["max_new_tokens"]) for case in CASES]
    outputs = llm.generate([case["prompt_ids"] for case in CASES], params, progress=False)
    for case, output in zip(CASES, outputs, strict=True):
        answer = output.outputs[0]
        assert list(output.prompt_token_ids) == case["prompt_ids"]
        assert list(answer.token_ids) == case["output_ids"]
        assert answer.text == case["output_text_skip_special"]
        assert answer.finish_reason == case["finish"]


def test_text_prompts_are_encoded_and_stop_tokens_named(llm: LLM) -> None:
    case = next(case for case in CASES if case["finish"] == "stop")
    [output] = llm.generate(case["prompt_text"], greedy(64), progress=False)
    assert output.prompt == case["prompt_text"]
    assert list(output.outputs[0].token_ids) == case["output_ids"]
    assert output.outputs[0].stop_reason == case["output_ids"][-1]


def test_chat_renders_the_template(llm: LLM) -> None:
    chats = [case["messages"] for case in CASES if case["messages"] and len(case["prompt_ids"]) < 200][:3]
    cases = [case for case in CASES if case["messages"] in chats]
    outputs = llm.chat([case["messages"] or [] for case in cases], greedy(64), progress=False)
    assert [output.prompt for output in outputs] == [case["prompt_text"] for case in cases]
    assert [list(output.outputs[0].token_ids) for output in outputs] == [case["output_ids"] for case in cases]
    [alone] = llm.chat(cases[0]["messages"] or [], greedy(64), progress=False)
    assert alone.outputs == outputs[0].outputs


def test_stop_strings_end_an_answer_and_are_not_shown(llm: LLM) -> None:
    question = [{"role": "user", "content": "What is the capital of France?"}]
    [output] = llm.chat(question, greedy(64), stop=["Par", "never"], progress=False)
    answer = output.outputs[0]
    assert (answer.text, answer.finish_reason, answer.stop_reason) == (
        "The capital of France is ",
        "stop",
        "Par",
    )
    assert len(answer.token_ids) == 6
    assert (
        llm.chat(question, greedy(64), progress=False)[0].outputs[0].text == "The capital of France is Paris."
    )
    assert llm.chat(question, greedy(64), stop="Par", progress=False)[0].outputs == output.outputs


def test_logprobs_come_with_their_tokens(llm: LLM) -> None:
    params = SamplingParams(temperature=0.0, max_tokens=5, logprobs=2, prompt_logprobs=0)
    [output] = llm.generate([CASES[0]["prompt_ids"]], params, progress=False)
    answer = output.outputs[0]
    assert answer.logprobs is not None
    assert [entry.token_id for entry in answer.logprobs] == list(answer.token_ids)
    assert all(entry.rank == 1 and entry.top_ids[0] == entry.token_id for entry in answer.logprobs)
    assert all(len(entry.top_ids) == 2 for entry in answer.logprobs)
    assert output.prompt_logprobs is not None
    assert [entry.token_id for entry in output.prompt_logprobs] == CASES[0]["prompt_ids"][1:]


def texts(outputs: list[RequestOutput]) -> list[list[str]]:
    return [[answer.text for answer in output.outputs] for output in outputs]


def test_seeds_repeat_and_choices_differ(llm: LLM) -> None:
    params = SamplingParams(max_tokens=12, seed=7)
    first = texts(llm.generate(["Once upon a time"], params, n=3, progress=False))
    again = texts(llm.generate(["Once upon a time", "The sky is"], params, n=3, progress=False))
    assert again[0] == first[0]
    assert len(set(first[0])) == 3
    unseeded = texts(llm.generate(["Once upon a time"] * 3, SamplingParams(max_tokens=12), progress=False))
    assert len({answers[0] for answers in unseeded}) == 3


def test_ignore_eos_runs_to_the_limit(llm: LLM) -> None:
    case = next(case for case in CASES if case["finish"] == "stop")
    [output] = llm.generate([case["prompt_ids"]], greedy(40), ignore_eos=True, progress=False)
    assert (len(output.outputs[0].token_ids), output.outputs[0].finish_reason) == (40, "length")


@pytest.mark.parametrize(
    ("prompts", "params", "message"),
    [
        ([[]], greedy(1), "prompt 0 has no tokens"),
        ([[1], [50000]], greedy(1), r"prompt 1 = 50000 is not a token id; accepted: 0 to 49151"),
        ([[1] * 4090], greedy(100), r"prompt 0 has 4090 tokens and max_tokens is 100"),
        (["a"], SamplingParams(temperature=-1.0), r"temperature = -1.0 is not accepted; accepted: 0 to 2"),
        (["a"], SamplingParams(top_p=0.0), "top_p = 0.0"),
        (["a"], SamplingParams(temperature=float("nan")), "temperature = nan"),
        (
            ["a"],
            SamplingParams(max_tokens=2, min_tokens=3),
            r"min_tokens = 3 is not accepted; accepted: 0 to 2",
        ),
        (["a"], SamplingParams(logprobs=21), r"logprobs = 21 is not accepted; accepted: 0 to 20"),
        (
            ["a"],
            SamplingParams(stop_token_ids=tuple(range(3, 3 + MAX_STOP_IDS))),
            f"stop_token_ids has {MAX_STOP_IDS} ids; accepted: at most {MAX_STOP_IDS - 1} beside the model's",
        ),
        (["a"], SamplingParams(logit_bias={49152: 1.0}), "logit_bias = 49152"),
        (["a"], SamplingParams(logit_bias={1: 101.0}), "logit_bias = 101.0"),
        (["a", "b"], [greedy(1)], "params has 1 entries for 2 prompts"),
        ([1, 2], greedy(1), "prompt 0 is 1; accepted: a text, or a list of token ids"),
        ([[1.0]], greedy(1), r"prompt 0 is \[1.0\]; accepted: a text"),
        ([b"ab"], greedy(1), "prompt 0 is b'ab'; accepted: a text"),
        (["a"], {"max_tokens": 3}, "params is or has 'max_tokens'; accepted: SamplingParams"),
        (["a"], SamplingParams(max_tokens=2.5), r"max_tokens = 2.5 is not accepted; accepted: int"),  # type: ignore[arg-type]
        (["a"], SamplingParams(logit_bias={"5": 1.0}), "logit_bias = .* is not accepted"),  # type: ignore[dict-item]
    ],
)
def test_bad_input_is_refused_by_name(llm: LLM, prompts: Any, params: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        llm.generate(prompts, params, progress=False)
    assert llm.generate(["still"], greedy(1), progress=False)[0].outputs[0].finish_reason == "length"


def test_an_interrupted_call_leaves_nothing_behind(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    num_steps = 0
    step = llm._local.engine.step

    def interrupted(step_tokens: int | None = None) -> None:
        nonlocal num_steps
        num_steps += 1
        if num_steps == 4:
            raise KeyboardInterrupt
        step(step_tokens)  # type: ignore[call-arg]

    monkeypatch.setattr(llm._local.engine, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["one", "two"], greedy(200), ignore_eos=True, progress=False)
    monkeypatch.undo()
    assert not llm._local.engine.has_work
    llm._local.engine.idle()
    case = CASES[0]
    [output] = llm.generate([case["prompt_ids"]], greedy(64), progress=False)
    assert list(output.outputs[0].token_ids) == case["output_ids"]


@pytest.fixture
def python_handles_ctrl_c() -> Iterator[None]:
    """As it does but where tests are a shell's background job."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("python_handles_ctrl_c")
def test_ctrl_c_within_a_step_waits_for_its_end(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    scheduler: Any = llm._local.engine._scheduler
    commit = scheduler.commit
    handled_before = signal.getsignal(signal.SIGINT)

    def interrupted(*arguments: Any) -> None:
        signal.raise_signal(signal.SIGINT)  # its handler runs here
        commit(*arguments)

    monkeypatch.setattr(scheduler, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        llm.generate(["one", "two"], greedy(200), ignore_eos=True, progress=False)
    monkeypatch.undo()
    assert signal.getsignal(signal.SIGINT) is handled_before
    llm._local.engine.idle()
    [output] = llm.generate([CASES[0]["prompt_ids"]], greedy(64), progress=False)
    assert list(output.outputs[0].token_ids) == CASES[0]["output_ids"]


def test_the_longest_answers_begin_and_steps_are_even(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    engine: Any = llm._local.engine
    submit, step, begun, sizes = engine.submit, engine.step, list[int](), set[int | None]()

    def submitted(message: Submit, client: int) -> None:
        begun.append(message.sampling.max_tokens)
        submit(message, client)

    def stepped(step_tokens: int | None = None) -> None:
        sizes.add(step_tokens)
        step(step_tokens)

    monkeypatch.setattr(engine, "submit", submitted)
    monkeypatch.setattr(engine, "step", stepped)
    prompts = [(7,) * 700, (8, 9), (9, 9, 9)]
    outputs = llm.generate(prompts, [greedy(1), greedy(3), greedy(2)], ignore_eos=True, progress=False)
    assert begun == [3, 2, 1]
    assert sizes == {FEWEST_TOKENS}
    assert [len(output.outputs[0].token_ids) for output in outputs] == [1, 3, 2]


def test_any_thread_may_generate(llm: LLM) -> None:
    found: list[RequestOutput] = []
    thread = threading.Thread(target=lambda: found.extend(llm.generate("one", greedy(2), progress=False)))
    thread.start()
    thread.join()
    assert len(found[0].outputs[0].token_ids) == 2


@pytest.mark.parametrize("messages", ["hello", ["hello"], [{"role": "user", "content": "a"}, []]])
def test_what_is_no_conversation_is_refused(llm: LLM, messages: Any) -> None:
    with pytest.raises(ValueError, match=r"messages is .*; accepted: \[\{'role'"):
        llm.chat(messages, progress=False)


def test_the_models_own_sampling_is_the_default(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> None:
    own = replace(llm._checkpoint, sampling=SamplingParams(temperature=0.0, max_tokens=3))
    monkeypatch.setattr(llm, "_checkpoint", own)
    [output] = llm.generate([CASES[0]["prompt_ids"]], progress=False)
    assert list(output.outputs[0].token_ids) == CASES[0]["output_ids"][:3]


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    config = {"architectures": ["LlamaForCausalLM"], "vocab_size": 49152, "max_position_embeddings": 64}
    sizes = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 1}
    (tmp_path / "config.json").write_text(json.dumps(config | sizes))
    tokenizer = Tokenizer(models.WordLevel({"a": 0}, unk_token="a"))
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    llm = LLM(str(tmp_path), load_format="dummy", dtype="float32", kv_tokens=64)
    llm.close()
    llm.close()
    with pytest.raises(RuntimeError, match="was closed"):
        llm.generate("a", greedy(1), progress=False)


def test_settings_and_models_that_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="max_requests = -1 is not accepted"):
        LLM(max_requests=-1)
    with pytest.raises(ValueError, match="device = 'gpu' is not accepted; accepted: auto, cpu, cuda"):
        LLM(device="gpu")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no such file or folder"):
        LLM(str(tmp_path / "gone"))
