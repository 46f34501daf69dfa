"""The products for a handful of tokens, with what is fused around them, against float32."""

import pytest
import torch
import torch.nn.functional as F

from engine.kernels.gpu.module import KernelLibrary
from engine.kernels.gpu.skinny_product import SkinnyProduct, make_product
from engine.kernels.reference import rotate
from tests.kernels.gpu.paged import from_paged

EPS = 1e-5
BLOCK_SIZE, HEADS, KV_HEADS, HEAD_DIM = 16, 3, 1, 64
ELEMENT = torch.bfloat16


class Case:
    """Random weights and inputs for one product."""

    def __init__(self, num_in: int, num_out: int, num_tokens: int, device: torch.device) -> None:
        generator = torch.Generator().manual_seed(num_in * num_out + num_tokens)

        def normal(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator)

        self.weight = (normal(num_out, num_in) / num_in**0.5).to(device, ELEMENT)
        self.bias = normal(num_out).to(device, ELEMENT)
        self.x = normal(num_tokens, num_in).to(device, ELEMENT)
        self.stream = (normal(num_tokens, num_in) * 3).to(device)
        self.norm = normal(num_in).to(device)

    @property
    def product(self) -> torch.Tensor:
        return F.linear(self.x.float(), self.weight.float(), self.bias.float())

    @property
    def normed_product(self) -> torch.Tensor:
        normed = self.stream * torch.rsqrt(self.stream.square().mean(-1, keepdim=True) + EPS) * self.norm
        return F.linear(normed, self.weight.float(), self.bias.float())


def product_of(
    library: KernelLibrary, kind: str, weight: torch.Tensor, normed: bool, **defines: int
) -> SkinnyProduct:
    shape = weight.shape[0], weight.shape[1]
    return make_product(library, kind, shape, {"NORMED": int(normed), **defines})


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Within what bfloat16 operands and results cost."""
    return bool(((found.float() - wanted).norm() / wanted.norm()) < 6e-3) and not bool(found.isnan().any())


def sizes(library: KernelLibrary) -> tuple[int, int]:
    return (96, 64) if library.device.type == "cpu" else (1536, 576)


@pytest.mark.parametrize("num_tokens", [1, 3, 8, 13, 16])
@pytest.mark.parametrize("normed", [False, True])
def test_stored(kernel_library: KernelLibrary, num_tokens: int, normed: bool) -> None:
    num_in, num_out = sizes(kernel_library)
    case = Case(num_in, num_out, num_tokens, kernel_library.device)
    out = torch.full((num_tokens, num_out), torch.nan, dtype=ELEMENT, device=kernel_library.device)
    product = product_of(kernel_library, "STORED", case.weight, normed)
    x = case.stream if normed else case.x
    product(num_tokens, case.weight, case.bias, x, case.norm, EPS, out)
    assert close(out, case.normed_product if normed else case.product)


@pytest.mark.parametrize("num_tokens", [1, 5, 16])
def test_added(kernel_library: KernelLibrary, num_tokens: int) -> None:
    num_in, num_out = sizes(kernel_library)
    case = Case(num_in, num_out, num_tokens, kernel_library.device)
    residual = torch.randn(num_tokens, num_out).to(kernel_library.device)
    wanted = residual + case.product
    product = product_of(kernel_library, "ADDED", case.weight, False)
    product(num_tokens, case.weight, case.bias, case.x, residual)
    assert close(residual, wanted)


@pytest.mark.parametrize("num_tokens", [1, 5, 16])
def test_gated(kernel_library: KernelLibrary, num_tokens: int) -> None:
    num_in, num_out = sizes(kernel_library)
    case = Case(num_in, num_out, num_tokens, kernel_library.device)
    out = torch.full((num_tokens, num_out // 2), torch.nan, dtype=ELEMENT, device=kernel_library.device)
    product = product_of(kernel_library, "GATED", case.weight, True)
    product(num_tokens, case.weight, None, case.stream, case.norm, EPS, out)
    gate, up = (case.normed_product - case.bias.float()).chunk(2, dim=-1)
    assert close(out, F.silu(gate) * up)


@pytest.mark.parametrize("num_tokens", [1, 7, 15])
def test_queries_keys_and_values(kernel_library: KernelLibrary, num_tokens: int) -> None:
    device, width = kernel_library.device, (HEADS + 2 * KV_HEADS) * HEAD_DIM
    case = Case(sizes(kernel_library)[0], width, num_tokens, device)
    rope = torch.rand(64, HEAD_DIM).to(device)
    positions = torch.randint(0, 64, (num_tokens,)).int().to(device)
    places = torch.randperm(4 * BLOCK_SIZE)[:num_tokens].int()
    places[-1] = -1 if num_tokens > 1 else places[-1]  # a pad
    keys, values = (
        torch.zeros(4, KV_HEADS, BLOCK_SIZE * HEAD_DIM, dtype=ELEMENT, device=device) for _ in range(2)
    )
    out = torch.full((num_tokens, width), torch.nan, dtype=ELEMENT, device=device)
    geometry = {"HEAD_DIM": HEAD_DIM, "NUM_HEADS": HEADS, "NUM_KV_HEADS": KV_HEADS, "BLOCK_SIZE": BLOCK_SIZE}
    product = product_of(kernel_library, "QKV", case.weight, True, **geometry)
    product(
        num_tokens, case.weight, case.bias, case.stream, case.norm, EPS, out, rope,
        positions, places.to(device), keys, values,
    )  # fmt: skip
    heads = case.normed_product.view(num_tokens, -1, HEAD_DIM)
    turned = rotate(heads, rope[positions.long()].unsqueeze(1))
    assert close(out[:, : HEADS * HEAD_DIM], turned[:, :HEADS].flatten(1))
    kept = places >= 0
    for cache, wanted in (
        (keys, turned[:, HEADS : HEADS + KV_HEADS]),
        (values, heads[:, HEADS + KV_HEADS :]),
    ):
        plain = from_paged(cache, BLOCK_SIZE)  # [blocks, kv_heads, block_size, head_dim]
        found = plain.transpose(1, 2).flatten(0, 1)[places[kept].long()]
        assert close(found, wanted[kept])
        assert plain.abs().sum(-1).count_nonzero() == int(kept.sum()) * KV_HEADS
