"""Progress and tables: what is drawn on a terminal, what is written to a pipe, and that neither touches the other."""

from __future__ import annotations

import io
import re
import sys
from pathlib import Path
from typing import TextIO

import pytest
from rich.cells import cell_len

from unnoise.cli import console, progress
from unnoise.cli.console import table
from unnoise.cli.progress import Progress

COLOUR = re.compile(r"\x1b\[[\d;]*m")
ESCAPE = re.compile(r"\x1b\[[\d;?]*[A-Za-z]")


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def wide(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal of 120 columns with colours, whatever the tests run in."""
    for name, value in (("TERM", "xterm-256color"), ("COLUMNS", "120"), ("LINES", "40")):
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)


def run(out: TextIO, *, total: int = 4, note: str = "", **options: object) -> str:
    """What `Progress` writes along `total` steps."""
    with Progress(total, "sampling", out=out, **options) as bar:  # type: ignore[arg-type]
        for step in range(1, total + 1):
            bar.step(step, note)
    assert isinstance(out, io.StringIO)
    return out.getvalue()


def last_line(text: str) -> str:
    """The line that stays on the terminal, without colours and control sequences."""
    return ESCAPE.sub("", text).split("\r")[-1].strip()


# ------------------------------------------------------------------------------------------------------ the bar


def test_the_bar_ends_with_all_steps_their_speed_and_the_note() -> None:
    line = last_line(run(Terminal(), note="loss 0.5 [green]x[/]"))
    assert re.fullmatch(r"sampling ━+ 100% 4/4 0:00:00 < 0:00:00 [\d.]+[kM]? step/s loss 0\.5 \[green\]x\[/\]", line), (
        line
    )


def test_the_bar_has_the_width_of_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (100, 140):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert len(last_line(run(Terminal()))) == columns
    monkeypatch.setenv("COLUMNS", "60")
    narrow = last_line(run(Terminal(), note="n" * 80))
    assert "━" not in narrow
    assert len(narrow) <= 60


def test_a_total_that_changes_is_the_bar_s_too() -> None:
    out = Terminal()
    with Progress(100, "sampling", out=out) as bar:
        bar.total = 6
        bar.step(6)
    assert "100% 6/6" in last_line(out.getvalue())


def test_a_bar_that_goes_on_counts_its_speed_from_where_it_was() -> None:
    out = Terminal()
    with Progress(1000, "training", start=998, out=out) as bar:
        assert bar.bar is not None
        assert "998/1000" in last_line(out.getvalue())
        bar.bar.tasks[0].start_time -= 10  # ten seconds ago
        bar.bar.get_time = lambda: bar.bar.tasks[0].start_time + 10  # type: ignore[union-attr]
        bar.step(999)
        bar.bar.get_time = lambda: bar.bar.tasks[0].start_time + 20  # type: ignore[union-attr]
        bar.step(1000)
    assert "10 s/step" in last_line(out.getvalue())


def test_colours_are_left_out_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    assert COLOUR.search(run(Terminal()))
    monkeypatch.setenv("NO_COLOR", "1")
    assert not COLOUR.search(run(Terminal()).replace("\x1b[0m", ""))


def test_the_bar_leaves_stdout_and_stderr_to_others(capsys: pytest.CaptureFixture[str]) -> None:
    before = sys.stdout, sys.stderr
    with Progress(2, "sampling", out=Terminal()) as bar:
        bar.step(1)
        assert (sys.stdout, sys.stderr) == before
        print("data")
        print("message", file=sys.stderr)
    assert capsys.readouterr() == ("data\n", "message\n")


def test_the_cursor_is_not_hidden_while_the_bar_is_drawn() -> None:
    out = Terminal()
    with Progress(2, "sampling", out=out) as bar:
        bar.step(1)
        assert out.getvalue().rfind("\x1b[?25h") > out.getvalue().rfind("\x1b[?25l")


def test_a_line_above_the_bar_is_whole_and_is_no_markup() -> None:
    out, text = Terminal(), "a [red]line[/] " + "long " * 40
    with Progress(2, "sampling", out=out) as bar:
        bar.step(1)
        bar.say(text)
    assert text.strip() in ESCAPE.sub("", out.getvalue())


# ---------------------------------------------------------------------------------------------- pipes and silence


@pytest.mark.parametrize("term", ["xterm", "dumb"])
def test_a_pipe_and_a_dumb_terminal_get_plain_lines(term: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", term)
    text = run(io.StringIO() if term == "xterm" else Terminal(), seconds=0, every=2, note="loss 1")
    lines = text.splitlines()
    assert lines[0].startswith("sampling: step 2/4, loss 1, 0.0 s elapsed, ")
    assert lines[0].endswith(" remaining")
    assert lines[1] == "sampling: step 4/4, loss 1, 0.0 s elapsed"
    assert len(lines) == 2
    assert "\x1b" not in text
    assert "\r" not in text


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_log_on_a_full_disk_ends_no_work() -> None:
    """As `unnoise train ... 2> train.log` writes it: the lines are lost, the steps are not."""
    out = open("/dev/full", "w", encoding="utf-8")  # noqa: SIM115  # closing it fails, too
    done = []
    with Progress(4, "training", out=out, seconds=0) as bar:
        for step in range(1, 5):
            bar.step(step)
            bar.say("a line")
            done.append(step)
    assert done == [1, 2, 3, 4]
    with pytest.raises(OSError, match="No space left"):
        out.close()


def test_a_silent_progress_writes_nothing_anywhere() -> None:
    for out in (Terminal(), io.StringIO()):
        with Progress(2, "sampling", silent=True, seconds=0, out=out) as bar:
            bar.step(1)
            bar.say("a line")
            bar.step(2)
        assert out.getvalue() == ""


def test_a_closed_stream_is_no_terminal() -> None:
    out = Terminal()
    out.close()
    out.isatty = lambda: bool(out.getvalue())  # type: ignore[method-assign]  # a real stream raises ValueError
    assert not console.animated(out)


def test_speeds_below_one_step_a_second_are_seconds_a_step() -> None:
    assert [progress.speed(steps, "step") for steps in (None, 0.4, 1.0, 25_300.0)] == [
        "", "2.5 s/step", "1 step/s", "25.3k step/s",
    ]  # fmt: skip


# ----------------------------------------------------------------------------------------------------------- tables


def test_columns_of_numbers_are_aligned_to_the_right() -> None:
    rows = [("a", "1,234.5", "50%"), ("bcd", "", "7%")]
    assert table(rows, head=("name", "value", "part"), indent=" ") == (
        " name    value  part\n ----  -------  ----\n a     1,234.5   50%\n bcd              7%"
    )
    assert table(rows, ragged=True) == "a    1,234.5  50%\nbcd           7%"


def test_a_table_is_not_cut_to_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    cell = "a sentence that is longer than twenty columns " * 9
    assert table([("key", cell)], ragged=True) == f"key  {cell.rstrip()}"


def test_letters_of_two_columns_are_counted_as_two() -> None:
    lines = table([("円い", "a"), ("b", "c"), ("🦩", "d")], ragged=True).splitlines()
    assert {cell_len(line[:-1]) for line in lines} == {6}
    assert table([("円い", "a")], head=("b", "c"), ragged=True).splitlines()[1] == "----  -"


def test_cells_are_shown_as_they_are() -> None:
    assert table([("[red]x[/]", ":smile:"), ("y", "")], ragged=True) == "[red]x[/]  :smile:\ny"


def test_no_rows_are_no_lines() -> None:
    assert table([]) == ""
    assert table([], head=("a", "b")) == "a  b\n-  -"
