"""The command line from outside: its output, its messages and its exit codes.

Laws: results go to stdout and messages to stderr; an error names what is wrong, where, and one fix, without a
traceback; what needs no torch does not load it.
"""

from __future__ import annotations

import dataclasses
import io
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from cyclopts import Parameter

from unnoise.cli import console, options, paths
from unnoise.cli.commands import EARLIER
from unnoise.cli.console import UsageError, table
from unnoise.cli.main import COMMANDS, main, today
from unnoise.cli.options import comments, keys_of
from unnoise.cli.parse import parse_names, parse_seeds
from unnoise.cli.progress import Progress
from unnoise.config.request import Request, RequestOptions
from unnoise.errors import UserError
from unnoise.generate.recipe import option_words
from unnoise.generate.rows import pairs, seed_ranges, seeds_text
from unnoise.io.units import duration, human


def unnoise(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "unnoise.cli.main", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | environment,
    )


# ------------------------------------------------------------------------------------------- seeds and labels


@pytest.mark.parametrize(
    ("text", "seeds"),
    [("7", [7]), ("0-3", [0, 1, 2, 3]), ("0-2,70", [0, 1, 2, 70]), (" 5 , 1-2 ", [5, 1, 2]), ("3-3", [3])],
)
def test_seeds_and_ranges(text: str, seeds: list[int]) -> None:
    assert parse_seeds(text) == [(seed, None) for seed in seeds]
    assert parse_seeds(seed_ranges(seeds)) == parse_seeds(text)


def test_a_seed_may_have_its_own_label() -> None:
    assert parse_seeds("4:bag,0-1:Ankle boot") == [(4, "bag"), (0, "Ankle boot"), (1, "Ankle boot")]


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("", "''"),
        ("a", "'a'"),
        ("1-", "'1-'"),
        ("-1", "'-1'"),
        ("1.5", "'1.5'"),
        ("3-1", "1-3"),
        ("0-99999999999", "1,000,000"),
        ("²", "'²'"),
        ("9223372036854775808", "2^63"),
        ("9" * 5000, "2^63"),
        ("1,,2", "''"),
    ],
)
def test_an_error_about_seeds_quotes_the_wrong_part(text: str, quoted: str) -> None:
    with pytest.raises(UsageError, match=r"--seeds") as error:
        parse_seeds(text)
    assert quoted in str(error.value)


def test_every_label_is_paired_with_every_seed_and_the_text_is_parsed_back() -> None:
    rows = pairs(parse_seeds("0-2,9:bag"), parse_names("shirt, coat"))
    assert rows == [(s, label) for label in ("shirt", "coat") for s in (0, 1, 2)] + [(9, "bag")]
    assert pairs(parse_seeds(seeds_text(rows)), ()) == rows
    assert pairs(parse_seeds("1,2"), ()) == [(1, None), (2, None)]


# -------------------------------------------------------------------------------------- options from settings


def test_the_help_of_an_option_is_the_text_of_its_field() -> None:
    about = comments(RequestOptions)
    assert set(about) <= {field.name for field in dataclasses.fields(RequestOptions)}
    assert about["eta"] == "DDIM: 0 is deterministic, 1 is ancestral"


def test_options_set_the_fields_of_a_request() -> None:
    @options.with_settings(
        RequestOptions,
        seeds=None,
        labels=None,
        steps=Parameter(alias="--num-inference-steps"),
        dynamic_threshold=Parameter(alias="--threshold"),
    )
    def command(model: str, **values: object) -> Request:
        return Request.of(**values)

    from cyclopts import App

    app = App(result_action="return_value")
    app.default(command)
    assert app(["m"], exit_on_error=False) == Request()
    wanted = Request.of(steps=7, clip=False, dynamic_threshold=0.5, precision="bfloat16")
    words = ["--num-inference-steps", "7", "--no-clip", "--threshold", "0.5", "--precision", "bfloat16"]
    assert app(["m", *words], exit_on_error=False) == wanted
    assert app(["m", *option_words(wanted.flat(), RequestOptions)], exit_on_error=False) == wanted


def test_names_listed_without_torch_are_the_registered_names() -> None:
    from unnoise.samplers import SAMPLERS, SPACINGS

    assert keys_of("samplers/__init__.py", "SAMPLERS") == tuple(SAMPLERS)
    assert keys_of("samplers/timesteps.py", "SPACINGS") == tuple(SPACINGS)


# ---------------------------------------------------------------------------------------- help and exit codes


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([name, "--help"]) == console.DONE
    out, err = capsys.readouterr()
    assert f"unnoise {name}" in out
    assert err == ""
    assert not any(empty in out for empty in ("[default: ()]", '[default: ""]', "[default: {}]", "None]"))


def test_the_help_of_sample_has_three_groups_of_options(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option belongs to a group, and the examples are commands that parse."""
    assert main(["sample", "--help"]) == console.DONE
    out, _ = capsys.readouterr()
    places = [out.index(f"─ {name} ─") for name in ("Which pictures", "Output", "Sampling")]
    assert places == sorted(places)
    assert "─ Parameters ─" not in out
    lines = [line.strip() for line in out.splitlines() if line.startswith("  unnoise sample ")]
    assert len(lines) == 3
    for line in lines:
        assert main(shlex.split(line)[1:]) == console.USAGE
        assert "no model at runs/00001" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["smaple"], "did you mean 'sample'"),
        (["sample", "x", "--stpes", "3"], "Did you mean --steps?"),
        (["sample", "x", "--steps", "many"], "--steps"),
        (["sample", "x", "--steps", "0"], "0 is not between 1 and"),
        (["sample", "x", "--eta", "2"], "2 is not between 0 and 1"),
        (["sample", "x", "--sampler", "dimm"], "ddim"),
        (["sample"], "MODEL"),
        (["sample", "x", "--seeds", "5-2"], "Write 2-5"),
        (["info", "nowhere/at/all"], "no folder nowhere/at"),
        (["--frobnicate"], "--frobnicate"),
    ],
)
def test_usage_errors_name_the_fix(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "model.json").write_text("{}")
    assert main([str(tmp_path) if word == "x" else word for word in words]) == console.USAGE
    out, err = capsys.readouterr()
    assert out == ""
    assert message in err
    assert err.startswith("unnoise: error: ")
    assert "Traceback" not in err


def test_the_page_shows_the_message_about_an_unknown_sampler(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    """The page may leave out names in the middle of the list, at "..."."""
    assert main(["sample", str(tmp_path), "--sampler", "dimm"]) == console.USAGE
    message = " ".join(capsys.readouterr().err.split())
    page = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text().split("--sampler dimm\n")[1]
    shown = [" ".join(part.split()) for part in page.split("```")[0].split("...")]
    assert message.startswith(shown[0])
    assert message.endswith(shown[-1])


def test_an_error_about_a_missing_path_suggests_a_similar_one(tmp_path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "00001-fashion").mkdir()
    assert main(["info", str(tmp_path / "00001-fashoin")]) == console.USAGE
    assert f"did you mean {tmp_path / '00001-fashion'}?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("no such thing"), console.FAILED, "unnoise: error: no such thing"),
        (UsageError("no such option"), console.USAGE, "no such option"),
        (OSError(28, "No space left on device", "runs/x"), console.FAILED, "No space left on device: 'runs/x'"),
        (KeyboardInterrupt(), console.INTERRUPTED, "interrupted"),
        (RuntimeError("CUDA out of memory. Tried"), console.FAILED, "smaller --batch"),
        (MemoryError("x"), console.FAILED, "smaller --batch"),
        (MemoryError(), console.FAILED, "out of memory (of this machine). Set a smaller --batch"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you"), console.FAILED, "smaller --batch"),
    ],
)
def test_every_kind_of_error_has_its_exit_code(
    monkeypatch, capsys, error: BaseException, code: int, message: str
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("unnoise.cli.doctor.examine", fail)
    assert main(["doctor"]) == code
    err = capsys.readouterr().err
    assert message in err
    assert "Traceback" not in err


def test_an_unexpected_error_is_reported_as_a_fault_of_unnoise(monkeypatch, capsys) -> None:
    def fail(**_: object) -> None:
        raise KeyError("x")

    monkeypatch.setattr("unnoise.cli.doctor.examine", fail)
    assert main(["doctor"]) == console.FAILED
    err = capsys.readouterr().err
    assert "Traceback" in err
    assert "fault in unnoise" in err


def test_help_and_usage_errors_need_no_torch() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); from unnoise.cli.main import main\n"
        "codes = [main(['--help']), main(['train', '--help']), main(['sample', '--help']), main(['sample', '.', '-x']),"
        " main(['sample', '.', '--seeds', '2-1']), main(['presets']), main(['train', 'fashoin'])]\n"
        "assert codes == [0, 0, 0, 2, 2, 0, 2], codes\n"
        "assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


def test_help_is_quick() -> None:
    """In CPU seconds, which do not depend on other load; importing torch alone would need more."""

    def once() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert unnoise("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert min(once() for _ in range(5)) < 0.5


def test_a_closed_pipe_is_no_error() -> None:
    shell = f"{sys.executable} -m unnoise.cli.main completion zsh | head -1"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "> /dev/full 2>&-"])
def test_closed_outputs_are_no_fault(closed: str) -> None:
    shell = f"{sys.executable} -m unnoise.cli.main presets {closed}; echo $?"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1:] == ["1" if "full" in closed else "0"]
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("text", ["9" * 5000, f"0-{'9' * 5000}", "9" * 5000 + ":a"])
def test_a_seed_of_thousands_of_digits_is_too_large(text: str) -> None:
    with pytest.raises(UsageError, match="too large"):
        parse_seeds(text)


def test_plain_terminals_get_plain_text() -> None:
    done = unnoise("--help", NO_COLOR="1", LANG="C", LC_ALL="C", PYTHONIOENCODING="ascii", COLUMNS="40")
    assert done.returncode == 0, done.stderr
    assert "\x1b" not in done.stdout
    assert max(map(len, done.stdout.split("First steps")[0].splitlines())) <= 40


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("unnoise 0.")


# ---------------------------------------------------------------------------------------------------- progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_lines_in_a_log_and_a_bar_on_a_terminal(monkeypatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    log, terminal = io.StringIO(), Terminal()
    for out in (log, terminal):
        with Progress(10, "training", every=4, seconds=0, out=out) as progress:
            for step in range(1, 11):
                progress.step(step, f"loss {1 / step:.2f}")
    lines = log.getvalue().splitlines()
    assert [line.split(",")[0] for line in lines] == [f"training: step {k}/10" for k in (4, 8, 10)]
    assert "loss 0.25" in lines[0]
    assert "\r" not in log.getvalue()
    assert "\r" in terminal.getvalue()


def test_progress_does_not_flood_a_log() -> None:
    log = io.StringIO()
    with Progress(1000, "training", out=log) as progress:
        for step in range(1, 1001):
            progress.step(step)
    assert len(log.getvalue().splitlines()) == 1  # the last


def test_progress_resumes() -> None:
    log = io.StringIO()
    with Progress(100, "training", every=50, seconds=0, start=60, out=log) as progress:
        progress.step(61)
        progress.step(100)
    assert len(log.getvalue().splitlines()) == 1


# ------------------------------------------------------------------------------------------- text and paths


def test_numbers_and_durations_are_formatted_for_reading() -> None:
    assert [human(n) for n in (35_746_307, 1200, 12, 2.5e12)] == ["35.7M", "1.2k", "12", "2.5T"]
    assert [duration(s) for s in (3, 59, 245, 7800, 273_600)] == [
        "3.0 s",
        "59 s",
        "4 min 05 s",
        "2 h 10 min",
        "3 d 4 h",
    ]


def test_columns_of_a_table_are_aligned() -> None:
    assert table([("a", "1.5"), ("bcd", "10")], head=("name", "value")) == (
        "name  value\n----  -----\na       1.5\nbcd      10"
    )


def test_an_output_that_cannot_be_written_is_refused_first(tmp_path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UsageError, match="is a file, not a folder"):
        paths.writable(tmp_path / "file" / "inside.png", "the grid")
    assert paths.writable(tmp_path / "new" / "grid.png", "the grid")


def test_options_of_earlier_versions_work_and_are_not_listed(capsys: pytest.CaptureFixture[str]) -> None:
    """In both forms of a value; every one of today's names is an option of some command."""
    listed = ""
    for command in (["sample"], ["evaluate"], ["compare"], ["table", "guidance"], ["table", "ddim"]):
        assert main([*command, "--help"]) == 0
        listed += capsys.readouterr().out
    for earlier, name in EARLIER.items():
        assert (today(earlier), today(f"{earlier}=a=b")) == (name, f"{name}=a=b")
        assert name in listed
        assert not re.search(rf"{earlier}\b(?!-)", listed)
    assert main(["sample", "no-model", "--nearest", "fashion"]) == 2
    assert "unnoise nearest FOLDER --data SET" in capsys.readouterr().err
