"""Reads mutated files of every kind until a time or a number is reached: `python -m tools.fuzz --seconds 600`.

A file may be read, or refused by a UserError. Anything else is printed with the seed of its input, once for each place,
and `--only KIND --input SEED --keep FOLDER` writes that input again. The memory of the process is limited, so that an
input that allocates without end is a MemoryError, and each input has a time of the processor, beyond which it is a
fault; one that waits for ten times as long ends the process, with the stack.
"""

from __future__ import annotations

import argparse
import faulthandler
import itertools
import logging
import resource
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from tests.helpers.fuzzing import TARGETS, faults, originals, write_mutated

MEMORY = 2 * 2**30  # bytes that inputs may allocate besides what the libraries have


class TooSlow(BaseException):
    """An input took longer than its time. No parser takes it for a damaged file."""


def alarm(*_: object) -> None:
    raise TooSlow("the input took longer than its time")


def limit_memory() -> None:
    """Limits the address space of this process to what it has and MEMORY."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


def place(error: BaseException) -> str:
    """The exception and where it left unnoise: one fault is one place."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "unnoise" in frame.filename and "site-packages" not in frame.filename]
    frame = (own or frames)[-1]
    return f"{type(error).__name__} at {frame.filename}:{frame.lineno}: {str(error)[:200]!r}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this time")
    parser.add_argument("--count", type=int, default=10**9, help="stop after this number of inputs")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of all inputs")
    parser.add_argument("--start", type=int, default=0, help="number of the first round, to go on where a run ended")
    parser.add_argument("--each", type=float, default=20.0, help="seconds of the processor for one input")
    parser.add_argument("--only", choices=TARGETS, action="append", help="these kinds alone")
    parser.add_argument("--input", help="write this input into --keep and stop")
    parser.add_argument("--keep", type=Path, help="an empty folder")
    how = parser.parse_args()
    names = how.only or list(TARGETS)
    whole = {name: originals(name) for name in names}
    if how.input is not None:
        how.keep.mkdir(parents=True, exist_ok=True)
        write_mutated(names[0], whole[names[0]], how.input, how.keep)
        return 0

    logging.disable()  # Pillow logs what it finds odd
    warnings.simplefilter("ignore")
    limit_memory()
    signal.signal(signal.SIGPROF, alarm)
    found: dict[str, tuple[str, str]] = {}
    inputs: Counter[str] = Counter()
    end = time.monotonic() + how.seconds
    for number, name in ((number, name) for number in itertools.count(how.start) for name in names):
        if time.monotonic() > end or inputs.total() >= how.count:
            break
        seed = f"{how.seed} {number}"
        faulthandler.dump_traceback_later(10 * how.each, exit=True)
        signal.setitimer(signal.ITIMER_PROF, how.each)
        errors: list[BaseException]
        try:
            errors = [error for _, error in faults(name, [seed], whole[name])]
        except TooSlow as error:
            errors = [error]
        for each in errors:
            if place(each) not in found:
                found[place(each)] = name, seed
                print(f"{name}, --input {seed!r}: {place(each)}", flush=True)
        signal.setitimer(signal.ITIMER_PROF, 0)
        inputs[name] += 1
    faulthandler.cancel_dump_traceback_later()
    last = how.start + max(inputs.values(), default=0)
    print(f"{inputs.total():,} inputs of {len(inputs)} kinds, {len(found)} faults; --seed {how.seed} --start {last}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
