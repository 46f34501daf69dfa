"""The emulator's threads: exchanges between lanes, barriers, atomics, shared memory, elements."""

from pathlib import Path

import pytest
import torch

from tests.emulation.library import EmulatedLibrary, EmulationFailed

HERE = Path(__file__).parent
ELEMENTS = {"bfloat16": (torch.bfloat16, {}), "float16": (torch.float16, {"ELEMENT_FP16": 1})}


@pytest.fixture(scope="module")
def library() -> EmulatedLibrary:
    return EmulatedLibrary(sources=HERE)


@pytest.mark.parametrize(("width", "delta"), [(32, 1), (32, 13), (8, 3), (16, 5), (4, 2)])
def test_lanes_exchange_words(library: EmulatedLibrary, width: int, delta: int) -> None:
    x = torch.randint(-50, 50, (96,), dtype=torch.int32)
    out = torch.full((8, 96), -(2**31), dtype=torch.int32)
    library.get("threads.cu", "exchange", {})(1, 96, out, x, width, delta)
    lanes = x.view(-1, width)
    places = torch.arange(width)
    torch.testing.assert_close(out[0], lanes[:, delta % width :][:, :1].expand_as(lanes).reshape(-1))
    torch.testing.assert_close(
        out[1], lanes[:, torch.where(places < delta, places, places - delta)].flatten()
    )
    after = torch.where(places + delta < width, places + delta, places)
    torch.testing.assert_close(out[2], lanes[:, after].flatten())
    torch.testing.assert_close(out[3], lanes[:, places ^ delta].flatten())


def test_warps_vote_and_reduce(library: EmulatedLibrary) -> None:
    x = torch.randint(-50, 50, (96,), dtype=torch.int32)
    out = torch.full((8, 96), -(2**31), dtype=torch.int32)
    library.get("threads.cu", "exchange", {})(1, 96, out, x, 32, 1)
    warps = x.view(3, 32)
    votes = ((warps > 0).long() << torch.arange(32)).sum(1)
    assert (out[4].view(3, 32).long() & 0xFFFFFFFF).equal(votes[:, None].expand(3, 32))
    said = (warps > 40).any(1).int() + 2 * (warps > -40).all(1).int()
    for kind, wanted in ((5, said), (6, warps.sum(1).int()), (7, warps.amax(1))):
        torch.testing.assert_close(out[kind].view(3, 32), wanted[:, None].expand(3, 32), rtol=0, atol=0)


def test_lanes_of_a_mask_meet_apart(library: EmulatedLibrary) -> None:
    x = torch.randint(-1000, 1000, (64,)).double()
    out = torch.full((64,), torch.nan, dtype=torch.float64)
    library.get("threads.cu", "halves", {})(1, 64, out, x)
    wanted = x.view(2, 16, 2).sum(1, keepdim=True).expand(2, 16, 2).flatten()
    assert out.equal(wanted)


def test_the_last_block_adds_all_sums(library: EmulatedLibrary) -> None:
    kernel = library.get("threads.cu", "last_arriver", {})
    num_arrived = torch.zeros(1, dtype=torch.int32)
    for num_blocks, threads, n in ((1, 32, 5), (37, 256, 1000), (12, 96, 333)):
        x = torch.randint(-100, 100, (num_blocks, n)).float()
        out, total = torch.full((num_blocks,), torch.nan), torch.full((1,), torch.nan)
        kernel(num_blocks, threads, out, total, num_arrived, x, n)
        assert out.equal(x.sum(1))
        assert total.item() == x.sum().item()
        assert num_arrived.item() == 0


def test_processors_without_a_switch_of_our_own(library: EmulatedLibrary) -> None:
    x = torch.randint(-100, 100, (7, 100)).float()
    out, total, num_arrived = torch.zeros(7), torch.zeros(1), torch.zeros(1, dtype=torch.int32)
    kernel = library.get("threads.cu", "last_arriver", {"EMULATE_UCONTEXT": 1})
    kernel(7, 64, out, total, num_arrived, x, 100)
    assert out.equal(x.sum(1))
    assert total.item() == x.sum().item()


def test_memory_that_only_an_address_leads_to(library: EmulatedLibrary) -> None:
    far, near = torch.randn(64), torch.full((64,), torch.nan)
    kernel = library.get("threads.cu", "follow", {})
    kernel(1, 64, near, torch.tensor([far.data_ptr()]))
    assert near.equal(far)
    address = far.data_ptr() + 4
    with pytest.raises(EmulationFailed, match=r"thread 63 of .* reads 4 bytes .* at threads.cu:\d+"):
        kernel(1, 64, near, torch.tensor([address]))


def test_atomics(library: EmulatedLibrary) -> None:
    out, total, keys = torch.zeros(9, dtype=torch.int32), torch.zeros(1), torch.zeros(1, dtype=torch.int64)
    library.get("threads.cu", "count", {})(1, 64, out, total, keys)
    assert out[:5].tolist() == [128, -64, 63, -63, 2**31 - 1]
    assert 1 <= out[5].item() <= 64
    assert out[6:8].tolist() == [7, 1]
    assert total.item() == 32.0
    assert keys.item() == 63 << 40


def test_every_block_runs_once(library: EmulatedLibrary) -> None:
    out = torch.full((3 * 4 * 5, 40), -1, dtype=torch.int32)
    library.get("threads.cu", "places", {})((3, 4, 5), 40, out)
    assert out.equal((torch.arange(60)[:, None] * 1000 + torch.arange(40)).int())


def test_shared_memory_begins_as_nan_in_every_block(library: EmulatedLibrary) -> None:
    out = torch.zeros(6, 128)
    library.get("threads.cu", "leftovers", {}, shared_bytes=256)(6, 64, out)
    assert out.isnan().all()


@pytest.mark.parametrize("name", ELEMENTS)
def test_elements_are_rounded_as_torch_rounds(library: EmulatedLibrary, name: str) -> None:
    dtype, defines = ELEMENTS[name]
    words = torch.randint(-(2**31), 2**31, (200_000,)).int().view(torch.float32)
    usual = torch.randn(200_000) * 10 ** torch.empty(200_000).uniform_(-9, 6)
    every = torch.arange(2**16).to(torch.int16).view(dtype).float()
    ties = torch.cat(
        [every.nextafter(torch.tensor(torch.inf)), every * (1 + 2.0**-9), every * (1 + 2.0**-12)]
    )
    x = torch.cat([words, usual, every, ties])
    out = torch.empty(len(x), dtype=dtype)
    library.get("conversions.cu", "narrow", defines)(1, 32, x, out, len(x))
    torch.testing.assert_close(out, x.to(dtype), rtol=0, atol=0, equal_nan=True)
    assert out.signbit().equal(x.to(dtype).signbit() & ~x.isnan())


@pytest.mark.parametrize("name", ELEMENTS)
def test_every_element_is_widened_exactly(library: EmulatedLibrary, name: str) -> None:
    dtype, defines = ELEMENTS[name]
    x = torch.arange(2**16).to(torch.int16).view(dtype)
    out = torch.empty(2**16)
    library.get("conversions.cu", "widen", defines)(1, 32, x, out, len(x))
    torch.testing.assert_close(out, x.float(), rtol=0, atol=0, equal_nan=True)
    assert out.signbit().equal(x.float().signbit())


@pytest.mark.parametrize("name", ELEMENTS)
def test_pairs_keep_their_places(library: EmulatedLibrary, name: str) -> None:
    dtype, defines = ELEMENTS[name]
    x = torch.randn(100, 2).to(dtype).float()
    out = torch.full((100, 2), torch.nan)
    library.get("conversions.cu", "swap_pairs", defines)(1, 32, x, out, 100)
    assert out.equal(x.flip(1))


@pytest.mark.parametrize("word", [0, 1, 0x80000000, 0x00F0A300, 0xFFFFFFFF])
def test_bits(library: EmulatedLibrary, word: int) -> None:
    out = torch.zeros(6, dtype=torch.int64).to(torch.int32)
    library.get("conversions.cu", "bits", {})(1, 1, out, torch.tensor(word).to(torch.int32).item())
    said = [value & 0xFFFFFFFF for value in out.tolist()]
    digits = f"{word:032b}"
    lowest = digits[::-1].find("1") + 1
    leading = 32 - word.bit_length()
    assert said == [word.bit_count(), leading, lowest, int(digits[::-1], 2), word * 0x9E3779B9 >> 32, word]
