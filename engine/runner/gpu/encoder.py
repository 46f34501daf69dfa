"""The GPU runner of an encoder: inputs are packed and queued, answers read when their step is over. Nothing is kept between steps."""

from dataclasses import dataclass

import torch

from engine.batch import EncoderBatch
from engine.encode_step import EncodePlan, EncodeResult
from engine.kernels.gpu.encoder_ops import GpuEncoderOps
from engine.kernels.ops import Heads
from engine.models.encoder import EncoderModel
from engine.models.encoders.answers import AnswerPlan
from engine.request import Task
from engine.runner.encoder import find_faults, pack_inputs
from engine.runner.gpu.buckets import EncoderBucket, EncoderBuckets
from engine.runner.gpu.encoder_inputs import EncoderInputs
from engine.runner.gpu.graphs import Steps
from engine.runner.gpu.staging import to_host
from engine.runner.gpu.stream import Mark, Stream
from engine.step import Launch

EncoderSteps = Steps[EncoderBucket, torch.Tensor]


class EncoderCompute:
    """The kernels of one step. A call can be captured: what it reads is on the device, at addresses that stay."""

    def __init__(self, model: EncoderModel, ops: GpuEncoderOps, inputs: EncoderInputs) -> None:
        """ops: those that the model was built of."""
        self.model = model
        self.inputs = inputs
        self._ops = ops

    def __call__(self, bucket: EncoderBucket) -> torch.Tensor:
        """The answers, float32 [rows, width]."""
        config = self.model.config
        heads = Heads(config.num_heads, config.num_heads, config.head_dim, config.head_dim**-0.5)
        batch = self._ops.plan(self.inputs.batch(bucket), heads, self.model.dtype, config.disentangled)
        return self.model.compute(batch, self.inputs.picked(bucket))


class GpuEncoderRunner:
    """Owns the queue on the device. Used by one thread."""

    def __init__(
        self,
        compute: EncoderCompute,
        steps: EncoderSteps,
        buckets: EncoderBuckets,
        max_model_len: int,
        device: torch.device,
        stream: Stream,
    ) -> None:
        """steps run compute."""
        self.max_model_len = max_model_len
        self.dtype_name = str(compute.model.dtype).removeprefix("torch.")
        self.device_name = device.type
        self._compute = compute
        self._steps = steps
        self._buckets = buckets
        self._stream = stream

    @property
    def task(self) -> Task:
        return self._compute.model.task

    def launch(self, plan: EncodePlan) -> "GpuPendingEncode":
        batch = pack_inputs(plan.inputs)
        with torch.inference_mode(), self._stream.current():
            answers = self._compute.model.plan_answers(batch)
            bucket = self._find_bucket(batch, answers)
            self._compute.inputs.write(batch, answers, bucket)
            began, launch = self._stream.mark(timed=True), self._steps.launch_of(bucket)
            rows = to_host(self._steps.run(bucket)[: answers.num_rows])
            return GpuPendingEncode(
                plan.step, batch.num_tokens, answers, rows, launch, began, self._stream.mark(timed=True)
            )

    def close(self) -> None:
        """Wait for what is still in the queue."""
        self._stream.mark().wait()

    def _find_bucket(self, batch: EncoderBatch, answers: AnswerPlan) -> EncoderBucket:
        num_picked = None if answers.token_ids is None else answers.num_rows
        return self._buckets.find(batch.num_inputs, batch.num_tokens, num_picked)


@dataclass(frozen=True, slots=True)
class GpuPendingEncode:
    """A launched step."""

    step: int
    num_tokens: int
    answers: AnswerPlan
    rows: torch.Tensor  # float32 [rows, width], on the host once the step has ended
    launch: Launch
    began: Mark
    ended: Mark

    def done(self) -> bool:
        return self.ended.done()

    def result(self) -> EncodeResult:
        self.ended.wait()
        outputs = tuple(answer.numpy() for answer in self.answers.split(self.rows))
        return EncodeResult(
            step=self.step,
            outputs=outputs,
            num_tokens=self.num_tokens,
            failed=find_faults(outputs),
            seconds=self.began.seconds_until(self.ended),
            launch=self.launch,
        )
