"""`unnoise completion`: print a shell's completion script."""

from __future__ import annotations

from typing import Annotated, Literal

from unnoise.cli.console import show
from unnoise.cli.options import option

Shell = Literal["bash", "zsh", "fish", "powershell"]


def completion(
    shell: Annotated[Shell, option("The shell to print the script for.")] = "bash",
) -> None:
    """Print a script that lets a shell complete unnoise's commands and options.

    For bash, run: unnoise completion bash >> ~/.bashrc. For zsh and fish, write it to a file of their completions
    folder.
    """
    from unnoise.cli.main import app

    show(app.generate_completion(shell=shell))
