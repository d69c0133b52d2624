"""Documentation is tested: every example and every Python block of the pages runs, and every command parses."""

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
TESTS = sorted((ROOT / "tests").rglob("*.py"))
EXAMPLES = {  # name: its arguments, the text that it must print or the file that it must write
    "exact_world": ((), "heun   40 steps: mean 0.20"),
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
    """A working directory with a tiny, untrained model in runs/00001-fashion."""
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
    """In order, in one namespace for each page."""
    reader = ModuleType("reader")
    monkeypatch.setitem(sys.modules, "reader", reader)  # dataclasses look up their types in their module
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
def test_commands_parse(page: Path) -> None:
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for program, *words in commands(page):
        if program == "make":
            assert set(words) <= set(targets), words
        elif words[:1] and not words[0].startswith("-"):
            assert words[0] in COMMANDS, words
            app.parse_args(words, exit_on_error=False, print_error=False)  # raises for an unknown option or choice


@page
def test_links_exist(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith(("http", "assets/")):  # the demo writes the assets
            assert (page.parent / target).exists(), target


@page
def test_tests_named_on_a_page_exist(page: Path) -> None:
    known = {name for path in TESTS for name in re.findall(r"def (test_\w+)", path.read_text())}
    known |= {path.stem for path in TESTS}
    for name, more in re.findall(r"\b(test_\w+)(\.\.\.)?", page.read_text()):
        assert name in known or (more and any(other.startswith(name) for other in known)), name


def test_the_floors_of_the_architecture_page_are_those_of_the_contract() -> None:
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"][0]["layers"]
    shown = blocks(ROOT / "docs" / "architecture.md", "text")[-1].splitlines()
    assert [line[:65].split() for line in shown] == [layer.replace("|", " ").split() for layer in contract]


def test_every_identifier_of_the_glossary_exists() -> None:
    """In the columns of terms and definitions: a rename in the package has to change the glossary too."""
    source = "\n".join(path.read_text() for path in (ROOT / "src").rglob("*.py"))
    rows = re.findall(r"^\|([^|]*\|[^|]*)\|", (ROOT / "docs" / "glossary.md").read_text(), re.MULTILINE)
    spans = [span for row in rows for span in re.findall(r"`([^`]+)`", row)]
    identifiers = {word for span in spans for word in re.findall(r"[A-Za-z_]\w+", span)}
    assert len(identifiers) > 10
    assert [word for word in sorted(identifiers) if not re.search(rf"\b{word}\b", source)] == []
