"""Captions of a frozen text encoder, encoded before a training or an evaluation: each once, on the device.

Several processes divide them: each encodes a part, and all receive the embeddings of all.
"""

from __future__ import annotations

from collections.abc import Iterable

from unnoise.text.pretrained import Encoder
from unnoise.text.tokenizer import PromptEncoder
from unnoise.training.distributed import ALONE, Processes


def encode_captions(
    encoder: PromptEncoder | None, captions: Iterable[str], *, device: str = "cpu", processes: Processes = ALONE
) -> None:
    """Encodes these captions and the empty one on `device`, or reads their embeddings from the encoder's cache on disk.

    The embeddings are kept on the CPU, and the encoder's network returns to it. Called by all processes together, with
    the same captions; an encoder of another kind, which is part of its model, is left alone. Raises UserError for a
    caption that is no text, and for an encoder that cannot be loaded.
    """
    if not isinstance(encoder, Encoder) or not (wanted := encoder.unknown(captions)):
        return
    found = encoder.stored(wanted)
    if processes.any(found is None):  # the others may not have the file
        found = processes.gather(encoder.compute(processes.split(wanted), device))
        if processes.first:
            encoder.store(wanted, found)
    assert found is not None, "read from the cache, or computed"
    encoder.embeddings |= dict(zip(wanted, found))
