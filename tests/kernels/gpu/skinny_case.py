"""Inputs of the products for a handful of tokens, and what has to come out of them."""

import torch
import torch.nn.functional as F

from engine.kernels.reference import rotate
from tests.kernels.gpu.paged import from_paged

EPS = 1e-5
BLOCK_SIZE, HEADS, KV_HEADS, HEAD_DIM = 16, 3, 1, 64
ELEMENT = torch.bfloat16
GEOMETRY = {"HEAD_DIM": HEAD_DIM, "NUM_HEADS": HEADS, "NUM_KV_HEADS": KV_HEADS, "BLOCK_SIZE": BLOCK_SIZE}


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


class QkvCase(Case):
    """Whose product is queries, keys and values, which are rotated and kept; the last token is a pad."""

    def __init__(self, num_in: int, num_tokens: int, device: torch.device) -> None:
        width = (HEADS + 2 * KV_HEADS) * HEAD_DIM
        super().__init__(num_in, width, num_tokens, device)
        self.rope = torch.rand(64, HEAD_DIM).to(device)
        self.positions = torch.randint(0, 64, (num_tokens,)).int().to(device)
        self.places = torch.randperm(4 * BLOCK_SIZE)[:num_tokens].int()
        self.places[-1] = -1 if num_tokens > 1 else self.places[-1]
        self.keys, self.values = torch.zeros(
            2, 4, KV_HEADS, BLOCK_SIZE * HEAD_DIM, dtype=ELEMENT, device=device
        )
        self.out = torch.full((num_tokens, width), torch.nan, dtype=ELEMENT, device=device)

    @property
    def results(self) -> tuple[torch.Tensor, ...]:
        """What the kernel takes behind its inputs."""
        places = self.places.to(self.out.device)
        return self.out, self.rope, self.positions, places, self.keys, self.values

    def check(self) -> None:
        heads = self.normed_product.view(len(self.out), -1, HEAD_DIM)
        turned = rotate(heads, self.rope[self.positions.long()].unsqueeze(1))
        assert close(self.out[:, : HEADS * HEAD_DIM], turned[:, :HEADS].flatten(1))
        check_kept(self.keys, self.places, turned[:, HEADS : HEADS + KV_HEADS])
        check_kept(self.values, self.places, heads[:, HEADS + KV_HEADS :])


def check_kept(cache: torch.Tensor, places: torch.Tensor, wanted: torch.Tensor) -> None:
    """Of every token that has a place, and nothing of others."""
    kept = places >= 0
    plain = from_paged(cache, BLOCK_SIZE)  # [blocks, kv_heads, block_size, head_dim]
    found = plain.transpose(1, 2).flatten(0, 1)[places[kept].long()]
    assert close(found, wanted[kept])
    assert plain.abs().sum(-1).count_nonzero() == int(kept.sum()) * KV_HEADS


def close(found: torch.Tensor, wanted: torch.Tensor) -> bool:
    """Within what bfloat16 operands and results cost."""
    return bool(((found.float() - wanted).norm() / wanted.norm()) < 6e-3) and not bool(found.isnan().any())
