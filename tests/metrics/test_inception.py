"""Inception-v3: errors for missing files have a fix, no code is executed, and the name is that of the weights.

The real weights and torch-fidelity are on few machines; a stand-in for torch-fidelity's module takes their place here.
"""

from __future__ import annotations

import hashlib
import importlib.util
import pickle
from pathlib import Path

import pytest
import torch
from torch import Tensor

from unnoise.codec import to_bytes
from unnoise.errors import UserError
from unnoise.metrics import features as f
from unnoise.metrics import inception


def test_weights_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert inception.find_weights() is None
    with pytest.raises(UserError, match=r"no Inception-v3 weights on this disk.*download them from https"):
        f.find_features("inception")
    with pytest.raises(UserError, match=r"the file does not exist"):
        f.find_features(str(tmp_path / "my.pth"))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / inception.FILE).touch()
    assert inception.find_weights() == tmp_path / "checkpoints" / inception.FILE


def test_packages_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "w.pth").touch()
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install 'torchmetrics"):
        inception.load_inception(tmp_path / "w.pth")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (exec, ("raise SystemExit('this ran')",))


def test_a_file_that_would_run_code_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save({"Mixed_7c.branch_pool.conv.weight": Bomb()}, tmp_path / "worse.pth")
    torch.save({"conv.weight": torch.zeros(1)}, tmp_path / "other.pth")
    for name, match in (
        ("bad", "not a file of weights"),
        ("worse", "not a file of weights"),
        ("other", "not torch-fid"),
    ):
        with pytest.raises(UserError, match=match):
            inception._check(tmp_path / f"{name}.pth")


def test_pictures_reach_it_as_colour_bytes_and_the_name_is_the_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    batches: list[Tensor] = []

    def network(x: Tensor) -> Tensor:
        batches.append(x)
        return x.float().mean((1, 2, 3))[:, None].expand(-1, 2048)

    x = torch.rand(5, 1, 4, 4) * 2 - 1
    digest = inception.HASH + hashlib.sha256(b"").hexdigest()[8:]
    for found, name, fid in (
        (digest, "inception-v3", True),
        ("0" * 64, "inception-v3 with other weights (00000000)", False),
    ):
        monkeypatch.setattr(f, "load_inception", lambda path, device, found=found: (network, found))
        extractor = f.inception_features(batch=2)
        assert (extractor.name, extractor.fid, extractor.dim) == (name, fid, 2048)
        got = extractor(x)
        torch.testing.assert_close(got[:, 7], to_bytes(x).float().mean((1, 2, 3)))
        assert extractor(x[:0]).shape == (0, 2048)
    assert [len(part) for part in batches[:3]] == [2, 2, 1]
    assert all(part.dtype == torch.uint8 and part.shape[1] == 3 for part in batches)
    with pytest.raises(UserError, match="4 channels"):
        extractor(torch.zeros(1, 4, 8, 8))
