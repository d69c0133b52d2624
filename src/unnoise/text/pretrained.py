"""Frozen text encoders that transformers loads: CLIP's text tower or T5's encoder.

The output for a caption does not change during training, so each caption is encoded once and cached: in memory and, if
a folder is configured, on disk as safetensors, one file for each set of captions. Networks trained with CLIP attend to
the padding too, which follows the end token and depends on the whole text; those trained with T5 do not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from unnoise.conditions import Cond
from unnoise.config.networks import EncoderConfig
from unnoise.errors import UserError
from unnoise.io import checkpoint
from unnoise.io.atomic import publish
from unnoise.text.tokenizer import check_text

BATCH = 64  # captions encoded at once


@dataclass
class Encoder:
    """Captions to text embeddings (B, L, D) float32, with a mask if padding is masked. Loaded on first use."""

    config: EncoderConfig
    embeddings: dict[str, Tensor] = field(default_factory=dict, repr=False)  # of captions that were encoded before
    local: bool = True  # whether only files on this machine are read; False: transformers may download from the hub

    @property
    def width(self) -> int:
        """D, the `context` of a network with this text encoder."""
        return int(self._net.config.hidden_size if self._clip else self._net.config.d_model)

    def encode(self, captions: Sequence[str]) -> Cond:
        """The embeddings and mask of captions, a row each."""
        missing = [check_text(text) for text in dict.fromkeys(captions) if text not in self.embeddings]
        for first in range(0, len(missing), BATCH):
            some = missing[first : first + BATCH]
            self.embeddings |= dict(zip(some, self._encode(some)))
        found = torch.stack([self.embeddings[text] for text in captions])
        return Cond(text=found, mask=self._mask(captions) if self.config.masked else None)

    def truncated(self, caption: str) -> str:
        """The end of a caption that exceeds the length; empty if nothing does."""
        ids = self._tokenizer(check_text(caption), add_special_tokens=True)["input_ids"]
        ends = self._tokenizer.num_special_tokens_to_add()
        if len(ids) <= self.config.length:
            return ""
        count = self.config.length - ends
        if self._tokenizer.is_fast:
            places = self._tokenizer(caption, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
            return caption[places[count][0] :].strip()
        tokens = self._tokenizer(caption, add_special_tokens=False)["input_ids"]
        return str(self._tokenizer.decode(tokens[count:])).strip("\N{REPLACEMENT CHARACTER} ")

    # --- many captions, before a training or an evaluation (generate/captions.py) ---

    def unknown(self, captions: Iterable[str]) -> list[str]:
        """These captions and the empty one, sorted, without those whose embeddings are known. Raises UserError for a
        caption that is no text."""
        return sorted({"", *map(check_text, captions)} - self.embeddings.keys())

    def stored(self, captions: Sequence[str]) -> Tensor | None:
        """The embeddings of exactly these captions in the cache on disk, (N, L, D); None where they are not there."""
        file = self._file(captions) if self.config.cache else None
        if file is None or not file.is_file():
            return None
        try:
            found = checkpoint.read(file)["words"].float()
        except (checkpoint.Damaged, KeyError):
            return None
        return found if len(found) == len(captions) else None

    def store(self, captions: Sequence[str], embeddings: Tensor) -> None:
        """Writes embeddings (N, L, D) to the cache on disk, if one is configured."""
        if self.config.cache:
            publish(self._file(captions), lambda beside: save_file({"words": embeddings}, beside))

    def compute(self, captions: Sequence[str], device: str) -> Tensor:
        """The embeddings of captions (N, L, D), computed on a device. At the end all is on the CPU."""
        net = self._net.to(device)
        parts = [self._encode(captions[first : first + BATCH]) for first in range(0, len(captions), BATCH)]
        net.to("cpu")
        return torch.cat(parts) if parts else torch.zeros(0, self.config.length, self.width)

    # --- transformers ---

    def _encode(self, captions: Sequence[str]) -> Tensor:
        """The output of the configured layer, (B, L, D), after the norm of the last one."""
        tokens = self._tokens(captions).to(self._net.device)
        with torch.no_grad():
            found = self._net(
                input_ids=tokens["input_ids"],
                attention_mask=tokens["attention_mask"] if self.config.masked else None,
                output_hidden_states=True,
            )
            if self.config.layer == -1:
                return found.last_hidden_state.float().clone().cpu()  # type: ignore[no-any-return]
            states = found.hidden_states
            if not -len(states) <= self.config.layer < 0:
                raise UserError(
                    f"encoder.layer is {self.config.layer}, of {len(states) - 1} layers: set it to -1, -2, ..."
                )
            return self._last_norm(states[self.config.layer]).float().clone().cpu()

    def _tokens(self, captions: Sequence[str]) -> Any:
        return self._tokenizer(
            list(captions),
            padding="max_length",
            truncation=True,
            max_length=self.config.length,
            return_tensors="pt",
            return_attention_mask=True,
        )

    def _mask(self, captions: Sequence[str]) -> Tensor:
        found: Tensor = self._tokens(captions)["attention_mask"].bool()
        return found

    @property
    def _clip(self) -> bool:
        return not hasattr(self._net.config, "d_model")

    def _last_norm(self, state: Tensor) -> Tensor:
        net = getattr(self._net, "text_model", self._net)
        norm = net.final_layer_norm if self._clip else self._net.encoder.final_layer_norm
        out: Tensor = norm(state)
        return out

    @cached_property
    def _described(self) -> Any:
        """The configuration that transformers reads."""
        transformers, path = library(), self.config.path
        if not path:
            raise UserError("encoder.path is empty: set it to a folder with a CLIP or T5 text encoder")
        if (os.sep in path or path.startswith(".")) and not Path(path).is_dir() and path.count("/") != 1:
            raise UserError(f"there is no text encoder at {path}: give the folder that transformers loads it from")
        with self._as_user_error():
            return transformers.AutoConfig.from_pretrained(self._place, **self._rules)

    @cached_property
    def _parts(self) -> tuple[Any, Any]:
        transformers, path, config = library(), self.config.path, self._described
        kind = {"clip": "CLIPTextModel", "clip_text_model": "CLIPTextModel", "t5": "T5EncoderModel"}
        name = kind.get(config.model_type)
        if name is None:
            raise UserError(f"{path} is a {config.model_type}: give a text encoder of CLIP or T5")
        with self._as_user_error():
            tower, place, rules = getattr(transformers, name), self._place, self._rules
            net = tower.from_pretrained(place, use_safetensors=True, dtype=torch.float32, **rules)
            return net.eval().requires_grad_(False), transformers.AutoTokenizer.from_pretrained(place, **rules)

    @cached_property
    def _place(self) -> str:
        """The folder of the encoder, or a name on the hub if it is not `local`.

        With a name on the hub the library opens a connection even to read its own cache, so the copy there is looked up
        here. Raises UserError where there is none.
        """
        path = self.config.path
        if not self.local or Path(path).is_dir():
            return path
        from huggingface_hub import try_to_load_from_cache

        with contextlib.suppress(ValueError):
            kept = try_to_load_from_cache(path, "config.json")
            if isinstance(kept, str):
                return str(Path(kept).parent)
        raise UserError(
            f"the text encoder {path} is not on this machine, and none is downloaded because a model's card names it: "
            "fetch it into a folder, and set encoder.path in the card to that folder"
        )

    @property
    def _rules(self) -> dict[str, bool]:
        """No code of a folder is run; without them transformers asks on the terminal."""
        return {"local_files_only": self.local, "trust_remote_code": False}

    @contextmanager
    def _as_user_error(self) -> Iterator[None]:
        """Turns the errors of transformers for an encoder that it cannot load into UserErrors."""
        path = self.config.path
        try:
            yield
        except UserError:
            raise
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, ImportError) as error:
            first = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise UserError(f"the text encoder {path} cannot be loaded: {first}") from None

    @property
    def _net(self) -> Any:
        return self._parts[0]

    @property
    def _tokenizer(self) -> Any:
        return self._parts[1]

    def _file(self, captions: Sequence[str]) -> Path:
        key = json.dumps([repr(asdict(replace(self.config, cache=""))), self._identity(), *captions])
        return Path(self.config.cache) / f"words-{hashlib.sha256(key.encode()).hexdigest()[:32]}.safetensors"

    def _identity(self) -> str:
        """The sizes and times of the encoder's files, or its revision on the hub: they change with the encoder."""
        folder = Path(self.config.path)
        if not folder.is_dir():
            return str(self._described._commit_hash)
        files = sorted(folder.iterdir())
        return repr([(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files if file.is_file()])


def library() -> Any:
    """The `transformers` library. Raises UserError where it is not installed."""
    try:
        import transformers
    except ImportError:
        raise UserError("this encoder needs the transformers library: pip install 'unnoise[text]'") from None
    return transformers
