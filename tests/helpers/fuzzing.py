"""Every parser of files that may come from anyone, with a small file that it reads.

A `Target` is a folder of files and a function that reads it. Whatever the bytes are, it returns, or raises UserError.
"""

from __future__ import annotations

import contextlib
import io
import json
import lzma
import random
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tests.helpers.mutations import mutated
from unnoise import data, model, nn
from unnoise.cli.info import as_text
from unnoise.cli.requests import prompts_of
from unnoise.compression import format as compressed
from unnoise.config import files
from unnoise.config.cards import ModelCard, NoisyClassifierCard, ValueRange
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import TextConfig, UNetConfig
from unnoise.config.training import TrainConfig
from unnoise.data.decode import decode
from unnoise.data.source import Unreadable
from unnoise.data.summary import describe as describe_data
from unnoise.errors import UserError
from unnoise.formats import diffusers
from unnoise.formats.clip_tokenizer import ClipTokenizer
from unnoise.generate.describe import describe
from unnoise.guidance import noisy_classifier
from unnoise.io import checkpoint, png
from unnoise.io.images import image
from unnoise.metrics.classifier import Accuracy, ClassifierEvaluator, load_classifier, save_classifier
from unnoise.model import write_model
from unnoise.nn.classifier import Classifier, Shape
from unnoise.nn.noisy_classifier import EncoderClassifier
from unnoise.text.tokenizer import Tokenizer
from unnoise.training import run as runs

NET = UNetConfig(size=8, in_channels=1, out_channels=1, channels=(8,), blocks=1, attention=(False,), groups=4)
WORDS = ["a red circle", "a blue square"]


@dataclass(frozen=True)
class Target:
    """A parser: how its files are written into an empty folder, and what reads them."""

    write: Callable[[Path], None]
    read: Callable[[Path], object]
    untouched: tuple[str, ...] = ()  # suffixes of files that are not mutated


def pictures(count: int = 3) -> list[Image.Image]:
    chosen = np.random.default_rng(0)
    return [Image.fromarray(chosen.integers(0, 256, (8, 8, 3), np.uint8)) for _ in range(count)]


def saved(picture: Image.Image, kind: str = "PNG") -> bytes:
    file = io.BytesIO()
    picture.save(file, kind)
    return file.getvalue()


# --- pictures and data sets ---


def _decoded(kind: str) -> Target:
    def write(folder: Path) -> None:
        (folder / f"a.{kind.lower()}").write_bytes(saved(pictures(1)[0], kind))

    def read(folder: Path) -> None:
        for file in folder.iterdir():
            try:
                decode(file.read_bytes(), DataConfig(size=8, channels=3))
            except Unreadable:
                continue

    return Target(write, read)


def _opened(folder: Path) -> None:
    """A data set in a folder, or in its only file, as `unnoise data` reads it."""
    entries = [path for path in sorted(folder.iterdir()) if "labels" not in path.name]
    path = entries[0] if len(entries) == 1 and entries[0].is_file() else folder
    describe_data(data.open(DataConfig(path=str(path), size=8, channels=3, max_broken=1.0)))


def _folder(folder: Path) -> None:
    rows = [{"file_name": f"{i}.png", "text": WORDS[i % 2], "age": i, "label": i % 2} for i in range(3)]
    (folder / "metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    for i, picture in enumerate(pictures()):
        (folder / f"{i}.png").write_bytes(saved(picture))


def _beside(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        _folder(folder)
        (folder / "metadata.jsonl").unlink()
        (folder / name).write_text(text)

    return write


def _zip(folder: Path) -> None:
    with zipfile.ZipFile(folder / "a.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for i, picture in enumerate(pictures()):
            file.writestr(f"{i}/{i}.png", saved(picture))
        file.writestr("dataset.json", json.dumps({"labels": [[f"{i}/{i}.png", i] for i in range(3)]}))
        file.writestr("metadata.jsonl", json.dumps({"file_name": "0/0.png", "text": "a cat"}))


def _tar(suffix: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as file:
            for i, picture in enumerate(pictures()):
                info = tarfile.TarInfo(f"{i}/{'long' * 40}{i}.png")
                info.size = len(saved(picture))
                file.addfile(info, io.BytesIO(saved(picture)))
        packed = lzma.compress(raw.getvalue()) if suffix == ".tar.xz" else raw.getvalue()
        (folder / f"a{suffix}").write_bytes(packed)

    return write


def _npy(folder: Path) -> None:
    np.save(folder / "a.npy", np.stack([np.asarray(picture) for picture in pictures()]))
    np.save(folder / "a-labels.npy", np.arange(3))


def _npz(folder: Path) -> None:
    pixels = np.stack([np.asarray(picture) for picture in pictures()])
    np.savez(folder / "a.npz", images=pixels, labels=np.arange(3), classes=np.array(["a", "b", "c"]))


def _idx(folder: Path) -> None:
    pixels = np.stack([np.asarray(picture.convert("L")) for picture in pictures()])
    (folder / "a-images-idx3-ubyte").write_bytes(
        b"\0\0\x08\x03" + np.array(pixels.shape, ">i4").tobytes() + pixels.tobytes()
    )
    (folder / "a-labels-idx1-ubyte").write_bytes(b"\0\0\x08\x01" + np.array([3], ">i4").tobytes() + bytes(range(3)))


def _parquet(folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = {"image": [saved(picture) for picture in pictures()], "label": [0, 1, 2], "text": ["a", "b", "c"]}
    pq.write_table(pa.table(rows), folder / "a.parquet")


# --- models, runs and what they consist of ---


def _model(folder: Path) -> None:
    config = UNetConfig(
        **(vars(NET) | {"classes": 2, "values": 1, "attention": (True,), "text": TextConfig(259, 8, 8, 1, 1)})
    )
    ranges = (ValueRange("age", 0.0, 9.0),)
    card = ModelCard(net=config, size=(8, 8), channels=1, classes=("a", "b"), values=ranges, captions=tuple(WORDS))
    tokenizer = Tokenizer.learn(WORDS, vocabulary=259, length=8)
    write_model(folder, nn.build(config).state_dict(), card, tokenizer)


def _read_model(folder: Path) -> None:
    with contextlib.suppress(UserError):
        as_text(describe(folder))
    loaded = model.load(folder, verify=False)
    if loaded.text is not None:
        loaded.text.encode(["a red square"])
    _ = loaded.conditioner, loaded.codec, loaded.picture_shape


def _run(folder: Path) -> None:
    (folder / "config.yaml").write_text(files.dumps(TrainConfig(name="a", net=NET)))
    (folder / "metrics.jsonl").write_text(
        "\n".join(json.dumps({"step": i, "images": i, "loss": 0.5}) for i in range(4))
    )
    (folder / "env.json").write_text(json.dumps([{"cpu": "x", "command": ["a"]}]))
    (folder / "data.json").write_text(json.dumps({"fingerprint": "0" * 64, "count": 3, "classes": {"a": 1}}))
    checkpoint.publish(folder / "checkpoints" / checkpoint.name(3), _model)


def _read_run(folder: Path) -> None:
    as_text(describe(folder))
    runs.metrics(folder)
    model.load(folder)


def _pipeline(folder: Path) -> None:
    diffusers.write(folder, NET, nn.build(NET).state_dict(), DiffusionConfig())


def _classifier(folder: Path) -> None:
    shape = Shape(size=8, channels=1, classes=2, width=8, features=8)
    save_classifier(folder / "c", ClassifierEvaluator(Classifier(shape), ("a", "b"), "c", Accuracy(0.5, 2)))


def _noisy(folder: Path) -> None:
    config = UNetConfig(**(vars(NET) | {"classes": 2}))
    noisy_classifier.write(
        folder, EncoderClassifier(config).state_dict(), NoisyClassifierCard(config, classes=("a", "b"))
    )


def _recipe(folder: Path) -> None:
    recipe = {
        "model": {"path": "runs/00001-a", "weights": "w", "sha256": "ab" * 32}, "seed": 5, "label": "a", "size": [8, 8],
        "request": {"sampler": "ddim", "steps": 20, "guidance": 2.0, "values": {"age": [30.0]}, "controls": ["a.png"]},
        "together": "0-7:a", "versions": {"unnoise": "0.1.0"}, "files": {"a.png": "00"}, "prompts": ["a cat"],
    }  # fmt: skip
    png.write_png(folder / "a.png", image(np.zeros((8, 8), np.uint8)), recipe)


def _described(folder: Path) -> None:
    as_text(describe(next(iter(folder.iterdir()))))


def _weights(folder: Path) -> None:
    checkpoint.save({"a": torch.zeros(2, 3), "b.c": torch.ones(1)}, folder / "a.safetensors")


def _read_weights(folder: Path) -> None:
    with contextlib.suppress(UserError):
        _described(folder)
    checkpoint.read(folder / "a.safetensors")


def _clip(folder: Path) -> None:
    tokens = ["<|startoftext|>", "<|endoftext|>", *"abcdefgh", *(f"{c}</w>" for c in "abcdefgh"), "ab</w>"]
    (folder / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\na b</w>\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))
    (folder / "special_tokens_map.json").write_text(json.dumps({"pad_token": "<|endoftext|>"}))


def _compressed(folder: Path) -> None:
    header = compressed.Header(b"abcd", 5, 16, False, 1, (1, 8, 8), 3)
    (folder / "a.un").write_bytes(compressed.write(header, bytes(range(40))))


def _text(name: str, text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        (folder / name).write_text(text)

    return write


TARGETS: dict[str, Target] = {
    **{f"picture {kind}": _decoded(kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "JPEG2000")},
    "folder": Target(_folder, _opened, untouched=(".png",)),
    "captions txt": Target(_beside("0.txt", "a red circle"), _opened, untouched=(".png",)),
    "captions csv": Target(_beside("metadata.csv", "file_name,text\n0.png,a cat\n1.png,b\n"), _opened, (".png",)),
    "dataset.json": Target(_beside("dataset.json", '{"labels": [["0.png", 1], ["1.png", 0]]}'), _opened, (".png",)),
    "zip": Target(_zip, _opened),
    "tar": Target(_tar(".tar"), _opened),
    "tar.xz": Target(_tar(".tar.xz"), _opened),
    "npy": Target(_npy, _opened),
    "npz": Target(_npz, _opened),
    "idx": Target(_idx, _opened),
    "parquet": Target(_parquet, _opened),
    "settings": Target(
        _text("a.yaml", files.dumps(TrainConfig(net=NET))), lambda at: files.load(at / "a.yaml", TrainConfig)
    ),
    "prompts": Target(_text("a.txt", "a cat\na dog\n"), lambda at: prompts_of([], at / "a.txt")),
    "model": Target(_model, _read_model),
    "run": Target(_run, _read_run, untouched=(".safetensors",)),
    "pipeline": Target(_pipeline, lambda folder: (describe(folder), model.load(folder))),
    "classifier": Target(_classifier, lambda folder: load_classifier(folder / "c")),
    "noisy classifier": Target(_noisy, noisy_classifier.load),
    "recipe": Target(_recipe, _described),
    "weights": Target(_weights, _read_weights),
    "clip tokenizer": Target(_clip, lambda folder: ClipTokenizer.load(folder, 8).encode(["ab", "a"])),
    "compressed": Target(_compressed, lambda folder: compressed.read((folder / "a.un").read_bytes(), "a.un")),
}


def originals(name: str) -> dict[str, bytes]:
    """The files of a target by their path in its folder; it reads them without an error."""
    with tempfile.TemporaryDirectory() as top:
        TARGETS[name].write(Path(top))
        TARGETS[name].read(Path(top))
        paths = sorted(path for path in Path(top).rglob("*") if path.is_file())
        return {path.relative_to(top).as_posix(): path.read_bytes() for path in paths}


def write_mutated(name: str, whole: dict[str, bytes], seed: str, folder: Path) -> None:
    """Fills an empty folder with the files of a target, one of which is mutated as the seed says."""
    chosen = random.Random(f"{name} {seed}")
    file = chosen.choice([path for path in whole if not path.endswith(TARGETS[name].untouched or ("\0",))])
    for path, content in whole.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(mutated(content, chosen, path) if path == file else content)


def faults(
    name: str, seeds: Iterator[str] | list[str], whole: dict[str, bytes] | None = None
) -> Iterator[tuple[str, BaseException]]:
    """Each seed whose input makes a target raise anything but UserError, with that exception."""
    whole = originals(name) if whole is None else whole
    for seed in seeds:
        folder = Path(tempfile.mkdtemp(prefix="unnoise-fuzz-"))
        try:
            write_mutated(name, whole, seed, folder)
            TARGETS[name].read(folder)
        except UserError:
            pass
        except Exception as error:
            yield seed, error
        finally:
            shutil.rmtree(folder, ignore_errors=True)
