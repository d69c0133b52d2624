"""A compiled operation is built once, checked before use, and optional."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
import torch

from tests.helpers.norms import draw, norm_of
from unnoise.nn import compiled as build
from unnoise.nn import norm as module


@pytest.fixture(autouse=True)
def as_before():
    before = module._enabled
    yield
    module._enabled = before


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A build that writes a file and takes a moment; returns what happened, in order."""
    happened: list[str] = []

    def fake_load(name: str, sources: object, *, build_directory: str, **_: object) -> None:
        happened.append("build")
        threading.Event().wait(0.2)
        (Path(build_directory) / f"{name}.so").write_text("library")

    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(tmp_path))
    monkeypatch.setattr(build.cpp_extension, "load", fake_load)
    monkeypatch.setattr(torch.ops, "load_library", lambda path: happened.append("load"))
    return happened


def test_built_once_stored_and_loaded(workshop):
    build.load("group_norm", lambda: workshop.append("check"))
    build.load("group_norm", lambda: workshop.append("check"))
    assert workshop == ["build", "check", "load"]


def test_two_at_once_build_once(workshop):
    both = [threading.Thread(target=build.load, args=("group_norm", lambda: None)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert sorted(workshop) == ["build", "load"]


def test_the_remains_of_a_killed_build_are_removed(workshop):
    left = build.folder("group_norm") / "build-killed"
    left.mkdir(parents=True)
    (left / "half.so").write_text("half")
    (build.folder("group_norm") / "lock").write_text("")  # its holder is gone: the file alone locks nothing
    build.load("group_norm", lambda: None)
    assert not left.exists()
    assert workshop == ["build"]
    assert [p.name for p in build.folder("group_norm").iterdir() if p.name.startswith("build-")] == []


def test_a_wrong_build_is_never_used_and_the_reason_is_stored(workshop):
    def wrong() -> None:
        raise AssertionError("y is off by 1")

    for _ in range(2):
        with pytest.raises(build.Absent, match="y is off by 1"):
            build.load("group_norm", wrong)
    assert workshop == ["build"]
    assert not list(build.folder("group_norm").glob("*.so"))


def test_no_compiler_is_no_error(workshop, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(build.Absent, match="no-such-compiler"):
        build.load("group_norm", lambda: None)
    assert workshop == []
    monkeypatch.delenv("CXX")
    build.load("group_norm", lambda: None)  # and nothing was noted against the day there is one
    assert workshop == ["build"]


def test_an_absent_operation_falls_back_silently(monkeypatch):
    monkeypatch.setitem(build._known, "group_norm", "no compiler")
    assert module.enable() is False
    x, _ = draw((1, 8, 2, 2))
    assert norm_of(8, 2)(x, silu=True).shape == x.shape


def test_the_path_is_restored(workshop):
    before = os.environ["PATH"]
    build.load("group_norm", lambda: None)
    assert os.environ["PATH"] == before
