"""Detects a fork after torch started its threads.

A forked process has a copy of the memory and none of the threads. Its first parallel operation would wait for them
forever, so it is refused with the reason. `multiprocessing.get_context("spawn")` starts processes that work.
"""

from __future__ import annotations

import os

import torch

from unnoise.errors import UserError

_started_in: list[int] = []  # the process that used torch's threads first; a forked one has a copy of this list


def check_fork() -> None:
    """Notes that this process uses torch's threads. Raises UserError where they were those of its parent."""
    if not _started_in:
        _started_in.append(os.getpid())
    if _started_in[0] != os.getpid() and torch.get_num_threads() > 1:
        raise UserError(
            "this process was forked from one that had loaded a model, and would wait forever for that one's threads: "
            "start it with multiprocessing.get_context('spawn'), or call torch.set_num_threads(1) in it"
        )
