"""A picture's noise is its own: it depends on its seed, the time and the draw, and on nothing else."""

from __future__ import annotations

import threading

import torch

from unnoise.noise import Seeds, generator, normal, uniform

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
    assert generator(5, "start").initial_seed() == 2312948164562790693
    expected = torch.tensor([0.6810071, 1.1815470, 0.1549634])
    assert torch.allclose(normal((3,), 5, "start"), expected, atol=1e-6)
