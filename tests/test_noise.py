"""A picture's noise is its own: it depends on its seed, the time and the draw, and on nothing else."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from unnoise.noise import Seeds, hashed, normal, signs, uniform, words

T = torch.tensor(0.3, dtype=torch.float64)


def test_a_row_does_not_know_its_batch() -> None:
    alone, together = Seeds((7,), (3, 4, 4)), Seeds((1, 7, 9), (3, 4, 4))
    assert torch.equal(alone.start()[0], together.start()[1])
    assert torch.equal(alone(T)[0], together(T)[1])
    assert torch.equal(alone(T), alone(T + 1e-15))  # the last digit of a time does not count
    rows = torch.tensor([0.9, 0.3, 0.1], dtype=torch.float64)
    assert torch.equal(alone(T)[0], together(rows)[1])


def test_everything_in_the_key_matters() -> None:
    seeds = Seeds((7,), (3, 4, 4))
    draws = [
        seeds.start(),
        seeds(T),
        seeds(T, 1),
        seeds(T + 1e-9),
        Seeds((8,), (3, 4, 4))(T),
        Seeds((-7,), (3, 4, 4))(T),
    ]
    for i, a in enumerate(draws):
        for b in draws[:i]:
            assert (a - b).abs().max() > 0.1


def test_keys_are_not_confused() -> None:
    keys: list[tuple[int | str, ...]] = [(1, 2), (12,), ("1", 2), ("1", "2"), ("12",), (1, 2, 0), (-1, 2)]
    values = {tuple(normal((4,), *key).tolist()) for key in keys}
    assert len(values) == len(keys)


def test_draws_are_normal_and_independent() -> None:
    rows = torch.stack([normal((1000,), "x", i) for i in range(200)]).double()
    assert rows.mean().abs() < 0.01
    assert (rows.std() - 1).abs() < 0.01
    correlation = (rows @ rows.T / 1000).fill_diagonal_(0)
    assert correlation.abs().max() < 0.2
    assert (uniform((10_000,), 3).mean() - 0.5).abs() < 0.02


def test_nothing_global_is_read_or_moved() -> None:
    before = torch.get_rng_state()
    a = Seeds((1, 2), (1, 2, 2)).start()
    assert torch.equal(before, torch.get_rng_state())
    torch.manual_seed(99)
    assert torch.equal(a, Seeds((1, 2), (1, 2, 2)).start())


def test_threads_do_not_disturb_each_other() -> None:
    expected = [normal((500,), "row", i) for i in range(40)]
    found: dict[int, torch.Tensor] = {}

    def draw(part: int) -> None:
        for i in range(part, 40, 4):
            found[i] = normal((500,), "row", i)

    threads = [threading.Thread(target=draw, args=(part,)) for part in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(40))


def test_the_numbers_stay_what_they_are() -> None:
    """Pictures people have made must come out again: these draws are frozen."""
    expected = torch.tensor([0.2648359, 0.6299052, 0.8946975])
    assert torch.allclose(normal((3,), 5, "start"), expected, atol=1e-6)
    assert hashed(5, "start") == 59663037727663843402757479898183897133


# --- the generator ---

MULTIPLIERS, WEYL = (0xD2E7470EE14C6C93, 0xCA5A826395121157), (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)
MASK = 2**64 - 1


def philox(counter: list[int], key: list[int]) -> list[int]:
    """Philox4x64-10 as in the paper: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"."""
    for _ in range(10):
        a, b = MULTIPLIERS[0] * counter[0], MULTIPLIERS[1] * counter[2]
        counter = [(b >> 64) ^ counter[1] ^ key[0], b & MASK, (a >> 64) ^ counter[3] ^ key[1], a & MASK]
        key = [(k + w) & MASK for k, w in zip(key, WEYL, strict=True)]
    return counter


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, "16554d9eca36314c db20fe9d672d0fdc d7e772cee186176b 7e68b68aec7ba23b"),
        ([MASK] * 4, [MASK] * 2, "87b092c3013fe90b 438c3c67be8d0224 9cc7d7c69cd777b6 a09caebf594f0ba0"),
        (
            [0x243F6A8885A308D3, 0x13198A2E03707344, 0xA4093822299F31D0, 0x082EFA98EC4E6C89],
            [0x452821E638D01377, 0xBE5466CF34E90C6C],
            "a528f45403e61d95 38c72dbd566e9788 a5a1610e72fd18b5 57bd43b5e52b7fe6",
        ),
    ],
)
def test_the_known_answers_of_philox(counter: list[int], key: list[int], expected: str) -> None:
    """Those of Random123's kat_vectors; and numpy's generator, which counts up before its first block."""
    assert " ".join(f"{word:016x}" for word in philox(counter, key)) == expected
    number = sum(word << 64 * i for i, word in enumerate(counter))
    theirs = np.random.Philox(key=key[0] + (key[1] << 64), counter=(number - 1) % 2**256)
    assert theirs.random_raw(4).tolist() == philox(counter, key)


def test_the_words_are_philoxs_under_all_bits_of_the_hash() -> None:
    for key in ((5, "start"), (2**63 - 1, 3, 0), ("x",)):
        number = hashed(*key)
        halves = [number & MASK, number >> 64]
        expected = philox([1, 0, 0, 0], halves) + philox([2, 0, 0, 0], halves)
        assert words(8, *key).tolist() == expected
        assert words(3, *key).tolist() == expected[:3]
    assert hashed("a").bit_length() > 64


def test_normals_are_the_transform_of_the_words() -> None:
    word = int(words(1, 7, "start")[0])
    u, v = ((word >> 32) + 1) / 2**32, (word & (2**32 - 1)) / 2**32
    radius = math.sqrt(-2 * math.log(u))
    expected = [radius * math.cos(2 * math.pi * v), radius * math.sin(2 * math.pi * v)]
    assert normal((2,), 7, "start").tolist() == pytest.approx(expected, rel=1e-6)
    assert torch.equal(normal((5, 3), 7, "start").flatten(), normal((15,), 7, "start"))
    assert normal((), 7, "start").shape == ()


def test_seeds_that_shared_32_bits_are_apart() -> None:
    """574 and 140813 had the same start noise, and every s and s + 2^32, while 32 bits of a key reached a generator."""
    for a, b in ((574, 140813), (0, 2**32), (7, 7 + 2**32), (1, 2**62 + 1)):
        one, other = Seeds((a, b), (1, 8, 8)).start()
        assert (one - other).abs().max() > 0.5


@pytest.mark.slow
def test_a_million_seeds_have_a_million_start_noises() -> None:
    """The first word of each, and so its first two numbers. 32 bits would leave about 116 pairs alike."""
    keys = [hashed(seed, "start") for seed in range(1_000_000)]
    halves = [np.array([k >> shift & MASK for k in keys], np.uint64) for shift in (0, 64)]
    first = first_words(*halves)
    assert first[:3].tolist() == [int(words(1, seed, "start")[0]) for seed in range(3)]
    assert len(np.unique(first)) == 1_000_000


def first_words(low: NDArray[np.uint64], high: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """The first word of each key, (low, high) its halves: `philox` of the counter 1, for many keys at once."""
    zero = np.zeros_like(low)
    counter, key = [zero + np.uint64(1), zero, zero, zero], [low, high]
    for _ in range(10):
        (a_high, a_low), (b_high, b_low) = (product(counter[2 * i], MULTIPLIERS[i]) for i in (0, 1))
        counter = [b_high ^ counter[1] ^ key[0], b_low, a_high ^ counter[3] ^ key[1], a_low]
        key = [k + np.uint64(w) for k, w in zip(key, WEYL, strict=True)]
    return counter[0]


def product(x: NDArray[np.uint64], y: int) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The upper and the lower half of the 128-bit product, by halves of 32 bits."""
    half, low = np.uint64(32), np.uint64(2**32 - 1)
    x0, x1, y0, y1 = x & low, x >> half, np.uint64(y) & low, np.uint64(y) >> half
    middle = x1 * y0 + (x0 * y0 >> half)
    upper = x1 * y1 + (middle >> half) + (x0 * y1 + (middle & low) >> half)
    return upper, x * np.uint64(y)


def test_signs_are_even_and_keyed() -> None:
    found = signs((10_000,), "s", 1)
    assert set(found.tolist()) == {-1.0, 1.0}
    assert found.mean().abs() < 0.03
    assert not torch.equal(found, signs((10_000,), "s", 2))
