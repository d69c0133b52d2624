"""The laws of players: each updates its own network, in turn, and sees the weights that the others just updated."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.helpers.tiny_training import FACTS, Batch, TinyConfig, batches, changed, contents, launch, same
from unnoise.config.training import Fit
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.training import run as runs
from unnoise.training import saved_state, trainer
from unnoise.training.distributed import ALONE, Processes
from unnoise.training.loop import Tick, fit
from unnoise.training.player import Player, SampleRNG
from unnoise.training.run import open_run
from unnoise.training.train_state import TrainState
from unnoise.training.trainer import Task
from unnoise.training.turn import NonFinite

FIT = Fit(images=24, batch=8, lr=0.05, warmup=2, clip=0.5, ema=(16, 8), ema_rampup=None)


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Linear(16, 3)
        self.drop = nn.Dropout(0.2)
        self.up = nn.Linear(3, 16)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.drop(torch.tanh(self.down(x.flatten(1)))))


class Critic(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.hidden = nn.Linear(16, 4)
        self.drop = nn.Dropout(0.2)
        self.score = nn.Linear(4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.score(self.drop(torch.tanh(self.hidden(x.flatten(1)))))[:, 0]


def networks(dropout: float) -> tuple[Autoencoder, Critic]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        auto, critic = Autoencoder(), Critic()
    auto.drop.p = critic.drop.p = dropout
    return auto, critic


def losses(auto: nn.Module, critic: nn.Module) -> dict[str, Callable[[Batch, SampleRNG], dict[str, Tensor] | Tensor]]:
    """A reconstruction that should look real to the critic, and a critic of reconstructions: a hinge loss."""

    def of_auto(batch: Batch, rows: SampleRNG) -> dict[str, Tensor]:
        out = auto(batch.x).float()
        return {"square": (out - batch.x.flatten(1)).square().mean(1), "adversarial": -0.1 * critic(out)}

    def of_critic(batch: Batch, rows: SampleRNG) -> Tensor:
        return (1 - critic(batch.x)).relu() + (1 + critic(auto(batch.x))).relu()

    return {"autoencoder": of_auto, "discriminator": of_critic}


def players(auto: nn.Module, critic: nn.Module, config: Fit = FIT, other: Fit | None = None) -> dict[str, Player]:
    loss = losses(auto, critic)
    return {
        "autoencoder": Player(auto, config, loss["autoencoder"]),
        "discriminator": Player(critic, other or config, loss["discriminator"]),
    }


def weights(*nets: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for net in nets for p in net.parameters()]


# --- a step ---


def test_players_take_their_steps_in_turn_as_in_a_loop_written_by_hand() -> None:
    """Bit for bit: the second player sees the weights that the first has just updated."""
    auto, critic = networks(0.0)
    ticks = list(fit(players(auto, critic), batches(TinyConfig(), 0)))
    mine, hers = networks(0.0)
    loss = losses(mine, hers)
    nets = {"autoencoder": mine, "discriminator": hers}
    adams = {name: torch.optim.Adam(net.parameters(), fused=True) for name, net in nets.items()}
    stream = batches(TinyConfig(), 0)
    for step in range(3):
        batch, rows = next(stream), SampleRNG(0, tuple(range(step * 8, step * 8 + 8)), 8)
        for name, net in nets.items():
            mine.zero_grad(), hers.zero_grad()
            found = loss[name](batch, rows)
            total = found["square"] + found["adversarial"] if isinstance(found, dict) else found
            (total.sum() / 8).backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in net.parameters()]).item()
            if norm > 0.5:
                torch._foreach_mul_([p.grad for p in net.parameters()], 0.5 / norm)
            adams[name].param_groups[0]["lr"] = 0.05 * min(1.0, (step + 1) / 2)
            adams[name].step()
            update = ticks[step].players[name]
            assert update.grad_norm == norm
            assert update.loss == total.detach().mean().item()
            assert update.losses == ({k: v.mean().item() for k, v in found.items()} if isinstance(found, dict) else {})
    assert all(torch.equal(a, b) for a, b in zip(weights(auto, critic), weights(mine, hers)))


def test_the_order_of_players_is_the_order_of_their_steps() -> None:
    """sum(x y) of two numbers, minimised by one and maximised by the other, by plain signs: Adam's first step is lr."""
    seen: list[tuple[str, float, float]] = []
    x, y = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.ones_(x.weight), nn.init.ones_(y.weight)

    def loss(name: str, sign: float) -> Callable[[Batch, SampleRNG], Tensor]:
        def of(batch: Batch, rows: SampleRNG) -> Tensor:
            seen.append((name, x.weight.item(), y.weight.item()))
            return (sign * x.weight * y.weight).flatten().expand(8)

        return of

    config = Fit(images=8, batch=8, lr=0.25, warmup=0, clip=None, ema=(8,))
    game = {"min": Player(x, config, loss("min", 1.0)), "max": Player(y, config, loss("max", -1.0))}
    list(fit(game, batches(TinyConfig(), 0)))
    assert seen[0] == ("min", 1.0, 1.0)
    assert seen[1] == ("max", pytest.approx(0.75, abs=1e-6), 1.0)
    assert y.weight.item() == pytest.approx(1.25, abs=1e-6)  # the gradient of x y at x = 0.75


def test_a_players_loss_reaches_no_weights_of_another() -> None:
    """The others require no gradients in a player's turn, have none after it, and require them again after the step."""
    auto, critic = networks(0.0)
    critic.hidden.bias.requires_grad_(False)
    before = weights(critic)
    team = players(auto, critic, other=replace(FIT, lr=1e-30))
    required = []

    def watched(batch: Batch, rows: SampleRNG) -> dict[str, Tensor] | Tensor:
        required.append((auto.up.weight.requires_grad, critic.score.weight.requires_grad))
        return losses(auto, critic)["autoencoder"](batch, rows)

    team["autoencoder"] = replace(team["autoencoder"], loss=watched)
    list(fit(team, batches(TinyConfig(), 0)))
    assert required == [(True, False)] * 3
    assert all(torch.equal(a, b) for a, b in zip(before, weights(critic)))
    assert all(p.grad is None for p in (*auto.parameters(), *critic.parameters()))
    frozen = [name for name, p in critic.named_parameters() if not p.requires_grad]
    assert frozen == ["hidden.bias"]


def test_gradients_that_the_caller_leaves_in_a_network_do_not_count() -> None:
    auto, critic = networks(0.0)
    plain = networks(0.0)
    list(fit(players(*plain), batches(TinyConfig(), 0)))
    ticks = fit(players(auto, critic), batches(TinyConfig(), 0))
    for _ in ticks:
        critic(torch.ones(1, 16)).sum().backward()
    assert all(torch.equal(a, b) for a, b in zip(weights(auto, critic), weights(*plain)))


def test_one_named_loss_is_the_unnamed_one() -> None:
    """Names are for the log: the weights are the same, bit for bit."""
    trained = []
    for named in (False, True):
        auto, _ = networks(0.2)

        def loss(
            batch: Batch, rows: SampleRNG, net: nn.Module = auto, named: bool = named
        ) -> dict[str, Tensor] | Tensor:
            found = (net(batch.x) - batch.x.flatten(1)).square().mean(1)
            return {"square": found} if named else found

        tick = list(fit(Player(auto, FIT, loss), batches(TinyConfig(), 0)))[-1]
        assert tick.players["net"].losses == ({"square": tick.loss} if named else {})
        trained.append(weights(auto))
    assert all(torch.equal(a, b) for a, b in zip(*trained))


@pytest.mark.parametrize("accumulate", [2, 4])
def test_parts_of_a_batch_add_up_for_every_player(accumulate: int) -> None:
    whole, parts = networks(0.0), networks(0.0)
    list(fit(players(*whole), batches(TinyConfig(), 0)))
    list(fit(players(*parts, config=replace(FIT, accumulate=accumulate)), batches(TinyConfig(), 0)))
    for a, b in zip(weights(*whole), weights(*parts)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_an_update_that_is_not_finite_is_the_players_own() -> None:
    """The discriminator's bad step is skipped; the autoencoder, whose loss is finite, takes its own."""
    auto, critic = networks(0.0)
    config = replace(FIT, non_finite="skip", images=8)
    team = players(auto, critic, config)

    def bad(batch: Batch, rows: SampleRNG) -> Tensor:
        return critic(batch.x) * torch.tensor([float("nan")] + [1.0] * 7)

    team["discriminator"] = replace(team["discriminator"], loss=bad)
    before = weights(critic)
    (tick,) = fit(team, batches(TinyConfig(), 0))
    first = next(batches(TinyConfig(), 0)).index[0]
    assert tick.event == f"skipped: the loss of discriminator is not finite for samples {first}"
    assert all(torch.equal(a, b) for a, b in zip(before, weights(critic)))
    assert not torch.equal(weights(networks(0.0)[0])[0], weights(auto)[0])
    stopping = {name: replace(player, fit=replace(config, non_finite="stop")) for name, player in team.items()}
    with pytest.raises(NonFinite, match="the loss of discriminator is not finite"):
        list(fit(stopping, batches(TinyConfig(), 0)))


# --- at the border ---


def test_players_that_cannot_be_trained_together_are_refused() -> None:
    auto, critic = networks(0.0)
    with pytest.raises(UserError, match=r"fit.batch of 'discriminator' is 4: set it to 8, the value of 'autoencoder'"):
        next(fit(players(auto, critic, other=replace(FIT, batch=4)), batches(TinyConfig(), 0)))
    with pytest.raises(ValueError, match="'a' and 'b' share a parameter"):
        next(fit({name: Player(auto, FIT, lambda b, r: b.x) for name in "ab"}, batches(TinyConfig(), 0)))
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        next(fit({"../x": players(auto, critic)["autoencoder"]}, batches(TinyConfig(), 0)))


def test_a_loss_of_another_shape_is_refused() -> None:
    auto, _ = networks(0.0)

    def loss(batch: Batch, rows: SampleRNG) -> dict[str, Tensor]:
        return {"kl": auto(batch.x)[:, :1]}

    with pytest.raises(ValueError, match=r"kl has shape \(8, 1\): return \(8,\), one per row"):
        next(fit(Player(auto, FIT, loss), batches(TinyConfig(), 0)))


# --- a run ---


def whole(config: TinyConfig, path: Path, who: Processes = ALONE) -> Iterator[Tick]:
    """A training of both players in a run."""
    auto, critic = networks(0.0 if config.name == "calm" else 0.2)
    team = players(auto, critic, config.fit, replace(config.fit, lr=0.02, ema=(16,)))
    states = {name: TrainState(player.net, player.fit, processes=who) for name, player in team.items()}

    def write(directory: Path, average: dict[str, Tensor]) -> None:
        checkpoint.save(average, directory / "model.safetensors")

    task = Task(team, config.log, lambda step: batches(config, step, who), write)
    if not who.first:
        yield from trainer.train(None, task, states, processes=who)
        return
    with open_run(path, config) as run:
        run.record_data(FACTS)
        yield from trainer.train(run, task, states, processes=who)


def test_two_players_resume_bit_for_bit(tmp_path: Path) -> None:
    """Stopped after steps 3 and 7, in the middle of an epoch: weights, moments, averages and logged losses."""
    list(whole(TinyConfig(), tmp_path / "straight"))
    config = changed(checkpoint_steps=1)
    for stop in (3, 7):
        part = whole(config, tmp_path / "parts")
        for tick in part:
            if tick.step == stop:
                part.close()
                break
    assert [tick.step for tick in whole(config, tmp_path / "parts")] == [8, 9, 10]
    assert same(contents(tmp_path / "straight"), contents(tmp_path / "parts"))
    clock = ("seconds", "images_per_second", "waiting")
    lines = [
        [{k: v for k, v in line.items() if k not in clock} for line in runs.metrics(tmp_path / name)]
        for name in ("straight", "parts")
    ]
    assert lines[0] == lines[1]
    assert set(lines[0][0]) == {
        *("step", "images", "loss", "lr", "grad_norm", "loss/square", "loss/adversarial"),
        *("discriminator/loss", "discriminator/lr", "discriminator/grad_norm"),
    }
    for line in lines[0]:
        assert line["loss"] == pytest.approx(line["loss/square"] + line["loss/adversarial"], rel=1e-5)


def test_further_players_have_files_of_their_own_name(tmp_path: Path) -> None:
    list(whole(TinyConfig(), tmp_path))
    newest = checkpoint.newest(tmp_path / "checkpoints")
    assert newest is not None
    names = {path.name for path in newest.iterdir()}
    first = {"model.safetensors", "weights.safetensors", "ema-16.safetensors", "optimizer.safetensors"}
    other = {f"discriminator-{name}.safetensors" for name in ("weights", "ema-16", "optimizer")}
    assert names == first | other | {"state.json", "manifest.json"}
    state = json.loads((newest / "state.json").read_text())
    assert (state["step"], state["skips"], state["players"]) == (10, 0, {"discriminator": {"skips": 0}})

    state["players"]["discriminator"]["skips"] = 2
    (newest / "state.json").write_text(json.dumps(state))
    team = players(*networks(0.0), TinyConfig().fit, replace(TinyConfig().fit, ema=(16,)))
    states = {name: TrainState(player.net, player.fit) for name, player in team.items()}
    saved_state.load(newest, team, states)
    assert {name: (s.step, s.skips) for name, s in states.items()} == {"autoencoder": (10, 0), "discriminator": (10, 2)}


def in_processes(who: Processes, path: str, fsdp: bool) -> None:
    list(whole(changed(TinyConfig(name="calm"), accumulate=2, clip=None, fsdp=fsdp), Path(path), who))


@pytest.mark.parametrize("fsdp", [False, True])
def test_two_processes_train_the_players_as_one_does(tmp_path: Path, fsdp: bool) -> None:
    """With copies of the networks (DDP) and with sharded ones (FSDP2)."""
    in_processes(ALONE, str(tmp_path / "one"), False)
    children = launch(tmp_path, in_processes, str(tmp_path / "two"), fsdp, world=2)
    assert [child.end() for child in children] == [0, 0], [child.said() for child in children]
    one, two = contents(tmp_path / "one"), contents(tmp_path / "two")
    assert one.keys() == two.keys()
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, rtol=1e-3, atol=1e-4, msg=lambda m, name=name: f"{name}: {m}")
