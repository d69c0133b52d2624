"""The rows that a command line asks for."""

from __future__ import annotations

from pathlib import Path

import pytest

from unnoise.cli.requests import prompts_of


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_line_of_a_file_of_prompts_ends_at_a_newline_and_nowhere_else(tmp_path: Path, end: str) -> None:
    prompts = ("a red\u2028square", "a blue\x85disc", "a green\u2029ring")
    (tmp_path / "p.txt").write_bytes(end.join(["", *prompts, " "]).encode())
    assert prompts_of(["first"], tmp_path / "p.txt") == ("first", *prompts)
