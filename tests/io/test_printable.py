"""Text of anyone, printed: it cannot steer a terminal, and nothing of it is lost."""

from __future__ import annotations

import json
import unicodedata

import pytest

from unnoise.cli.console import as_json, say, show, table
from unnoise.cli.main import main
from unnoise.cli.progress import Progress
from unnoise.io.printable import HIDDEN, JOINERS, printable, visible

ALL = [chr(i) for i in range(0x110000) if unicodedata.category(chr(i)) in HIDDEN and chr(i) not in JOINERS]
PLAIN = "caf\u00e9 \u732b \u3000 \u2192 \U0001f468\u200d\U0001f469 \u0645\u06cc\u200c\u0631\u0648\u0645"


def test_every_character_that_is_not_seen_is_shown_as_its_escape() -> None:
    assert {"\x1b", "\x9b", "\x07", "\x7f", "\u202e", "\u2028", "\udcff", "\r", "\0", "\ufeff"} <= set(ALL)
    for character in ALL:
        assert printable(character) == character.encode("unicode_escape").decode()
    assert visible(PLAIN) == printable(PLAIN) == PLAIN
    assert (visible("a\n\tb"), printable("a\n\tb")) == ("a\n\tb", "a\\n\\tb")


EVIL = "\x1b[2J\x9b31m\u202e\udcff"


def test_every_exit_of_a_command_escapes(capsys: pytest.CaptureFixture[str]) -> None:
    say(EVIL)
    show(EVIL)
    show(table([["a" + EVIL, "x\ny"]], head=("b", EVIL)))
    with Progress(2, EVIL) as bar:
        bar.say(EVIL)
        bar.step(1, EVIL)
        bar.step(2, EVIL)
    assert main([EVIL]) == 2
    assert main(["info", EVIL]) == 2
    out, err = capsys.readouterr()
    assert not set(out + err) & set(ALL) - {"\n"}
    assert "\\x1b[2J" in out
    assert "\\x1b[2J" in err
    assert "x\\ny" in out  # a cell is one line


def test_json_has_the_same_text_and_no_control_characters() -> None:
    text = as_json({EVIL: [EVIL, 1], "a": float("nan")})
    assert not set(text) & set(ALL) - {"\n"}
    assert json.loads(text) == {EVIL: [EVIL, 1], "a": None}
