"""The error for a step that needs more memory than its device has: what a step's memory depends on, and one fix."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from unnoise.errors import UserError, is_out_of_memory
from unnoise.training.player import Player
from unnoise.training.train_state import TrainState


@contextmanager
def memory_errors(player: Player, state: TrainState, world: int) -> Iterator[None]:
    """Turns torch's and Python's errors for memory that cannot be allocated in a step into a UserError.

    `world` is the number of processes. The message names the settings that the memory of a step depends on, with their
    values, and first the change that costs the least.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        fit = player.fit
        precision = str(state.dtype).removeprefix("torch.") if fit.precision == "auto" else fit.precision
        used = [f"fit.batch={fit.batch}", f"fit.accumulate={fit.accumulate}"]
        if hasattr(player.net, "checkpointing"):
            used.append(f"fit.gradient_checkpointing={str(fit.gradient_checkpointing).lower()}")
        rows = fit.batch // (world * fit.accumulate)
        fix = _fix(player, precision, world)
        raise UserError(
            f"step {state.step + 1} needs more memory than is free on {state.device}: {fix}. It computed "
            f"{rows} pictures at once, with {', '.join(used)} and fit.precision={precision}"
        ) from error


def _fix(player: Player, precision: str, world: int) -> str:
    """The change that needs less memory and costs the least: in time, then in precision, then in what is learned."""
    fit = player.fit
    parts = [k for k in range(fit.accumulate + 1, fit.batch + 1) if fit.batch % (world * k) == 0]
    if player.compares_rows:
        return f"set fit.batch={max(fit.batch // 2, 2)}"
    if parts:
        return f"set fit.accumulate={parts[0]}, which computes a batch in more parts with the same result"
    if hasattr(player.net, "checkpointing") and not fit.gradient_checkpointing:
        return "set fit.gradient_checkpointing=true, which computes activations again instead of keeping them"
    if hasattr(player.net, "checkpointing") and precision != "bfloat16":
        return "set fit.precision=bfloat16"
    return "choose a smaller network"
