"""Kills a training that saves at every step, at fifty random instants: `python -m tools.kill_loop [KILLS]`."""

from __future__ import annotations

import random
import sys
import tempfile
from pathlib import Path

from tests.training.test_trainer import kill_and_verify

if __name__ == "__main__":
    kills = int(sys.argv[1]) if len(sys.argv) > 1 else 50
    with tempfile.TemporaryDirectory() as folder:
        steps = kill_and_verify(Path(folder), kills, random.Random())
    print(f"{kills} kills, {steps} steps: every newest checkpoint was complete")
