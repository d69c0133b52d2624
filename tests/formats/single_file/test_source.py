"""A safetensors file is read by its header first; a pickle is opened on request alone, and runs nothing."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.helpers.checkpoints import SD1, save, unet_tensors
from unnoise.cli.main import main
from unnoise.errors import UserError
from unnoise.formats.single_file.source import opened
from unnoise.model import load


class Evil:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, ("ran",)


@pytest.mark.parametrize("nested", [True, False])
def test_a_pickle_of_tensors_is_what_the_safetensors_file_is(nested: bool, tmp_path: Path) -> None:
    state = unet_tensors(SD1)
    right = load(save(tmp_path / "x.safetensors", state)).diffusion.net.state_dict()
    file = tmp_path / "x.ckpt"
    half = {name: tensor.half() for name, tensor in state.items()}
    torch.save({"state_dict": half, "global_step": 3, "epoch": 1} if nested else half, file)
    with pytest.raises(UserError, match=r"is a pickle, which can run code, and is not opened: .* --allow-pickle"):
        load(file)
    found = load(file, allow_pickle=True).diffusion.net.state_dict()
    assert found.keys() == right.keys()
    for name, tensor in found.items():
        assert tensor.dtype == torch.float32
        assert torch.equal(tensor, right[name].half().float())


def test_the_command_opens_a_pickle_on_request(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.ckpt"
    torch.save({"state_dict": unet_tensors(SD1)}, file)
    assert main(["export", str(file), str(tmp_path / "out")]) == 2
    assert "--allow-pickle" in capsys.readouterr().err
    assert main(["export", str(file), str(tmp_path / "out"), "--allow-pickle"]) == 0
    assert (tmp_path / "out" / "unet" / "config.json").is_file()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_a_pickle_with_code_in_it_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": {"a": torch.zeros(1)}, "callbacks": Evil()}, tmp_path / "a.ckpt")
    (tmp_path / "b.pt").write_bytes(pickle.dumps(Evil()))
    (tmp_path / "c.pt").write_bytes(b"nothing of the kind")
    for name in ("a.ckpt", "b.pt", "c.pt"):
        with pytest.raises(UserError, match=r"is not a file of tensors alone"):
            opened(tmp_path / name, allow_pickle=True)
    assert not (tmp_path / "ran").exists()


def test_other_contents_of_pickles_are_refused(tmp_path: Path) -> None:
    for content, message in (
        ([1], "has no tensors by name"),
        ({"state_dict": [1]}, "has no tensors by name"),
        ({1: torch.zeros(1)}, "has no tensors by name"),
        ({"state_dict": {"a": "text"}}, "a is a str, not a tensor"),
    ):
        torch.save(content, tmp_path / "x.pt")
        with pytest.raises(UserError, match=message):
            opened(tmp_path / "x.pt", allow_pickle=True)
    torch.save({"model.diffusion_model.a": torch.zeros(1, dtype=torch.int64)}, tmp_path / "x.pt")
    with pytest.raises(UserError, match=r"model\.diffusion_model\.a is torch\.int64: weights are floating-point"):
        opened(tmp_path / "x.pt", allow_pickle=True).shapes("model.")


def test_integers_are_refused_and_constants_left_out(tmp_path: Path) -> None:
    state = {"m.a": torch.zeros(2), "m.position_ids": torch.zeros(3, dtype=torch.int64), "n.b": torch.zeros(1).int()}
    source = opened(save(tmp_path / "x.safetensors", state, key="value"))
    assert source.shapes("m.") == {"a": (2,)}
    assert source.metadata == {"key": "value"}
    with pytest.raises(UserError, match=r"n\.b is I32"):
        source.shapes("n.")
