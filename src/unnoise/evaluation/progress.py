"""Progress of an evaluation, which its generators yield."""

from __future__ import annotations

from typing import Any, NamedTuple


class Progress(NamedTuple):
    """`done` of `total` in a stage; the report at the very end.

    Stages are "real", "drawing", "measuring", "alignment" (all in pictures, "measuring" in metrics), "bpd" (pairs of a
    picture and a step) and "ode-bpd" (dequantised pictures).
    """

    stage: str
    done: int
    total: int
    report: dict[str, Any] | None = None
