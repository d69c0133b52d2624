"""Conditioning on numbers: from a file to the network, dropped in training, and from a request to a picture."""

from __future__ import annotations

import importlib
import json
import shlex
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unnoise import data, model
from unnoise.cli.main import main
from unnoise.cli.measuring import data_for
from unnoise.cli.train_settings import settings_from_options
from unnoise.conditions import Cond
from unnoise.config.cards import ValueRange
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.evaluation import EvaluateConfig
from unnoise.config.files import dumps
from unnoise.config.networks import DiTConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.config.training import Fit, LogConfig, TrainConfig
from unnoise.config.validate import check
from unnoise.data.registry import find
from unnoise.data.source import numbers
from unnoise.data.summary import describe as describe_data
from unnoise.errors import UserError
from unnoise.evaluation import sweep, tables, variants
from unnoise.evaluation.conditions import random_subset
from unnoise.evaluation.details import details
from unnoise.evaluation.evaluate import evaluate
from unnoise.generate.conditions import null_condition, text_and_labels
from unnoise.generate.job import Job
from unnoise.metrics.classifier import Accuracy, ClassifierEvaluator, save_classifier
from unnoise.nn.classifier import Classifier, Shape
from unnoise.recipes.conditioning import batch_condition as told_of
from unnoise.recipes.conditioning import drop_conditions
from unnoise.recipes.cost import cost
from unnoise.recipes.diffusion import train
from unnoise.recipes.model_card import describe
from unnoise.text.conditioner import Conditioner
from unnoise.training.distributed import Processes
from unnoise.training.player import SampleRNG

LINES = [
    {"file_name": "a.png", "age": 30, "score": 0.5, "name": "x"},
    {"file_name": "b.png", "age": 4.5, "smiles": True},
    {"file_name": "c.png", "age": None, "score": "much", "smiles": False},
]
DATA = DataConfig(size=4, channels=1, values=("score", "age"))
AGES, SCORES = [30, 4.5, np.nan, np.nan], [0.5, np.nan, np.nan, np.nan]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures, three of them with numbers; as a folder, an archive, and a table in two row groups."""
    base = tmp_path_factory.mktemp("told")
    (base / "folder").mkdir()
    for i, name in enumerate("abcd"):
        Image.new("L", (4, 4), 10 * i).save(base / "folder" / f"{name}.png")
    (base / "folder" / "metadata.jsonl").write_text("\n".join(map(json.dumps, LINES)))
    with zipfile.ZipFile(base / "archive.zip", "w") as archive:
        for file in (base / "folder").iterdir():
            archive.write(file, file.name)
    return base


@pytest.mark.parametrize("kind", ["folder", "archive.zip"])
def test_a_folder_has_numbers(kind: str, told: Path) -> None:
    source = find(str(told / kind))
    assert set(source.values) == {"age", "score", "smiles"}  # not the words, not the file names
    assert np.array_equal(source.values["age"], AGES, equal_nan=True)
    assert np.array_equal(source.values["score"], SCORES, equal_nan=True)
    assert np.array_equal(source.values["smiles"], [np.nan, 1, 0, np.nan], equal_nan=True)
    assert any("score is no number for 1 of 4 pictures" in note for note in source.notes)
    assert np.array_equal(
        source.only(np.array([False, True, False, True])).values["age"], [4.5, np.nan], equal_nan=True
    )


def test_a_table_has_numbers(told: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    pictures = [(told / "folder" / f"{name}.png").read_bytes() for name in "abcd"]
    columns = {
        "image": pictures,
        "age": [30, 4, None, 7],
        "score": [0.5, float("nan"), float("inf"), -1.0],
        "text": ["1", "2", "3", "4"],
        "split": ["train", "test", "test", "test"],
    }
    parquet.write_table(pa.table(columns), told / "table.parquet", row_group_size=2)
    source = find(f"{told / 'table.parquet'}:test")
    assert set(source.values) == {"age", "score"}
    assert np.array_equal(source.values["age"], [4, np.nan, 7], equal_nan=True)
    assert np.array_equal(source.values["score"], [np.nan, np.nan, -1], equal_nan=True)


def test_what_is_no_finite_number_is_missing() -> None:
    found, notes = numbers({"a": [1, 10**400, float("inf"), None, "2"], "b": ["x", None, [1], {}, ()]}, "here")
    assert np.array_equal(found["a"], [1, np.nan, np.nan, np.nan, np.nan], equal_nan=True)
    assert set(found) == {"a"}
    assert notes == ["a is no number for 3 of 5 pictures in here: treated as missing"]


def test_a_batch_has_the_numbers_asked_for_in_their_order(told: Path) -> None:
    pictures = data.open(replace(DATA, path=str(told / "folder")))
    expected = np.stack([SCORES, AGES], axis=1)
    assert np.array_equal(pictures.values(), expected, equal_nan=True)
    batch = pictures.batch([2, 0, 1])
    assert np.array_equal(batch.value, expected[[2, 0, 1]], equal_nan=True)
    plain = data.open(replace(DATA, path=str(told / "folder"), values=()))
    assert plain.batch([0]).value is None
    assert describe_data(pictures)["numbers"]["age"] == {"count": 2, "min": 4.5, "max": 30.0}


def test_numbers_are_of_the_pictures_that_can_be_read(told: Path, tmp_path: Path) -> None:
    for file in (told / "folder").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "a.png").write_bytes(b"spoilt")
    pictures = data.open(replace(DATA, path=str(tmp_path), max_broken=1.0))
    assert np.array_equal(pictures.values()[:, 1], AGES[1:], equal_nan=True)


def test_other_numbers_are_other_data(told: Path, tmp_path: Path) -> None:
    folder = str(told / "folder")
    plain, age, score = (data.open(replace(DATA, path=folder, values=v)) for v in ((), ("age",), ("score",)))
    assert len({plain.fingerprint, age.fingerprint, score.fingerprint}) == 3
    for file in (told / "folder").iterdir():
        text = file.read_bytes()
        (tmp_path / file.name).write_bytes(text.replace(b"30", b"31") if file.suffix == ".jsonl" else text)
    assert data.open(replace(DATA, path=str(tmp_path), values=("age",))).fingerprint != age.fingerprint
    assert data.open(replace(DATA, path=str(tmp_path), values=())).fingerprint == plain.fingerprint


def test_names_that_do_not_exist_are_reported(told: Path) -> None:
    with pytest.raises(UserError, match=r"no number of the pictures in .* 'aeg'; did you mean 'age'"):
        data.open(replace(DATA, path=str(told / "folder"), values=("aeg",)))
    with pytest.raises(UserError, match=r"the pictures in .* have no numbers, so no .*: add them to its metadata"):
        data.open(replace(DATA, path="toy", size=8))
    with pytest.raises(UserError, match="names a number twice"):
        data.open(replace(DATA, path=str(told / "folder"), values=("age", "age")))


# --- the network's input ---

READER = Conditioner(("a", "b"), 2, None, (ValueRange("age", 20, 70), ValueRange("score", -1, 1)))


def test_a_number_is_scaled_to_0_to_1000_between_its_lowest_and_highest() -> None:
    cond = READER.encode(["a", "b", "none"], values={"score": [-1, 1, 0.5], "age": [20, 45, 120]})
    assert cond.value is not None
    assert cond.value.dtype == torch.float32
    assert cond.value.tolist() == [[0, 0], [500, 1000], [2000, 750]]  # columns in the model's order
    raw = torch.tensor([[45.0, -1.0], [20.0, torch.nan]], dtype=torch.float64)
    same = READER.from_labels(torch.tensor([0, 1]), None, raw).value
    assert same is not None
    assert same[0].tolist() == [500, 0]
    assert same[1].isnan().tolist() == [False, True]
    late = Conditioner(values=(ValueRange("time", 1.7e9, 1.7e9 + 1000),))
    assert late.encode(values={"time": [1.7e9 + 3]}).value.tolist() == [[3]]  # not rounded to float32 before


def test_a_number_that_is_not_given_is_missing() -> None:
    for cond in (
        READER.encode(["a", "b"]),
        READER.null(2),
        READER.random_class([1, 2]),
        READER.from_labels(torch.ones(2), None),
    ):
        assert cond.value is not None
        assert cond.value.shape == (2, 2)
        assert cond.value.isnan().all()
    half = READER.encode(["a"], values={"age": [20]}).value
    assert half is not None
    assert half.isnan().tolist() == [[False, True]]
    assert Conditioner().encode(["none"]).value is None


def test_one_number_is_for_all_pictures_or_one_for_each() -> None:
    values = text_and_labels(READER, Request.of(seeds=(1, 2), values={"age": (45.0,), "score": (-1.0, 1.0)})).value
    assert values is not None
    assert values.tolist() == [[500, 0], [500, 1000]]
    with pytest.raises(UserError, match="2 ages for 3 seeds"):
        text_and_labels(READER, Request.of(seeds=(1, 2, 3), values={"age": (1.0, 2.0)}))
    null = null_condition(READER, Request(), text_and_labels(READER, Request.of(seeds=(1,), values={"age": (45.0,)})))
    assert null.value is not None
    assert null.value.isnan().all()


def test_names_that_a_model_does_not_know() -> None:
    with pytest.raises(UserError, match="no value 'aeg'; did you mean 'age'"):
        READER.encode(["a"], values={"aeg": [1]})
    with pytest.raises(UserError, match="is not conditioned on values: leave 'age' out"):
        Conditioner().encode(values={"age": [1]})
    with pytest.raises(UserError, match="has to be a finite number"):
        READER.encode(values={"age": [float("nan")]})
    strict = replace(READER, null_value=False)
    with pytest.raises(UserError, match="was not trained without score"):
        strict.encode(values={"age": [30]})
    with pytest.raises(ValueError, match="2 labels and 3 age: give as many of each"):
        READER.encode(["a", "b"], values={"age": [1, 2, 3]})


def test_numbers_out_of_range_are_reported() -> None:
    assert READER.out_of_range({"age": (20.0, 70.0), "score": (0.0,)}) == []
    assert READER.out_of_range({"age": (19.0, 30.0, 71.0)}) == [
        "age 19 is outside the range of the training, 20 to 70",
        "age 71 is outside the range of the training, 20 to 70",
    ]


# --- what is dropped ---


def test_numbers_are_dropped_with_the_rest_and_each_by_itself() -> None:
    """Rates within four standard errors; what is not dropped stays."""
    n = 10_000
    rows = SampleRNG(0, tuple(range(n)), n)
    whole = Cond(label=torch.arange(n) % 2, value=torch.rand(n, 2))

    def gone(process: DiffusionConfig) -> list[torch.Tensor]:
        found = drop_conditions(whole, rows, process, READER)
        lost = found.value.isnan()
        assert torch.equal(found.value[~lost], whole.value[~lost])
        return [found.label == 2, lost[:, 0], lost[:, 1]]

    def near(share: torch.Tensor, p: float) -> bool:
        return abs(share.double().mean() - p) < 4 * (p * (1 - p) / n) ** 0.5

    label, age, score = gone(DiffusionConfig(cond_dropout=0.1))
    assert torch.equal(label, age)
    assert torch.equal(age, score)
    assert near(age, 0.1)
    lost = gone(DiffusionConfig(cond_dropout=0.0, cond_dropout_each=0.2))
    assert all(near(each, 0.2) for each in lost)
    assert all(near(lost[i] & lost[j], 0.04) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert all(not each.any() for each in gone(DiffusionConfig(cond_dropout=0.0)))
    assert not whole.value.isnan().any()


# --- a training ---

TINY = TrainConfig(
    name="lights",
    data=DataConfig(size=4, channels=1, values=("light",)),
    net=UNetConfig(
        size=4,
        in_channels=1,
        out_channels=1,
        channels=(16,),
        blocks=1,
        attention=(False,),
        middle_attention=False,
        groups=4,
        values=1,
    ),
    process=DiffusionConfig(schedule="cosine", predicts="v", weight="snr-plus-one"),
    fit=Fit(images=200 * 16, batch=16, lr=5e-3, warmup=2, ema=(64,), precision="float32"),
    log=LogConfig(log_every=50, grid_every=0),
)


@pytest.fixture(scope="module")
def lights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """32 grey pictures, each of one brightness, from 0 black to 31 white, which is missing for four."""
    folder = tmp_path_factory.mktemp("lights")
    lines = []
    for i in range(32):
        Image.new("L", (4, 4), round(255 * i / 31)).save(folder / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{i}.png", **({"light": i} if i % 10 else {"light": None})}))
    (folder / "metadata.jsonl").write_text("\n".join([*lines, '{"file_name": "31.png", "light": 31, "same": 1}']))
    return folder


@pytest.fixture(scope="module")
def trained(lights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("trained") / "run"
    list(train(replace(TINY, data=replace(TINY.data, path=str(lights))), path))
    return path


def test_it_learns_what_the_number_means(trained: Path) -> None:
    """From pure noise the estimate is the given brightness, or the mean of all if none is given."""
    loaded = model.load(trained)
    assert loaded.card.values == (ValueRange("light", 1.0, 31.0),)
    lights = [4.0, 10.0, 16.0, 22.0, 28.0]
    told = loaded.conditioner.encode(values={"light": lights})
    x, t = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0)), torch.tensor(0.99, dtype=torch.float64)
    means = loaded.diffusion(x, t, told).mean.mean((1, 2, 3))
    truth = torch.tensor(lights) * 2 / 31 - 1
    assert (means.diff() > 0.1).all(), means
    assert (means - truth).abs().max() < 0.25, means
    free = loaded.diffusion(x, t, loaded.conditioner.null(5)).mean.mean((1, 2, 3))
    assert free.abs().max() < 0.5, free
    dark, bright = loaded.sample(values={"light": [4, 28]}, seeds=(0, 0), steps=5).pixels.float().mean((1, 2, 3))
    assert bright - dark > 80
    one = loaded.sample(values={"light": 28}, seeds=(0,), steps=5).pixels.float().mean()
    assert abs(one - bright) <= 1


def test_the_command_line_conditions_on_numbers_and_reproduces_the_picture(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["sample", str(trained), "--seeds", "1,2", "--steps", "3", "--guidance", "1.5", "--value", "light=28.5"]
    assert main([*words, "--out", str(tmp_path / "a")]) == 0
    assert "note: light" not in capsys.readouterr().err
    picture = tmp_path / "a" / "seed-000001.png"
    assert main(["info", str(picture), "--command"]) == 0
    command = shlex.split(capsys.readouterr().out)
    assert command[command.index("--value") + 1] == "light=28.5"
    assert main([*command[1:], "--out", str(tmp_path / "b")]) == 0
    assert Image.open(tmp_path / "b" / picture.name).tobytes() == Image.open(picture).tobytes()
    assert main([*words[:-1], "light=3", "--out", str(tmp_path / "c")]) == 0
    assert Image.open(tmp_path / "c" / picture.name).tobytes() != Image.open(picture).tobytes()
    capsys.readouterr()
    assert main([*words[:-1], "light=40", "--out", str(tmp_path / "d")]) == 0
    assert "note: light 40 is outside the range of the training, 1 to 31" in capsys.readouterr().err
    for wrong, why in (("lihgt=3", "did you mean 'light'"), ("light", "NAME=NUMBER"), ("light=nan", "NAME=NUMBER")):
        assert main([*words[:-1], wrong, "--out", str(tmp_path / "e")]) != 0
        assert why in capsys.readouterr().err
    assert main([*words, "--value", "light=3", "--out", str(tmp_path / "e")]) != 0
    assert "each name once" in capsys.readouterr().err
    assert main(["info", str(trained)]) == 0
    assert "1 to 31 in training" in capsys.readouterr().out


def test_a_network_has_as_many_columns_as_numbers_are_named(lights: Path, tmp_path: Path) -> None:
    here = replace(TINY, data=replace(TINY.data, path=str(lights)))
    with pytest.raises(UserError, match=r"net.values 0 should be 1, the number of data.values \(light\)"):
        check(replace(here, net=replace(TINY.net, values=0)))
    with pytest.raises(UserError, match=r"net.values 1 should be 0"):
        check(replace(here, data=replace(here.data, values=())))
    with pytest.raises(UserError, match=r"set net.kind=unet"):
        check(replace(here, net=DiTConfig(size=4, in_channels=1, out_channels=1)))
    with pytest.raises(UserError, match=r"cond_dropout needs net.null_value"):
        check(replace(here, net=replace(TINY.net, null_value=False)))
    (tmp_path / "my.yaml").write_text(
        dumps(replace(here, net=replace(TINY.net, values=0))).replace("  values: 0\n", "")
    )
    settings = settings_from_options(str(tmp_path / "my.yaml"))
    assert settings.config.net.values == 1
    assert settings.origins["net.values"] == "as many as data.values"
    assert cost(settings.config, timed=1).parameters > 0


def test_numbers_of_which_nothing_can_be_learned(lights: Path) -> None:
    here = replace(TINY, data=replace(TINY.data, path=str(lights), values=("same",)))
    with pytest.raises(UserError, match="same is 1 in every picture that has it"):
        describe(here, data.open(here.data))
    strict = replace(TINY, data=replace(TINY.data, path=str(lights)), net=replace(TINY.net, null_value=False))
    with pytest.raises(UserError, match="light is given for 28 of 32 pictures"):
        describe(strict, data.open(strict.data))


def test_a_training_goes_on_from_its_base_with_the_bases_range(lights: Path, trained: Path, tmp_path: Path) -> None:
    few = tmp_path / "few"
    few.mkdir()
    for i in (11, 12, 13):
        (few / f"{i}.png").write_bytes((lights / f"{i}.png").read_bytes())
    (few / "metadata.jsonl").write_text(
        "\n".join(json.dumps({"file_name": f"{i}.png", "light": i}) for i in (11, 12, 13))
    )
    further = replace(TINY, data=replace(TINY.data, path=str(few)), base=str(trained))
    base = model.load(trained)
    assert describe(further, data.open(further.data), base).values == (ValueRange("light", 1.0, 31.0),)
    batch = data.open(further.data).batch([0, 2])
    assert told_of(batch, base.conditioner, further).value.tolist() == [[pytest.approx(1e4 / 30)], [pytest.approx(400)]]
    other = replace(base, card=replace(base.card, values=(ValueRange("age"),)))
    with pytest.raises(UserError, match=r"data.values light should be the base's, in its order: age"):
        describe(further, data.open(further.data), other)


# --- an evaluation ---


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> str:
    net = Classifier(Shape(4, 1, 2, 8, 16)).eval().requires_grad_(False)
    folder = tmp_path_factory.mktemp("judge") / "judge"
    save_classifier(
        folder, ClassifierEvaluator(net, ("a", "b"), "lights", Accuracy(0.9, 200, "lights", {"a": 1.0, "b": 1.0}))
    )
    return str(folder)


def report(loaded: model.Model, real: data.Dataset, how: Request, **asked: object) -> dict[str, Any]:
    found = list(evaluate(loaded, EvaluateConfig(**asked), how, real, cache=None))[-1].report
    assert found is not None
    return found


def test_a_table_of_guidance_conditions_on_numbers(lights: Path, trained: Path, judge: str) -> None:
    """With guidance pictures have the given brightness; without a number they do not."""
    loaded = model.load(trained)
    real = data.open(data_for(loaded, str(lights)))
    ask = EvaluateConfig(count=40, features=judge, real=40)
    ask = replace(ask, metrics=tables.guidance_metrics(loaded, ask, Request(), real))
    assert ask.metrics == ("frechet", "precision", "recall")
    ways = variants.guidance_variants(
        Request.of(precision="float32"), variants.Axes(steps=(4,), guidance=(0.0, 1.0, 1.5))
    )
    results = [at for at in sweep.compare(loaded, ask, ways, real, cache=None, show=40) if isinstance(at, sweep.Result)]
    said = torch.from_numpy(real.values()[random_subset(40, real)])[:, 0]
    told = ~said.isnan()
    follow = [
        torch.corrcoef(torch.stack([said[told], each.pictures.double().mean((1, 2, 3))[told]]))[0, 1]
        for each in results
    ]
    assert follow[0] < 0.6
    assert min(follow[1:]) > 0.9
    with pytest.raises(UserError, match="toy has no light, so there is nothing to guide to"):
        tables.guidance_metrics(loaded, ask, Request(), data.open(DataConfig(path="toy", size=4, channels=1)))


@pytest.mark.parametrize("guidance", [1.0, 3.0])
def test_an_evaluation_conditions_each_picture_on_the_numbers_of_a_real_one(
    guidance: float, lights: Path, trained: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded, found = model.load(trained), []
    real = data.open(data_for(loaded, str(lights)))
    rows = [data.order(0, 0, len(real)).tolist()[i % 32] for i in range(40)]
    whole = Job.denoiser
    monkeypatch.setattr(Job, "denoiser", lambda job, rows: found.append(job.cond.value[rows]) or whole(job, rows))
    how = Request.of(steps=2, batch=16, guidance=guidance)
    about = report(loaded, real, how, metrics=("kernel",), count=40, features=judge)
    truth = loaded.conditioner.scale_values(torch.from_numpy(real.values()[rows]))
    assert torch.allclose(torch.cat(found), truth, rtol=0, atol=0, equal_nan=True)
    assert truth.isnan().any()
    assert about["warnings"] == []


def test_processes_share_the_numbers_with_the_pictures(
    lights: Path, trained: Path, judge: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The conditions of several processes, joined, are those of one process; one may have no rows."""
    loaded, found = model.load(trained), []
    whole = Job.denoiser
    monkeypatch.setattr(Job, "denoiser", lambda job, rows: found.append(job.cond.value[rows]) or whole(job, rows))
    module = importlib.import_module("unnoise.evaluation.evaluate")
    monkeypatch.setattr(module, "measure", lambda drawn, *rest, **named: filter(None, [list(drawn).clear()]))
    ask = EvaluateConfig(metrics=("kernel",), count=40, features=judge)
    real, parts = data.open(data_for(loaded, str(lights))), []
    for world in (1, 3, 41):
        found.clear()
        for rank in range(world):
            list(evaluate(loaded, ask, Request.of(steps=1), real, cache=None, processes=Processes(rank, world)))
        assert len(found) == min(world, 40)
        parts.append(torch.cat(found))
    for part in parts[1:]:
        assert torch.allclose(parts[0], part, rtol=0, atol=0, equal_nan=True)


def test_bits_are_those_of_pictures_with_their_numbers(lights: Path, trained: Path) -> None:
    """Conditioned on its brightness, a picture of one brightness costs less, also with a label."""
    loaded = model.load(trained)
    real = data.open(data_for(loaded, str(lights)))
    bits = {"metrics": ("bpd",), "bits_count": 32, "bits_steps": 10}
    told = report(loaded, real, Request(), **bits)
    untold = report(loaded, data.open(replace(real.config, values=())), Request(), **bits)
    (one,), (other,) = told["metrics"], untold["metrics"]
    assert one["value"] < other["value"] - 0.1
    assert one["numbers"]
    assert not other["numbers"]
    assert "conditioned on their values" in details(one)
    assert f"the model was not conditioned on light: {lights} does not have it" in untold["warnings"]
    (named,) = report(loaded, real, Request.of(labels=("none",)), **bits)["metrics"]
    assert named["value"] == one["value"]


def test_classes_and_numbers_are_those_of_the_same_picture(tmp_path: Path, judge: str) -> None:
    """Of pictures whose class follows from their number, no sampled one has another class than its number's."""
    lines = []
    for i in range(24):
        name = "ab"[i % 2]
        (tmp_path / "set" / name).mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), 10 * i).save(tmp_path / "set" / name / f"{i}.png")
        lines.append(json.dumps({"file_name": f"{name}/{i}.png", "light": i}))
    (tmp_path / "set" / "metadata.jsonl").write_text("\n".join(lines))
    config = replace(TINY, data=replace(TINY.data, path=str(tmp_path / "set")), fit=replace(TINY.fit, images=32))
    config = replace(config, net=replace(TINY.net, classes=2, null_value=False))  # which needs a number
    list(train(replace(config, process=replace(TINY.process, cond_dropout=0.0)), tmp_path / "run"))
    loaded, seen = model.load(tmp_path / "run"), []
    real = data.open(data_for(loaded, str(tmp_path / "set")))

    whole = Job.denoiser
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "denoiser", lambda job, rows: seen.append(job.cond[rows]) or whole(job, rows))
        report(loaded, real, Request.of(steps=1, batch=30), metrics=("kernel",), count=30, features=judge)
    light = (seen[0].value[:, 0] / 1000 * 23).round().int()
    assert len(light) == 30
    assert torch.equal(seen[0].label, light % 2)


def test_a_model_trained_with_every_number_needs_it_or_is_refused(lights: Path, trained: Path) -> None:
    loaded = model.load(trained)
    strict = replace(loaded, card=replace(loaded.card, net=replace(loaded.card.net, null_value=False)))
    plain = data.open(replace(TINY.data, path=str(lights), values=()))
    with pytest.raises(UserError, match=r"requires light for every picture, and .* does not have it: give --data"):
        next(evaluate(strict, EvaluateConfig(metrics=("bpd",)), Request(), plain, cache=None))
    real = data.open(replace(TINY.data, path=str(lights)))
    with pytest.raises(UserError, match=r"requires light for every picture, and .* has it for 28 of 32 pictures"):
        next(evaluate(strict, EvaluateConfig(metrics=("bpd",)), Request(), real, cache=None))
    with pytest.raises(UserError, match="not trained without light, so it has no null condition for guidance: use gui"):
        strict.sample(values={"light": 3}, guidance=2, steps=1)
