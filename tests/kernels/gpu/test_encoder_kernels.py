"""An encoder's kernels for the GPU, one by one, against their plain twins in float32 on random inputs."""

from collections.abc import Iterator
from dataclasses import replace
from typing import get_args

import pytest
import torch
import torch.nn.functional as F

from engine.batch import EncoderBatch
from engine.checkpoint import Pooling
from engine.kernels.encoder_gather import pool_tokens
from engine.kernels.encoder_ops import Embedded
from engine.kernels.encoder_reference import ReferenceEncoderOps
from engine.kernels.gpu import encoder_elementwise, encoder_norm, encoder_pool
from engine.kernels.gpu.loaded import LoadedKernels
from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.ops import Heads
from tests.kernels.encoder_inputs import pack

# One unit in the last place: float32 results that differ in theirs may round to either side.
ULP = {torch.bfloat16: 2**-7, torch.float16: 2**-10, torch.float32: 2e-6}
EPS = 1e-5
reference = ReferenceEncoderOps()

BF16, FP16, FP32 = torch.bfloat16, torch.float16, torch.float32


def by_shape(name: str, *shapes: tuple[int, torch.dtype]) -> pytest.MarkDecorator:
    """Sizes with dtypes, each of either in one pair at least: every pair is compiled anew."""
    return pytest.mark.parametrize(
        (name, "dtype"), shapes, ids=lambda value: str(value).removeprefix("torch.")
    )


by_hidden = by_shape("hidden", (8, FP16), (312, BF16), (768, FP16), (1032, BF16))


@pytest.fixture(scope="module")
def kernels(kernel_library: KernelLibrary) -> LoadedKernels:
    return LoadedKernels(kernel_library)


@pytest.fixture(autouse=True)
def poisoned_outputs() -> Iterator[None]:
    """New tensors hold NaN until something is written."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def close(got: torch.Tensor, want: torch.Tensor, atol: float = 2e-6) -> None:
    """Equal to a unit in the last place of got's dtype, NaN where the other is."""
    torch.testing.assert_close(
        got.cpu().float(), want.to(got.dtype).float(), rtol=ULP[got.dtype], atol=atol, equal_nan=True
    )


def normal(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator)


def num_tokens_of(device: torch.device) -> list[int]:
    """Fewer under emulation; odd and even."""
    return [1, 7, 8] if device.type == "cpu" else [1, 3, 257, 4096]


def move(batch: EncoderBatch, device: torch.device) -> EncoderBatch:
    tensors = ("token_ids", "type_ids", "positions", "starts")
    return replace(batch, **{name: getattr(batch, name).to(device) for name in tensors})


@by_hidden
@pytest.mark.parametrize("with_bias", [False, True], ids=["plain", "biased"])
def test_norms(
    kernels: LoadedKernels,
    device: torch.device,
    generator: torch.Generator,
    dtype: torch.dtype,
    hidden: int,
    with_bias: bool,
) -> None:
    weight = normal(generator, hidden)
    bias = normal(generator, hidden) if with_bias else None
    vectors = weight.to(device), None if bias is None else bias.to(device), EPS
    for num_tokens in num_tokens_of(device):
        x = normal(generator, num_tokens, hidden) * 3 + 1
        delta = normal(generator, num_tokens, hidden).to(dtype)
        want = F.layer_norm(x, (hidden,), weight, bias, EPS)
        got = x.clone().to(device)
        close(encoder_norm.layer_norm(kernels, got, *vectors, dtype), want)
        close(encoder_norm.layer_norm(kernels, got, *vectors, torch.float32), want, atol=1e-5)
        assert torch.equal(got.cpu(), x)
        want = F.layer_norm(x + delta.float(), (hidden,), weight, bias, EPS)
        close(encoder_norm.add_layer_norm(kernels, got, delta.to(device), *vectors), want)
        assert torch.equal(got.cpu(), x + delta.float())
        narrow = x.to(dtype)
        got = narrow.clone().to(device)
        want = F.layer_norm(narrow.float() + delta.float(), (hidden,), weight, bias, EPS)
        assert encoder_norm.post_layer_norm(kernels, got, delta.to(device), *vectors) is got
        close(got, want)


def test_norm_of_a_large_mean(kernels: LoadedKernels, device: torch.device) -> None:
    """Deviations a hundred-thousandth of the mean are seen; a row without any is its bias."""
    x = 1000 + 0.01 * torch.arange(64).repeat(2, 1)
    x[1] = 1000
    weight, bias = torch.ones(64), torch.linspace(-1, 1, 64)
    got = encoder_norm.layer_norm(
        kernels, x.to(device), weight.to(device), bias.to(device), 1e-12, torch.float32
    )
    want = F.layer_norm(x.double(), (64,), weight.double(), bias.double(), 1e-12)
    assert torch.allclose(got.cpu().double(), want, atol=2e-3)


@by_hidden
@pytest.mark.parametrize("num_types", [0, 1, 3])
def test_embeddings(
    kernels: LoadedKernels,
    device: torch.device,
    generator: torch.Generator,
    dtype: torch.dtype,
    hidden: int,
    num_types: int,
) -> None:
    batch = pack([5, 1, 3])
    ids = torch.randint(0, 50, (2, batch.num_tokens), generator=generator).int()
    batch = replace(batch, token_ids=ids[0], type_ids=ids[1] % 3)
    tables = Embedded(
        words=normal(generator, 50, hidden).to(dtype),
        positions=normal(generator, 9, hidden)[2:] if num_types != 1 else None,
        types=normal(generator, num_types, hidden) if num_types else None,
    )
    on_device = Embedded(
        words=tables.words.to(device),
        positions=None if tables.positions is None else tables.positions.to(device),
        types=None if tables.types is None else tables.types.to(device),
    )
    weight, bias = normal(generator, 2, hidden)
    for out in (dtype, torch.float32):
        got = encoder_norm.embed_layer_norm(
            kernels, on_device, move(batch, device), weight.to(device), bias.to(device), EPS, out
        )
        want = reference.embed(tables, batch, weight, bias, EPS, torch.float32)
        assert got.dtype == out
        close(got, want, atol=1e-5)


@by_shape("inner", (8, BF16), (520, FP16), (3072, BF16))
@pytest.mark.parametrize("tanh", [False, True], ids=["exact", "tanh"])
def test_gelu(
    kernels: LoadedKernels,
    device: torch.device,
    generator: torch.Generator,
    dtype: torch.dtype,
    inner: int,
    tanh: bool,
) -> None:
    for num_tokens in num_tokens_of(device):
        x = (normal(generator, num_tokens, inner) * 4).to(dtype)
        x[0, :5] = torch.tensor([-300.0, 0.0, 300.0, torch.nan, -6.0])
        got = x.clone().to(device)
        encoder_elementwise.gelu_in_place(kernels, got, tanh)
        close(got, F.gelu(x.float(), approximate="tanh" if tanh else "none"))


@pytest.mark.parametrize("tanh", [False, True], ids=["exact", "tanh"])
def test_gelu_of_every_float16(kernels: LoadedKernels, device: torch.device, tanh: bool) -> None:
    """2e-6 from the true value, and what rounding adds to that."""
    x = torch.arange(-(2**15), 2**15, dtype=torch.int32).to(torch.int16).view(torch.float16).view(64, 1024)
    want = F.gelu(x.double(), approximate="tanh" if tanh else "none")
    got = x.clone().to(device)
    encoder_elementwise.gelu_in_place(kernels, got, tanh)
    is_number = want.isfinite()
    assert torch.equal(got.cpu()[~is_number].isnan(), want[~is_number].isnan())
    assert got.cpu()[x == torch.inf].item() == torch.inf
    error = (got.cpu().double() - want)[is_number].abs() - want[is_number].abs() * 2**-11
    assert error.max() < 2e-6 + 2**-25  # half of the smallest float16


@by_shape("inner", (8, FP16), (520, BF16), (1152, FP16))
def test_gelu_mul(
    kernels: LoadedKernels, device: torch.device, generator: torch.Generator, dtype: torch.dtype, inner: int
) -> None:
    for num_tokens in num_tokens_of(device):
        gate_up = (normal(generator, num_tokens, 2 * inner) * 3).to(dtype)
        got = encoder_elementwise.gelu_mul(kernels, gate_up.to(device))
        close(
            got, reference.gelu_mul(gate_up.float()), atol=2e-5
        )  # gelu's own error, times up; the twin's 1 + erf cancels far below 0


@by_shape("head_dim", (32, BF16), (64, FP16), (96, BF16), (128, FP16))
@pytest.mark.parametrize("num_heads", [1, 12])
def test_rope(
    kernels: LoadedKernels,
    device: torch.device,
    generator: torch.Generator,
    dtype: torch.dtype,
    num_heads: int,
    head_dim: int,
) -> None:
    heads, batch = Heads(num_heads, num_heads, head_dim, 1.0), pack([3, 1, 6])
    table = normal(generator, 6, head_dim)
    qkv = normal(generator, batch.num_tokens, 3 * num_heads * head_dim).to(dtype)
    want, got = qkv.float(), qkv.clone().to(device)
    reference.rope(want, table, batch, heads)
    encoder_elementwise.rotate_in_place(kernels, got, table.to(device), move(batch, device), heads)
    close(got, want, atol=2e-5)
    values = 2 * num_heads * head_dim
    assert torch.equal(got[:, values:].cpu(), qkv[:, values:])


@pytest.mark.parametrize("kind", get_args(Pooling))
@by_shape("hidden", (8, BF16), (72, FP32), (384, FP16))
def test_pooling(
    kernels: LoadedKernels,
    device: torch.device,
    generator: torch.Generator,
    kind: Pooling,
    dtype: torch.dtype,
    hidden: int,
) -> None:
    batch = pack([1, 40, 3, 2, 129])
    x = normal(generator, batch.num_tokens + 2, hidden).to(dtype)
    x[-2:] = torch.nan  # tokens of no input
    end = batch.starts[-1:]
    starts = torch.cat((batch.starts, end, end))  # and inputs of no tokens
    got = encoder_pool.pool_tokens(kernels, x.to(device), starts.to(device), kind)
    close(got[:-2], pool_tokens(x[:-2].float(), batch, kind), atol=1e-5)
    assert torch.equal(got[-2:].cpu(), torch.zeros(2, hidden))


@pytest.mark.parametrize("kind", get_args(Pooling))
def test_pooling_hides_no_nan(
    kernels: LoadedKernels, device: torch.device, generator: torch.Generator, kind: Pooling
) -> None:
    x = normal(generator, 41, 16)
    x[:, 3] = torch.nan
    starts = torch.tensor([0, 1, 41], dtype=torch.int32).to(device)
    got = encoder_pool.pool_tokens(kernels, x.to(device), starts, kind).cpu()
    assert got.isnan().tolist() == [[channel == 3 for channel in range(16)]] * 2


@pytest.mark.parametrize("size", [1, 8, 384, 1000])
def test_normalise(
    kernels: LoadedKernels, device: torch.device, generator: torch.Generator, size: int
) -> None:
    x = normal(generator, 4, size) * torch.tensor([[1.0], [1e-6], [1e6], [0.0]])
    got = x.clone().to(device)
    encoder_pool.normalise_in_place(kernels, got)
    close(got, F.normalize(x, dim=-1), atol=1e-6)
    x[1, -1] = torch.nan
    got = x.to(device)
    encoder_pool.normalise_in_place(kernels, got)
    assert got[1].isnan().all() and not got[0].isnan().any()
