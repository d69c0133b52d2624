"""A checkpoint whose tensors are not those of the training is refused, naming file and tensor, before one is loaded."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.helpers.tiny_training import TinyConfig, changed, ticks
from unnoise.io import checkpoint, weights

FILES = ("weights", "model", "ema-16", "optimizer")


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with one checkpoint, of step 2."""
    path = tmp_path_factory.mktemp("run")
    for tick in ticks(changed(checkpoint_steps=2), path):
        if tick.step == 2:
            return path
    raise AssertionError("the training is longer")


def first(tensors: dict[str, Tensor]) -> str:
    return next(name for name, value in sorted(tensors.items()) if value.ndim > 1)


def one_element(tensors: dict[str, Tensor]) -> str:
    """Would be copied to every element of the network's."""
    name = first(tensors)
    tensors[name] = tensors[name].flatten()[:1].clone()
    return f"the tensor {name} has the shape (1,)"


def one_row(tensors: dict[str, Tensor]) -> str:
    name = first(tensors)
    tensors[name] = tensors[name][:1].clone()
    return f"the tensor {name} has the shape (1, "


def whole_numbers(tensors: dict[str, Tensor]) -> str:
    name = first(tensors)
    tensors[name] = tensors[name].round().int()
    return f"the tensor {name} has the type I32, not torch.float32"


def unknown(tensors: dict[str, Tensor]) -> str:
    tensors["more"] = torch.zeros(2)
    return "the tensor more is unknown"


def missing(tensors: dict[str, Tensor]) -> str:
    name = first(tensors)
    del tensors[name]
    return f"the tensor {name} is missing"


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("change", [one_element, one_row, whole_numbers, unknown, missing])
def test_other_tensors_are_refused_with_file_and_name(
    stopped: Path, tmp_path: Path, file: str, change: Callable[[dict[str, Tensor]], str]
) -> None:
    if file == "optimizer" and change is missing:
        pytest.skip("a parameter without a gradient has no moments")
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    here = run / "checkpoints" / "step-00000002" / f"{file}.safetensors"
    tensors = checkpoint.read(here)
    message = change(tensors)
    checkpoint.save(tensors, here)
    (here.parent / checkpoint.MANIFEST).unlink()
    checkpoint._seal(here.parent)  # a manifest of these bytes: they are not damaged, but other ones
    with pytest.raises(checkpoint.Damaged) as refused:
        next(ticks(TinyConfig(), run))
    assert str(refused.value).startswith(f"{here}: {message}")


def test_names_are_compared_before_a_tensor_is_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoint.save({f"t{i}": torch.zeros(2) for i in range(1000)}, tmp_path / "weights.safetensors")
    loaded: list[str] = []
    opened = weights.safe_open

    class Counting:
        """An open file that notes which tensors are loaded."""

        def __init__(self, *args: Any, **kwargs: Any) -> None:
            self.file = opened(*args, **kwargs)

        def __enter__(self) -> Counting:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def __getattr__(self, name: str) -> Any:
            return getattr(self.file, name)

        def get_tensor(self, name: str) -> Tensor:
            loaded.append(name)
            found: Tensor = self.file.get_tensor(name)
            return found

    monkeypatch.setattr(weights, "safe_open", Counting)
    wanted = {"a": torch.empty(2, device="meta")}
    with pytest.raises(checkpoint.Damaged, match=r"weights\.safetensors: the tensor a is missing"):
        checkpoint.read(tmp_path / "weights.safetensors", wanted)
    with pytest.raises(checkpoint.Damaged, match=r"weights\.safetensors: the tensor t\d+ is unknown"):
        checkpoint.read(tmp_path / "weights.safetensors", wanted, partial=True)
    assert loaded == []
    assert len(checkpoint.read(tmp_path / "weights.safetensors")) == len(loaded) == 1000
