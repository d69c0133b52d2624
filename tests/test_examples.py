"""What we show works: every example runs, every Python block of the pages runs, every command that they show is one."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest
import torch

from unnoise import nn
from unnoise.cli.main import COMMANDS, app
from unnoise.config.cards import ModelCard
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import UNetConfig
from unnoise.denoiser import make_diffusion
from unnoise.model import Model

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
EXAMPLES = {  # name: its arguments, what it must print or write
    "exact_world": ((), "heun   40 steps: mean 0.19"),
    "your_own_sampler": ((), "order 2.0"),
    "custom_loop": ((), "custom.png"),
    "diffusers_folder": (("runs/00001-fashion", "exported"), "the same pictures"),
    "train_toy": (("512",), "drew toy.png"),
    "draw": (("runs/00001-fashion",), "grid.png"),
}
CLOTHES = ["t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle-boot"]
page = pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a model in runs/00001-fashion: as small as can be, and it has learned nothing."""
    net = UNetConfig(
        size=28,
        in_channels=1,
        out_channels=1,
        channels=(8, 8),
        blocks=1,
        attention=(False, False),
        groups=4,
        classes=10,
    )
    card = ModelCard(
        net=net, process=DiffusionConfig(schedule="cosine"), size=(28, 28), channels=1, classes=tuple(CLOTHES)
    )
    folder = tmp_path / "runs" / "00001-fashion"
    folder.mkdir(parents=True)
    Model(make_diffusion(nn.build(net), card.process).eval(), card).save(folder)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("path", sorted((ROOT / "examples").glob("*.py")), ids=lambda path: path.stem)
def test_examples_run_and_are_short(
    path: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments, result = EXAMPLES[path.stem]
    monkeypatch.setattr(sys, "argv", [str(path), *arguments])
    torch.manual_seed(0)
    runpy.run_path(str(path), run_name="__main__")
    assert result in capsys.readouterr().out or (workplace / result).is_file()
    assert len(path.read_text().splitlines()) <= 30


def blocks(path: Path, *languages: str) -> list[str]:
    return [text for kind, text in re.findall(r"```(\w*)\n(.*?)```", path.read_text(), re.DOTALL) if kind in languages]


@page
def test_python_blocks_run(page: Path, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One after the other, as a reader would type them."""
    reader = ModuleType("reader")
    monkeypatch.setitem(sys.modules, "reader", reader)  # where a dataclass looks for its own types
    for number, block in enumerate(blocks(page, "python")):
        exec(compile(block, f"{page.name}, block {number + 1}", "exec"), vars(reader))


def commands(path: Path) -> list[list[str]]:
    """The words of every `unnoise ...` and `make ...` in the blocks of a page."""
    found = []
    for block in blocks(path, "", "console", "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True) if "unnoise" in line or "make" in line else []
            if words[:1] == ["torchrun"]:
                words = words[words.index("unnoise.cli.main") :]
                words[0] = "unnoise"
            if words[:1] in (["unnoise"], ["make"]):
                found.append(words[: words.index(">")] if ">" in words else words)
    return found


@page
def test_commands_are_what_the_command_line_knows(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *words in commands(page):
        if program == "make":
            assert set(words) <= set(targets), words
        elif words[:1] and not words[0].startswith("-"):
            assert words[0] in COMMANDS, words
            app.parse_args(words, exit_on_error=False, print_error=False)  # raises for an unknown option or choice


@page
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http", "assets/")):  # the assets are made by the demo
            assert (page.parent / target).exists(), target


@page
def test_the_tests_that_a_page_names_are_there(page: Path) -> None:
    there = {
        name for path in (ROOT / "tests").rglob("*.py") for name in re.findall(r"def (test_\w+)", path.read_text())
    }
    there |= {path.stem for path in (ROOT / "tests").rglob("*.py")}
    for name, more in re.findall(r"\b(test_\w+)(\.\.\.)?", page.read_text()):
        assert name in there or (more and any(other.startswith(name) for other in there)), name


def test_the_floors_are_those_that_are_checked() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    told = blocks(ROOT / "docs" / "architecture.md", "text")[-1].splitlines()
    assert [line[:65].split() for line in told] == [layer.replace("|", " ").split() for layer in contract]
