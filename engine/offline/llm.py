"""The offline front end: prompts in, answers out, texts in, vectors out, in this process, without HTTP.

The one module of the engine that uses the server's text side (tokenizer, chat template, stop strings).
"""

import dataclasses
import random
from collections.abc import Sequence
from itertools import count
from types import TracebackType
from typing import Literal, Self

import msgspec

from engine.checkpoint import open_checkpoint
from engine.config import EngineConfig
from engine.encode_step import Output
from engine.offline.answer import Answer, Answers
from engine.offline.encodings import Encodings
from engine.offline.local import LocalEngine
from engine.offline.outputs import Classification, RequestOutput
from engine.offline.progress import token_bar
from engine.offline.prompts import find_prompt, role_prompt
from engine.offline.scores import activate, classification, cosines
from engine.offline.transcript import Transcript, gather
from engine.offline.turns import even_tokens, longest_first
from engine.offline.validate import (
    Message,
    ModelLimits,
    check_input,
    check_prompt,
    check_sampling,
    check_stop_ids,
    read_conversations,
    read_ids,
    spread_params,
)
from engine.request import Abort, Encode, SamplingParams, Submit, Task
from server.text.detokenizer import Detokenizer
from server.text.input_tokenizer import Encoded, InputTokenizer
from server.text.load import load_template, load_tokenizer
from server.text.stop import StopStrings
from server.text.stream import TextStream
from server.text.truncation import Cut, TextInput

Prompts = str | Sequence[str] | Sequence[Sequence[int]]


class LLM:
    """A model in this process.

    `model` and the rest mean what they do in `EngineConfig`; the queue has no bound here. `seed` makes runs
    repeatable: requests whose own seed is 0 draw theirs from it. Not thread-safe.

    Raises ValueError for settings or a model that cannot be used.
    """

    def __init__(
        self,
        model: str = "",
        *,
        load_format: Literal["auto", "dummy"] = "auto",
        device: Literal["auto", "cpu", "cuda"] = "auto",
        dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto",
        threads: int = 0,
        max_model_len: int = 0,
        max_requests: int = 0,
        max_batch_tokens: int = 0,
        block_size: int = 16,
        kv_tokens: int = 0,
        kv_memory: int = 0,
        gpu_memory: int = 0,
        prefix_cache: bool = True,
        max_logprobs: int = 20,
        deterministic: bool = False,
        chat_template: str = "",
        seed: int = 0,
    ) -> None:
        config = EngineConfig(
            model=model,
            load_format=load_format,
            device=device,
            dtype=dtype,
            threads=threads,
            max_model_len=max_model_len,
            max_requests=max_requests,
            max_batch_tokens=max_batch_tokens,
            block_size=block_size,
            kv_tokens=kv_tokens,
            kv_memory=kv_memory,
            gpu_memory=gpu_memory,
            prefix_cache=prefix_cache,
            max_logprobs=max_logprobs,
            deterministic=deterministic,
            step_seconds=0,  # nobody waits for the next token of an answer
            max_queued_requests=1 << 32,
            max_queued_tokens=1 << 40,
        )
        config.check()
        checkpoint = self._checkpoint = open_checkpoint(model)
        self._tokenizer = load_tokenizer(checkpoint)
        generates = checkpoint.task == "generate"
        self._template = load_template(checkpoint, self._tokenizer, chat_template) if generates else None
        self._local = LocalEngine(config)
        self._limits = ModelLimits(checkpoint.config.vocab_size, self._local.max_model_len, max_logprobs)
        self._seeds = random.Random(seed)
        self._ids = count(1)

    def generate(
        self,
        prompts: Prompts,
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stop: str | Sequence[str] = (),
        n: int = 1,
        ignore_eos: bool = False,
        progress: bool = True,
    ) -> list[RequestOutput]:
        """Answers to each prompt (text or token ids), in the prompts' order.

        One `params` for all, or one a prompt; None: as the model's makers recommend. Any of the texts in `stop` ends an
        answer and is not shown.
        Raises ValueError for parameters and prompts the model cannot take, before anything is computed.
        """
        self._check_task("generate", "generate")
        bodies: list[str | Sequence[int]] = [prompts] if isinstance(prompts, str) else list(prompts)
        ids = [
            tuple(self._tokenizer.encode(body)) if isinstance(body, str) else read_ids(place, body)
            for place, body in enumerate(bodies)
        ]
        each = spread_params(self._checkpoint.sampling if params is None else params, len(bodies))
        eos_ids = () if ignore_eos else self._tokenizer.special.eos_ids
        for place, (token_ids, wanted) in enumerate(zip(ids, each, strict=True)):
            check_sampling(wanted, self._limits)
            check_stop_ids(wanted.stop_token_ids, eos_ids)
            check_prompt(place, token_ids, wanted.max_tokens, self._limits)
        if n < 1:
            raise ValueError(f"n = {n} is not accepted; accepted: 1 or more")
        completed = [self._complete(wanted, eos_ids) for wanted in each]
        submits = [
            self._submit(token_ids, wanted, index)
            for token_ids, wanted in zip(ids, completed, strict=True)
            for index in range(n)
        ]
        stops = (stop,) if isinstance(stop, str) else tuple(stop)
        transcripts = self._generate(submits, stops, progress)
        return [gather(body, transcripts[place * n : (place + 1) * n]) for place, body in enumerate(bodies)]

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        params: SamplingParams | Sequence[SamplingParams] | None = None,
        *,
        stop: str | Sequence[str] = (),
        n: int = 1,
        progress: bool = True,
    ) -> list[RequestOutput]:
        """Answers to one conversation, or to each of several: `[{"role": "user", "content": "Hi"}]`."""
        self._check_task("chat", "generate")
        assert self._template is not None, "every model that generates text has one"
        texts = [
            self._template.render(chat, add_generation_prompt=True) for chat in read_conversations(messages)
        ]
        prompts = [self._tokenizer.encode(text, add_special_tokens=False) for text in texts]
        outputs = self.generate(prompts, params, stop=stop, n=n, progress=progress)
        return [dataclasses.replace(output, prompt=text) for output, text in zip(outputs, texts, strict=True)]

    def embed(
        self,
        inputs: Prompts,
        *,
        prompt_name: str | None = None,
        truncate: bool = False,
        progress: bool = True,
    ) -> list[Output]:
        """The embedding of each text (or of its token ids, special ones included): float32 [dim], in order.

        `prompt_name` is the one of the model's prompts that goes before each text; None is its default, if it has one.
        Inputs longer than the model takes are refused with ValueError, or cut if `truncate`.
        """
        self._check_task("embed", "embed")
        prompt = find_prompt(self._checkpoint.encoder, prompt_name)
        return self._encode(self._read(inputs, truncate, prompt), progress)

    def classify(
        self, inputs: Prompts, *, truncate: bool = False, progress: bool = True
    ) -> list[Classification]:
        """What each text (or its token ids) is, by a classifier, in order. Raises ValueError as `embed`."""
        self._check_task("classify", "classify")
        config = self._checkpoint.encoder
        logits = self._encode(self._read(inputs, truncate), progress)
        return [classification(values, config.labels, config.activation) for values in logits]

    def score(
        self, query: str, documents: Sequence[str], *, truncate: bool = False, progress: bool = True
    ) -> list[float]:
        """How well each document answers the query: a cross-encoder's score, or the cosine of two embeddings.

        Raises ValueError as `embed`.
        """
        self._check_task("score", "embed", "classify")
        config = self._checkpoint.encoder
        if config.task == "embed":
            before = role_prompt(config, ("document", "passage", "corpus"))
            texts = [role_prompt(config, ("query",)) + query, *(before + text for text in documents)]
            query_vector, *vectors = self._encode(self._read_texts(texts, truncate), progress)
            return cosines(query_vector, vectors)
        if len(config.labels) != 1:
            raise ValueError(f"score needs a classifier with one label; this model has {len(config.labels)}")
        pairs = self._read_texts([(query, document) for document in documents], truncate)
        return [float(activate(logits, config.activation)[0]) for logits in self._encode(pairs, progress)]

    def close(self) -> None:
        """Free the model's memory and threads; nothing can be computed after it."""
        self._local.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _check_task(self, method: str, *tasks: Task) -> None:
        """Raises ValueError if the model does something else."""
        if self._checkpoint.task not in tasks:
            raise ValueError(
                f"{method} is not accepted: the task of {self._checkpoint.name} is {self._checkpoint.task!r}; "
                f"accepted: a model whose task is {' or '.join(map(repr, tasks))}"
            )

    def _complete(self, params: SamplingParams, eos_ids: tuple[int, ...]) -> SamplingParams:
        """With the model's own stop tokens, and a seed where the caller gave none."""
        stop_ids = tuple(dict.fromkeys((*eos_ids, *params.stop_token_ids)))
        seed = params.seed or self._seeds.getrandbits(62)
        return msgspec.structs.replace(params, stop_token_ids=stop_ids, seed=seed)

    def _submit(self, token_ids: tuple[int, ...], params: SamplingParams, index: int) -> Submit:
        """Each of n answers draws its own numbers, the first those of a call with n=1."""
        sampling = msgspec.structs.replace(params, seed=params.seed + index) if index else params
        return Submit(id=next(self._ids), prompt=token_ids, sampling=sampling)

    def _generate(self, submits: Sequence[Submit], stop: Sequence[str], progress: bool) -> list[Transcript]:
        transcripts = {submit.id: Transcript(self._stream(submit, stop), submit) for submit in submits}
        stopped: list[int] = []

        def on_token(answer: Answer) -> None:
            if stop and transcripts[answer.submit.id].read(answer):
                stopped.append(answer.submit.id)

        def after_step() -> None:
            if stopped:
                self._local.engine.abort(Abort(ids=tuple(stopped), cause="stop_string"))
                stopped.clear()
            bar.update(bar.task_ids[0], completed=answers.num_ended, tokens=answers.num_tokens)

        answers = Answers(submits, on_token)
        with token_bar("prompts", len(submits), progress) as bar:
            self._local.run(longest_first(submits), answers, after_step, even_tokens(submits))
        for answer in answers:
            transcripts[answer.submit.id].finish(answer)
        return list(transcripts.values())

    def _stream(self, submit: Submit, stop: Sequence[str]) -> TextStream:
        detokenizer = Detokenizer(self._tokenizer)
        return TextStream(detokenizer, StopStrings(stop), min_tokens=submit.sampling.min_tokens)

    def _read(self, inputs: Prompts, truncate: bool, prompt: str = "") -> list[Encoded]:
        bodies: list[str | Sequence[int]] = [inputs] if isinstance(inputs, str) else list(inputs)
        end = self._limits.max_model_len if truncate else None
        texts = iter(self._read_texts([prompt + body for body in bodies if isinstance(body, str)], truncate))
        return [next(texts) if isinstance(body, str) else Encoded(list(body)[:end], []) for body in bodies]

    def _read_texts(self, texts: Sequence[TextInput], truncate: bool) -> list[Encoded]:
        assert isinstance(self._tokenizer, InputTokenizer), "every encoder has one"
        cut = Cut(self._limits.max_model_len) if truncate else None
        return self._tokenizer.encode_inputs(texts, cut=cut)

    def _encode(self, inputs: Sequence[Encoded], progress: bool) -> list[Output]:
        for place, encoded in enumerate(inputs):
            check_input(place, encoded.token_ids, self._limits)
        messages = [
            Encode(id=next(self._ids), token_ids=tuple(entry.token_ids), type_ids=tuple(entry.type_ids))
            for entry in inputs
        ]
        encodings = Encodings(messages)
        with token_bar("inputs", len(messages), progress) as bar:
            task = bar.task_ids[0]
            self._local.run(
                messages,
                encodings,
                lambda: bar.update(task, completed=encodings.num_ended, tokens=encodings.num_tokens),
            )
        return encodings.outputs()
