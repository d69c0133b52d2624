"""Two processes are one: the same samples, the same decisions, the same network within rounding (promise R2).

Each test launches processes that meet over gloo; what they do is in the functions at the end.
"""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image

from tests.helpers import tiny_training
from tests.helpers.tiny_training import (
    Child,
    TinyConfig,
    batches,
    changed,
    contents,
    launch,
    make_net,
    pretended_cards,
    same,
    ticks,
    train,
)
from tests.recipes.test_diffusion import SMALL
from unnoise.config.convert import override
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.recipes import diffusion
from unnoise.training import run
from unnoise.training.distributed import Processes, own_device, processes, shard
from unnoise.training.muon import Muon

PROGRAM = Path(__file__).resolve().parents[1] / "helpers" / "tiny_training.py"


def finish(children: list[Child], code: int = 0) -> list[str]:
    codes = [child.end(120) for child in children]
    assert codes == [code] * len(children), [child.said() for child in children]
    return [child.said() for child in children]


def train_together(world: int, path: Path, values: dict) -> None:
    finish(launch(path / "said", train, str(path), values, world=world))


def close(a: dict, b: dict, tolerance: float = 1e-5) -> None:
    assert a.keys() == b.keys()
    for name in a:
        torch.testing.assert_close(a[name], b[name], rtol=tolerance, atol=tolerance, msg=name)


# dropout masks belong to a process; without dropout the number of processes changes nothing but rounding
CALM = {"name": "calm", "lr": "0.01"}
CALM_CONFIG = changed(name="calm", lr=0.01)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    path = tmp_path_factory.mktemp("alone")
    list(ticks(CALM_CONFIG, path))
    return path


@pytest.mark.parametrize("world", [2, 4])
def test_the_samples_of_a_step_are_the_same_for_any_number_of_processes(world):
    one = batches(TinyConfig(), 3)
    parts = [batches(TinyConfig(), 3, Processes(r, world)) for r in range(world)]
    for _ in range(4):
        whole, shares = next(one), [next(part) for part in parts]
        assert whole.index == sum((share.index for share in shares), ())
        assert torch.equal(whole.x, torch.cat([share.x for share in shares]))


@pytest.mark.parametrize("fsdp", ["false", "true"], ids=["ddp", "fsdp"])
def test_two_processes_train_the_network_of_one_and_one_goes_on(alone, fsdp, tmp_path):
    """Parameters, moments and averages; the checkpoint of two is that of one, and one process resumes it."""
    train_together(2, tmp_path, CALM | {"fsdp": fsdp, "images": "48", "decay": "constant"})
    half = tmp_path / "half"
    list(ticks(changed(CALM_CONFIG, images=48, decay="constant"), half))
    close(contents(tmp_path), contents(half))
    whole = tmp_path / "whole"
    list(ticks(changed(CALM_CONFIG, decay="constant"), whole))
    list(ticks(changed(CALM_CONFIG, decay="constant"), tmp_path))
    close(contents(tmp_path), contents(whole))
    assert [line["step"] for line in run.metrics(tmp_path)] == [3, 6, 9, 10]


@pytest.mark.parametrize(
    ("values", "tolerance"),
    [({"precision": "float32"}, 1e-4), ({"fsdp": "true"}, 0.03)],
    ids=["ddp", "fsdp-bfloat16"],
)
def test_the_recipe_on_two_processes_is_the_recipe(values, tolerance, tmp_path):
    """A U-Net on the toy set; the sheet of samples is drawn by both, and saved once."""
    values = {"dropout": "0", "precision": "bfloat16", "fsdp": "false"} | values
    finish(launch(tmp_path / "said", recipe, str(tmp_path / "two"), values, world=2))
    recipe(Processes(), str(tmp_path / "one"), values | {"fsdp": "false"})
    one, two = ({k: v for k, v in contents(tmp_path / n).items() if "optimizer" not in k} for n in ("one", "two"))
    close(two, one, tolerance)
    sheets = [Image.open(tmp_path / n / "samples" / "step-00000012.png").convert("L") for n in ("one", "two")]
    first, second = (torch.from_numpy(np.array(sheet)).float() for sheet in sheets)
    assert first.std() > 20
    assert (first - second).abs().mean() < (1 if tolerance < 1e-3 else 10)


def test_two_processes_resume_exactly(tmp_path):
    """With dropout, sharded: 5 steps and 5 more are 10, bit for bit; what one saved, two go on from."""
    values = {"fsdp": "true", "decay": "constant"}
    train_together(2, tmp_path / "a", values)
    train_together(2, tmp_path / "b", values | {"images": "40"})
    train_together(2, tmp_path / "b", values)
    assert same(contents(tmp_path / "a"), contents(tmp_path / "b"))


def test_what_is_not_finite_on_one_process_stops_both(tmp_path):
    """Only the second process has the sample; both stop at its step, and the message names it."""
    index = next(batches(TinyConfig(), 4)).index[6]
    values = {"poison": str(index), "poison_step": "4", "checkpoint_steps": "1"}
    started = launch(tmp_path / "said", train, str(tmp_path), values, world=2)
    for said in finish(started, 1):
        assert "step 5: the loss is not finite; the update was not applied" in said
        assert f"it: {index}. " in said
    assert checkpoint.newest(tmp_path / "checkpoints").name == "step-00000004"


def test_a_signal_to_one_process_stops_both_at_one_step(tmp_path):
    values = {"images": "800000", "slow": "0.05"}
    started = launch(tmp_path / "said", train, str(tmp_path), values, world=2)
    started[0].wait_for(2)
    os.kill(started[1].process.pid, signal.SIGTERM)
    finish(started, 143)
    checkpoint.verify(checkpoint.newest(tmp_path / "checkpoints"))


def test_torchrun_starts_it_unchanged(tmp_path, alone):
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(PROGRAM.parents[2] / "src")}
    done = subprocess.run(
        [sys.executable, *command, str(PROGRAM), str(tmp_path), json.dumps(CALM)],
        env=env,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    close(contents(tmp_path), contents(alone))


def test_seeds_are_shared_and_pictures_gathered_in_order(tmp_path):
    finish(launch(tmp_path, share, world=3))


def test_tensors_of_the_cpu_are_exchanged_between_processes_with_gpus(tmp_path):
    """Features, counts and flags are on the CPU, and NCCL exchanges none of them."""
    finish(launch(tmp_path, share, world=3, device="cuda"))


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_processes_do_not_share_a_gpu(device):
    with pytest.raises(UserError, match=f"2 processes would share device {device}"):
        own_device(device, Processes(0, 2, 0))
    assert own_device(device, Processes()) == device


def test_each_process_has_the_gpu_of_its_place_on_its_machine():
    assert own_device("cuda", Processes(5, 8, 1)) == "cuda:1"
    assert own_device("cpu", Processes(5, 8, 1)) == "cpu"


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("auto", "torchrun started 3 processes on this machine, and torch finds 2 GPUs: use --nproc-per-node 2"),
        ("cuda:0", "3 processes would share device cuda:0"),
    ],
)
def test_every_process_refuses_gpus_that_there_are_not(device, message):
    """Before the processes meet: one that waited for the others would wait for ever."""
    for rank in range(3):
        started = {"WORLD_SIZE": "3", "RANK": str(rank), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": "3"}
        with pretended_cards(2), pytest.raises(UserError, match=message), processes(started, device):
            pass


def test_a_network_is_sharded_where_it_is(tmp_path):
    """On a machine with another accelerator than the network's device."""
    finish(launch(tmp_path, sharded, world=2))


def test_muon_shares_its_matrices_out(tmp_path):
    finish(launch(tmp_path / "said", muon, world=3))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("accumulate", ["1", "4"])
def test_gradients_are_exchanged_once_a_step(dtype, accumulate, tmp_path):
    """However many parts a batch has, and whatever the network computes in; and the network is that of one process."""
    exchanged = {"accumulate": accumulate, "images": "16"} | CALM
    for said in finish(launch(tmp_path / "said", counting, str(tmp_path / "two"), exchanged, dtype, world=2)):
        assert said.splitlines()[-1] == "exchanged 1 gradients a step"
    counting(Processes(), str(tmp_path / "one"), exchanged, dtype)
    close(contents(tmp_path / "two"), contents(tmp_path / "one"), 1e-5 if dtype == "float32" else 0.02)


def test_an_error_of_one_is_an_error_of_all(tmp_path):
    for out in finish(launch(tmp_path, together, world=2)):
        assert out == "UserError the disk burns\n"


@pytest.mark.parametrize("step", [0, 3], ids=["at the first step", "later"])
def test_data_that_one_process_cannot_read_ends_both_with_one_sentence(step, tmp_path):
    """Not with an error of the connection, whichever process it is that cannot read it."""
    for out in finish(launch(tmp_path / "said", unreadable, str(tmp_path), step, world=2)):
        lines = out.splitlines()
        assert lines[-1] == "UserError picture 7 cannot be read"
        assert "Traceback" not in out
        assert "gloo" not in out


def test_a_process_that_vanishes_is_a_sentence_in_the_other(tmp_path):
    first, second = launch(tmp_path, vanish, world=2)
    assert second.end() == 3
    assert first.end() == 1
    assert (
        first.said()
        .splitlines()[-1]
        .endswith("another process of this training has ended: its own message has the reason")
    )


def test_alone_is_the_same_with_nobody_to_ask():
    alone = Processes()
    assert alone.split([1, 2, 3]) == [1, 2, 3]
    assert alone.any(True)
    assert not alone.any(False)
    assert alone.broadcast("x") == "x"
    assert torch.equal(alone.gather(torch.arange(3)), torch.arange(3))


# --- what the processes do ---


def recipe(who: Processes, path: str, values: dict[str, str]) -> None:
    list(diffusion.train(override(SMALL, values), Path(path), processes=who))


def share(who: Processes) -> None:
    seeds = list(range(7))
    mine = who.split(seeds)
    assert len(mine) in (2, 3)
    pictures = torch.stack([torch.full((1, 2, 2), float(seed)) for seed in mine])
    gathered = who.gather(pictures)
    assert gathered[:, 0, 0, 0].tolist() == seeds
    assert who.gather(torch.zeros(0, 3) if who.rank == 1 else torch.ones(1, 3)).shape == (2, 3)
    assert who.broadcast(f"said by {who.rank}") == "said by 0"
    ranks, ones = torch.full((2,), float(who.rank)), torch.ones(3)
    who.average([ranks, ones])
    assert ranks.tolist() == [1, 1]  # the mean of 0, 1 and 2
    assert ones.tolist() == [1, 1, 1]
    assert who.any(who.rank == 2)
    assert not who.any(False)


def muon(who: Processes) -> None:
    """Three steps of all together are those of one, and the same on all."""
    shapes = [(48, 32), (32, 32), (32, 40), (48, 32), (32, 32, 3, 3)]
    found, gathered = [], Mock(wraps=dist.all_gather)
    dist.all_gather = gathered
    for several in (who, Processes()):
        generator = torch.Generator().manual_seed(0)
        params = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
        optimizer = Muon(params, lr=0.1, weight_decay=0.01, processes=several)
        for _ in range(3):
            for p in params:
                p.grad = torch.randn(p.shape, generator=generator)
            optimizer.step()
        found.append(torch.cat([p.detach().flatten() for p in params]))
        assert gathered.call_count == (3 if several is who else 0)  # one exchange a step, of matrices alone
        gathered.reset_mock()
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-4)
    everyone = who.gather(found[0][None])
    assert all(torch.equal(one, everyone[0]) for one in everyone)


def sharded(who: Processes) -> None:
    net = make_net(0.0)
    torch.utils.backend_registration._setup_privateuseone_for_python_backend("pretend")
    assert torch.accelerator.current_accelerator().type == "pretend"
    shard(net, torch.float32)
    net(torch.zeros(2, 1, 4, 4), torch.zeros(2, dtype=torch.int64)).sum().backward()
    assert {p.device_mesh.device_type for p in net.parameters()} == {"cpu"}
    assert all(p.grad is not None for p in net.parameters())


def counting(who: Processes, path: str, values: dict[str, str], dtype: str) -> None:
    """A training that says how often as many numbers as the network has are exchanged in a step."""
    config = override(TinyConfig(), values)
    with torch.profiler.profile(record_shapes=True) as seen:
        steps = list(ticks(config, Path(path), who, dtype=getattr(torch, dtype)))
    sent = sum(math.prod(shape) for e in seen.events() if e.name == "gloo:all_reduce" for shape in e.input_shapes)
    numbers = sum(p.numel() for p in make_net().parameters())
    print("exchanged", sent // (len(steps) * numbers), "gradients a step", flush=True)


def unreadable(who: Processes, path: str, step: int) -> None:
    def broken(config: TinyConfig, start: int, mine: Processes):
        for at, batch in enumerate(real(config, start, mine), start=start):
            if at == step and not mine.first:
                raise UserError("picture 7 cannot be read")
            yield batch

    real = tiny_training.batches
    tiny_training.batches = broken
    try:
        list(ticks(CALM_CONFIG, Path(path), who))
    except UserError as e:
        print("UserError", e)


def vanish(who: Processes) -> None:
    if not who.first:
        os._exit(3)
    who.sum(torch.zeros(1))


def together(who: Processes) -> None:
    try:
        with who.together():
            if who.first:
                time.sleep(0.1)
                raise UserError("the disk burns")
    except UserError as e:
        print("UserError", e)
