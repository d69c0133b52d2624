"""Training from the command line: what is asked is what is trained, where each value comes from is said, and every
ending has its code. The training itself is held to its laws in test_training*.py."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unnoise
from tests.evaluation.test_evaluate import toy_model
from tests.helpers.tiny_training import pretended_cards
from unnoise.cli import demo as demos
from unnoise.cli import demo_pictures, demo_report
from unnoise.cli.console import UsageError
from unnoise.cli.main import main
from unnoise.cli.train_report import how_far
from unnoise.cli.train_settings import settings_from_options
from unnoise.config import convert, files
from unnoise.config.autoencoders import KLConfig
from unnoise.config.cards import AutoencoderCard, LatentsConfig
from unnoise.config.presets import ALL, PRESETS
from unnoise.config.training import ClassifierConfig, TrainConfig
from unnoise.formats.autoencoders import AutoencoderModel
from unnoise.io import checkpoint
from unnoise.io.units import human
from unnoise.nn import build_autoencoder
from unnoise.recipes.settings import with_classes

TINY = [
    *("--set", "fit.images=24"),
    *("--set", "fit.batch=8"),
    *("--set", "net.channels=8,8"),
    *("--set", "net.attention=false,false"),
    *("--set", "log.grid_every=0"),
    *("--set", "log.log_every=1"),
]


# ------------------------------------------------------------------------------------------------ what is asked


def test_a_file_beats_a_default_and_a_flag_beats_a_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("name: mine\nfit:\n  lr: 1e-3\n  batch: 32\n")
    settings = settings_from_options(str(file), data="toy", sets=["lr=5e-4"], device="cpu", name=None)
    assert isinstance(settings.config, TrainConfig)
    assert (settings.config.fit.lr, settings.config.fit.batch, settings.config.data.path) == (5e-4, 32, "toy")
    assert settings.origins["fit.lr"] == "--set"
    assert settings.origins["fit.batch"] == f"{file}:4"
    assert settings.origins["data.path"] == "--data"
    assert settings.origins["device"] == "--device"
    assert settings.origins["fit.eps"] == "default"
    assert settings.origins["net.size"] == "as data.size"
    assert settings.config.net.size == settings.config.data.size
    assert set(settings.origins) == set(convert.flat(settings.config))


def test_a_preset_says_which_values_are_its_own() -> None:
    settings = settings_from_options("toy")
    assert settings.config == PRESETS["toy"]()
    assert settings.origins["fit.lr"] == "preset toy"
    assert settings.origins["fit.eps"] == "default"


def test_another_kind_of_network_brings_its_own_settings() -> None:
    settings = settings_from_options("toy", sets=["net.kind=dit", "net.width=32", "net.depth=2", "net.heads=2"])
    assert settings.config.net.kind == "dit"  # type: ignore[union-attr]
    assert set(settings.origins) == set(convert.flat(settings.config))


def test_a_configuration_written_out_is_the_configuration(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (*PRESETS, "classifier"):
        assert main(["presets", name]) == 0
        (tmp_path / "c.yaml").write_text(capsys.readouterr().out)
        if name in OF_LATENTS:  # whose settings follow from an autoencoder, which is not here
            stored, _ = files.read(tmp_path / "c.yaml")
            assert convert.from_dict(TrainConfig, stored, name) == PRESETS[name]()
            continue
        assert settings_from_options(str(tmp_path / "c.yaml")).config == settings_from_options(name).config


def test_classes_follow_the_data_where_nobody_said_how_many() -> None:
    settings = with_classes(settings_from_options("toy", data="fashion"), 10)
    assert settings.config.net.classes == 10  # type: ignore[union-attr]
    assert "10 classes" in settings.origins["net.classes"]
    explicit = settings_from_options("toy", data="fashion", sets=["net.classes=0"])
    assert with_classes(explicit, 10) is explicit
    assert isinstance(with_classes(settings_from_options("classifier"), 10).config, ClassifierConfig)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["fashoin"], "did you mean 'fashion'"),
        (["my.yaml"], "no configuration at my.yaml"),
        (["toy", "--set", "lrr=1"], "did you mean 'lr'"),
        (["toy", "--set", "lr"], "key=value"),
        (["toy", "--set", "lr=fast"], "should be a number"),
        (["toy", "--set", "net.size=8"], "should be data.size"),
        (["toy", "--set", "fit.lr=-1"], "above 0"),
        (["toy", "--data", "no/such"], "no folder no"),
        (["toy", "--resume", "runs/7"], "runs"),
        (["toy", "--out", "/etc/hostname/runs"], "is a file, not a folder"),
        (["."], "is an empty folder, not a preset or a run"),
        (["toy", "--device", "gpu"], "device"),
    ],
)
def test_wrong_questions(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", *words]) == 2
    out, err = capsys.readouterr()
    assert said in err
    assert "Traceback" not in err
    assert out == ""
    assert list(tmp_path.iterdir()) == []  # nothing was begun


OF_LATENTS = [name for name, make in PRESETS.items() if getattr(make(), "autoencoder", None)]
SETS = ("fashion", "toy", "emoji", "shapes", "shapes-one", "shapes-two")  # that come with the package


@pytest.mark.parametrize(
    "name", [name for name, make in PRESETS.items() if make().data.path not in SETS and name not in OF_LATENTS]
)
def test_a_preset_for_pictures_of_ones_own_says_what_to_type(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command that it prints works, once there are pictures; captions are named if they are needed."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", name]) == 2
    err = capsys.readouterr().err
    folder = "./pictures-with-captions" if name == "my-captions" else "./pictures"
    assert f"the preset {name} trains on your own pictures" in err
    assert err.rstrip().endswith(f"unnoise train {name} --data {folder}")
    assert ("text file of the same name" in err) == (name == "my-captions")
    assert main(["train", name, "--data", folder]) == 2
    assert f"no pictures at {folder.removeprefix('./')}" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_blamed_by_its_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "my.yaml"
    file.write_text("fit:\n  batch: 8\n  learning_rate: 1e-4\n")
    assert main(["train", str(file)]) == 2
    assert f"{file}:3: fit.learning_rate" in capsys.readouterr().err
    file.write_text("fit:\n  lr: 1e-4\n  lr: 1e-3\n")
    with pytest.raises(UsageError, match="given twice"):
        settings_from_options(str(file))


# -------------------------------------------------------------------------------------------------- a training


def test_a_dry_run_says_everything_and_starts_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = tmp_path / "runs"
    assert main(["train", "toy", *TINY, "--out", str(runs), "--dry-run", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert plan["settings"]["fit"]["images"] == 24
    assert plan["origins"]["fit.images"] == "--set"
    assert plan["data"]["count"] == 1000
    assert plan["cost"]["parameters"] > 1000
    assert plan["cost"]["images_per_second"] > 0
    assert main(["train", "toy", *TINY, "--out", str(runs), "-n"]) == 0
    text = capsys.readouterr().out
    assert "preset toy" in text
    assert "1,000 pictures of toy:train, 4 classes" in text
    assert "parameters" in text
    assert not runs.exists()


def test_what_is_not_used_of_the_data_is_in_the_dry_run_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    for name in ("disc", "none"):
        (pictures / name).mkdir(parents=True)
        for i in range(4):
            Image.new("L", (16, 16), 80 * i).save(pictures / name / f"{i}.png")
    (pictures / "x.heic").write_text("x")
    notes = [
        "1 .heic are not read: convert them to PNG or JPEG",
        "class 'none' is called 'none_', because the labels '', 'none' and 'all' have another meaning",
    ]
    words = ["train", "toy", *TINY, "--data", str(pictures), "--out", str(tmp_path / "runs")]
    assert main([*words, "--dry-run", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["data"]["notes"] == notes
    assert err.startswith(f"reading {pictures} ...\n")
    assert main([*words, "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert all(f"note: {note}\n" in text for note in notes)
    assert main(words) == 0
    run = Path(capsys.readouterr().out.strip())
    log = (run / "log.txt").read_text()
    assert all(f" note: {note}\n" in log for note in notes)
    model = unnoise.load(run)
    assert model.classes == ("disc", "none_")
    assert model.conditioner.null(1).label.tolist() == [2]  # type: ignore[union-attr]
    sets = ["fit.images=24", "fit.batch=8", "data.size=16", "width=8", "features=8", "held_out=0.4"]
    sets = [word for value in sets for word in ("--set", value)]
    assert main(["train", "classifier", "--data", str(pictures), *sets, "--out", str(tmp_path / "runs")]) == 0
    log = (Path(capsys.readouterr().out.strip()) / "log.txt").read_text()
    assert all(f" note: {note}\n" in log for note in notes)


def test_the_same_command_again_goes_on_and_a_run_is_drawn_from(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", "toy", *TINY, "--out", str(tmp_path), "--json"]
    assert main(words) == 0
    out, err = capsys.readouterr()
    first = json.loads(out)
    assert (first["step"], first["steps"], first["finished"], first["exit_code"]) == (3, 3, True, 0)
    assert "parameters" in err  # the cost came first
    assert err.count("training: step 3/3") == 1
    assert main(words) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["run"] == first["run"]
    assert "finished already" in err
    assert len(list(tmp_path.iterdir())) == 1

    assert main(["train", first["run"], "--set", "fit.images=40", "--json"]) == 0  # a run is a configuration too
    out, err = capsys.readouterr()
    assert json.loads(out)["step"] == 5
    assert "resumes at step 3" in err

    assert main([*words, "--resume", "never", "--name", "other"]) == 0
    assert json.loads(capsys.readouterr().out)["run"].endswith("00002-other")

    assert main(["info", first["run"]]) == 0
    assert "step-00000005" in capsys.readouterr().out
    grid = tmp_path / "grid.png"
    assert main(["sample", first["run"], "--seeds", "0-1", "--labels", "all", "--steps", "2", "--grid", str(grid)]) == 0
    capsys.readouterr()
    assert main(["info", str(grid), "--command"]) == 0
    assert f"{first['run']}/checkpoints/step-00000005" in capsys.readouterr().out  # not what comes after it


def test_a_run_resumes_by_path_name_and_number_whatever_lies_beside_its_checkpoints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unfinished step and a folder of another name announce no step, and the loss shown is the mean of the steps."""
    monkeypatch.chdir(tmp_path)
    assert main(["train", "toy", *TINY, "--name", "mine"]) == 0
    saved = Path("runs/00001-mine/checkpoints")
    for name in ("step-00000004", "step-final"):
        (saved / name).mkdir()
        (saved / name / "state.json").write_text('{"step": 4, "images": 32, "seconds": 1.0}')
    for step, text in enumerate(("runs/00001-mine", "00001-mine", "1"), start=3):
        capsys.readouterr()
        assert main(["train", text, "--set", f"fit.images={8 * (step + 1)}"]) == 0
        out, err = capsys.readouterr()
        assert out == "runs/00001-mine\n"
        assert f"resumes at step {step} of {step + 1}" in err
        last = json.loads(Path("runs/00001-mine/metrics.jsonl").read_text().splitlines()[-1])
        assert f"training: step {step + 1}/{step + 1}, {8 * (step + 1)} pictures, loss {last['loss']:.4f}" in err
    assert main(["train", "2"]) == 2
    damaged = saved / "step-00000006" / "state.json"
    damaged.write_bytes(damaged.read_bytes().replace(b"6", b"7", 1))
    capsys.readouterr()
    assert main(["train", "1", "--set", "fit.images=80"]) == 2
    err = capsys.readouterr().err
    assert err.startswith("unnoise: error: the newest checkpoint is damaged: runs/00001-mine/checkpoints/step-00000006")


def test_a_classifier_is_trained_by_the_same_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    values = ["fit.images=24", "fit.batch=8", "log.log_every=1", "data.size=16", "width=16", "features=8"]
    sets = [word for value in values for word in ("--set", value)]
    assert main(["train", "classifier", "--data", "toy", *sets, "--out", str(tmp_path), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert 0 <= report["accuracy"]["value"] <= 1
    assert (Path(report["run"]) / "classifier" / "model.safetensors").is_file()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_a_training_after_a_checkpoint(tmp_path: Path, number: int, code: int) -> None:
    words = ["train", "toy", *TINY, "--set", "fit.images=1e9", "--out", str(tmp_path)]
    training = subprocess.Popen(
        [sys.executable, "-m", "unnoise.cli.main", *words], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        deadline = time.monotonic() + 60
        while not (tmp_path / "00001-toy" / "metrics.jsonl").exists():
            assert training.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        training.send_signal(number)
        out, err = training.communicate(timeout=60)
    finally:
        training.kill()
    assert training.returncode == code, err
    assert "stopped after a checkpoint" in err
    assert "Traceback" not in err
    assert out == f"{tmp_path / '00001-toy'}\n"
    assert len(list((tmp_path / "00001-toy" / "checkpoints").glob("step-*/manifest.json"))) == 1


def test_two_processes_train_one_run_and_one_of_them_speaks(tmp_path: Path) -> None:
    words = ["train", "toy", *TINY, "--out", str(tmp_path / "runs"), "--json"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "-m"]
    done = subprocess.run(
        [*launch, "unnoise.cli.main", *words], capture_output=True, text=True, timeout=120, env=os.environ
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["step"] == 3
    assert [p.name for p in (tmp_path / "runs").iterdir()] == ["00001-toy"]
    assert done.stderr.count("training: step 3/3") == 1


@pytest.mark.parametrize("command", ["train", "evaluate"])
def test_several_processes_on_one_gpu_are_a_question_asked_wrongly(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    toy_model().save(tmp_path / "model")
    words = {
        "train": ["train", "toy", *TINY, "--out", str(tmp_path / "runs")],
        "evaluate": ["evaluate", str(tmp_path / "model"), "--data", "toy"],
    }
    with pretended_cards(2):
        assert main([*words[command], "--device", "cuda:1"]) == 2
    message = "2 processes would share device cuda:1, and each needs its own: use --device cuda, and choose GPUs"
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------------- the demo


def test_the_demo_ends_in_a_report_and_finds_what_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small = convert.override(
        PRESETS["fashion"](),
        {
            "net.channels": "8,8",
            "net.attention": "no,no",
            "fit.images": "16",
            "fit.batch": "8",
            "log.log_every": "1",
            "log.grid_every": "1",
            "log.grid_rows": "1",
            "log.grid_steps": "1",
        },
    )
    monkeypatch.setitem(ALL, "fashion", lambda: small)
    monkeypatch.setattr(demo_pictures, "STEPS", 3)
    monkeypatch.setattr(demo_report, "REAL", 200)
    monkeypatch.setattr("unnoise.cli.evaluate.home", lambda: tmp_path / "cache")
    words = ["demo", "--out", str(tmp_path / "demo"), "--count", "20", "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert report == json.loads((tmp_path / "demo" / "report.json").read_text())
    assert 0 <= report["class_accuracy"] <= 1
    assert report["class_accuracy_real"] > 0.85
    assert {m["id"] for m in report["metrics"]} >= {"frechet", "kernel", "accuracy"}
    assert report["pictures_per_second"]["train"] > 0
    page = (tmp_path / "demo" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 10 + 10 + 2 + 6  # drawn, real, over time, walk
    assert main(["info", str(tmp_path / "demo" / "grid.png")]) == 0
    capsys.readouterr()

    before = (tmp_path / "demo" / "evaluation.json").stat().st_mtime_ns
    assert main(words) == 0
    assert "resumes" in capsys.readouterr().err
    assert (tmp_path / "demo" / "evaluation.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("classes", [("cats", "dogs"), ()])
def test_the_demo_trains_on_pictures_of_ones_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], classes: tuple[str, ...]
) -> None:
    """A row of samples for each class, or four rows without classes, beside real pictures; nothing is measured."""
    tiny = {"net.channels": "8,8,8", "net.head_width": "4", "fit.images": "16", "fit.batch": "8", "log.grid_every": "0"}
    small = convert.override(PRESETS["my-pictures"](), tiny)
    monkeypatch.setitem(ALL, "my-pictures", lambda: small)
    monkeypatch.setattr(demo_pictures, "STEPS", 3)
    for name in classes or (".",):
        for k in range(3):
            folder = tmp_path / "pictures" / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 36), (80 * k, 20, 90)).save(folder / f"{k}.png")
    words = ["demo", "--data", str(tmp_path / "pictures"), "--out", str(tmp_path / "demo"), "--json"]
    assert main(words) == 0
    report = json.loads(capsys.readouterr().out)
    assert not {"metrics", "class_accuracy"} & report.keys()
    assert any(f"--data {tmp_path / 'pictures'}" in line for _, line in report["commands"])
    page = (tmp_path / "demo" / "report.html").read_text()
    rows = len(classes) or demo_pictures.ROWS
    real = len(classes) or 3  # pictures, one for each of three rows
    assert page.count("data:image/png;base64,") == rows + real + len(demo_pictures.SHOWN) + 1
    assert "real, from the training" in page
    assert "class accuracy" not in page
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "choose another folder with --out" in capsys.readouterr().err


def test_the_demo_takes_no_longer_than_it_may(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unnoise.recipes import cost as costs

    class Slow:
        def as_dict(self) -> dict[str, object]:
            return {
                "parameters": 1,
                "flops": 1,
                "steps": 1,
                "images": 150_000,
                "memory": 1,
                "checkpoint": 0,
                "images_per_second": 100.0,
                "seconds": 1500.0,
                "device": "cpu",
                "precision": "float32",
            }

    monkeypatch.setattr(costs, "cost", lambda config, timed: Slow())
    config = demos.shortened(tmp_path, PRESETS["fashion"](), minutes=6.0)
    assert 0.9 * 6 * 60 * 100 < config.fit.images < 6 * 60 * 100
    assert config.fit.images % config.fit.batch == 0


def save_pictures(folder: Path, count: int) -> str:
    folder.mkdir()
    for i in range(count):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (8, 8, 3), np.uint8)).save(folder / f"{i}.png")
    return str(folder)


REFUSED = {  # the words after `unnoise train`, where FOLDER has two pictures without classes and captions: the reason
    ("shapes-control",): "name it with --set base=runs/",
    ("shapes-text", "--set", "time_sampler_options.sigma=1"): "'edm' does not take",
    ("shapes-text", "--set", "fsdp=true"): "set it to adamw",
    ("toy", "--set", "net.channels=7,14"): "groups",
    ("toy", "--set", "net.classes=7"): "net.classes 7 should be 4",
    ("toy", "--set", "batch=50000000"): "set fit.accumulate=",
    ("shapes-text", "--set", "base=nowhere"): "nowhere does not exist",
    ("my-captions", "--data", "toy", "--set", "data.size=32"): "is conditioned on captions, and toy has none",
    ("folder64", "--data", "ONE"): "ONE has 1 readable picture; give at least 2",
    ("classifier", "--data", "FOLDER"): "has no classes, or only one",
    ("classifier", "--data", "toy", "--set", "width=12"): "use a multiple of 8",
    ("fashion-noisy-classifier", "--data", "FOLDER", "--set", "channels=3"): "has no classes, or only one",
    ("fashion-noisy-classifier", "--set", "net.classes=7"): "net.classes 7 should be 10",
    ("emoji-contrastive", "--data", "FOLDER"): "has no captions",
    ("emoji-contrastive", "--set", "accumulate=2"): "compares all pictures of a step",
}


@pytest.mark.parametrize("words", REFUSED, ids=" ".join)
def test_the_dry_run_refuses_what_the_training_refuses(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the same message, exit code 2, before time is measured, and without a directory that is left behind."""
    monkeypatch.setattr("unnoise.recipes.cost._rate", lambda *_: pytest.fail("measured before it is refused"))
    paths = {"FOLDER": save_pictures(tmp_path / "FOLDER", 2), "ONE": save_pictures(tmp_path / "ONE", 1)}
    command = ["train", *(paths.get(word, word) for word in words), "--out", str(tmp_path / "runs")]
    messages = []
    for dry in ([], ["--dry-run"]):
        assert main([*command, *dry]) == 2
        messages.append(capsys.readouterr().err.splitlines()[-1])
    assert REFUSED[words] in messages[0]
    if "memory" not in messages[0]:  # whose free bytes change all the time
        assert messages[0] == messages[1]
    assert not [*(tmp_path / "runs").glob("*")]


def test_the_demo_refuses_pictures_before_it_measures_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unnoise.recipes.cost._rate", lambda *_: pytest.fail("measured before it is refused"))
    one = save_pictures(tmp_path / "one", 1)
    assert main(["demo", "--data", one, "--out", str(tmp_path / "demo")]) == 2
    assert "has 1 readable picture; give at least 2" in capsys.readouterr().err


def test_a_disk_without_room_for_the_checkpoints_is_said_at_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Room for `keep` checkpoints and the one that is being written, in MB; with enough of it the training starts."""
    monkeypatch.setattr("unnoise.recipes.cost._rate", lambda *_: 1000.0)
    command = ["train", "toy", *TINY, "--out", str(tmp_path / "runs")]
    assert main([*command, "--dry-run", "--json"]) == 0
    size = json.loads(capsys.readouterr().out)["cost"]["checkpoint"]
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=3 * size - 1))
    for dry in (["--dry-run"], []):
        assert main([*command, *dry]) == 2
        message = capsys.readouterr().err.splitlines()[-1]
        assert f"2 checkpoints and the next one need {human(3 * size)}B" in message
        assert "--set log.keep=1" in message
    assert not [*(tmp_path / "runs").glob("*")]
    assert main([*command, "--set", "log.keep=1", "--dry-run"]) == 0
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    assert main(command) == 0
    (written,) = (tmp_path / "runs").glob("*/checkpoints/step-*")
    files = sum(checkpoint.size(checkpoint.read(file)) for file in written.glob("*.safetensors"))
    assert size == pytest.approx(files, rel=0.01)  # what was announced is what is written


def test_notes_about_the_pictures_are_in_the_dry_run_and_in_the_log(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example that 12 bits in 16 are nearly black."""
    monkeypatch.setattr("unnoise.recipes.cost._rate", lambda *_: 1000.0)
    (tmp_path / "scans").mkdir()
    for i in range(4):
        values = np.random.default_rng(i).integers(0, 4096, (16, 16), np.uint16)
        values[0, 0] = 4095
        Image.fromarray(values).save(tmp_path / "scans" / f"{i}.png")
    command = ["train", "toy", *TINY, "--data", str(tmp_path / "scans"), "--out", str(tmp_path / "runs")]
    assert main([*command, "--dry-run"]) == 0
    note = "the 4 pictures stored as I;16 the largest value is 4,095 of 65,535"
    assert note in capsys.readouterr().out
    assert main(command) == 0
    (log,) = (tmp_path / "runs").glob("*/log.txt")
    assert note in log.read_text()


@pytest.mark.parametrize(("rate", "words"), [(1000.0, ""), (1.0, "unnoise train my-captions --data ")])
def test_a_dry_run_over_a_day_names_something_shorter(
    rate: float, words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unnoise.recipes.cost._rate", lambda *_: rate)
    top = save_pictures(tmp_path / "a b", 2)
    for i in range(2):
        (tmp_path / "a b" / f"{i}.txt").write_text("noise")
    command = ["train", "toy", "--data", top, "--set", "images=1e6", "--set", "net.classes=0", "--set", "batch=100"]
    assert main([*command, "--set", "size=8", "--out", str(tmp_path / "runs"), "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert ("Over a day" in text) is bool(words)
    if words:
        assert f"{words}'{top}', a smaller network, or --set fit.images=3600, about an hour" in text


def test_the_end_of_a_short_run_says_how_far_it_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    planned = PRESETS["toy"]().fit.images
    assert main(["train", "toy", *TINY, "--out", str(tmp_path / "runs")]) == 0
    text = capsys.readouterr().err
    assert f"early: 24 of the {human(planned)} pictures that the preset toy plans" in text
    assert f"--set fit.images={planned}" in text
    config = PRESETS["toy"]()
    assert how_far(config, config.fit.images, tmp_path) == ""
    assert how_far(dataclasses.replace(config, name="my own"), 10, tmp_path) == ""


# ------------------------------------------------------------------------------------------------ in latents


@pytest.fixture
def latent_words(tmp_path: Path) -> list[str]:
    """A command that trains on the toy set in the latents of an autoencoder with random weights."""
    net = KLConfig(
        size=16, in_channels=1, latent_channels=2, channels=(8, 8, 8), blocks=1, attention=(False,) * 3, groups=4
    )
    made = build_autoencoder(net).eval().requires_grad_(False)
    card = AutoencoderCard(net, LatentsConfig(factor=4, picture_channels=1))
    AutoencoderModel(made, card).save(tmp_path / "kl")
    where = ["--set", f"autoencoder={tmp_path / 'kl'}", "--set", f"latent_cache={tmp_path / 'latents'}"]
    return ["train", "toy", *TINY, *where, "--out", str(tmp_path / "runs")]


def test_a_training_in_latents_says_its_size_its_cost_and_its_disk(
    latent_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*latent_words, "--dry-run"]) == 0
    said = capsys.readouterr().out
    assert "latents: 4x4x2 of " in said
    assert "8 times fewer numbers than a 16x16x1 picture; the same network in pixels would cost " in said
    assert not (tmp_path / "latents").exists()
    assert main(latent_words) == 0
    said = capsys.readouterr().err
    assert f"encodes 1,000 pictures once, into {tmp_path / 'latents'}" in said
    assert ": 256kB" in said  # 1,000 times mean and log variance of 32 latents, in 4 bytes
    assert "picture 1000/1000" in said
    shutil.rmtree(tmp_path / "runs")
    assert main(latent_words) == 0
    assert "encod" not in capsys.readouterr().err.replace("pictures are encoded once", "")


def test_a_size_that_does_not_fit_the_autoencoder_is_refused_before_anything_is_written(
    latent_words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*latent_words, "--set", "size=65"]) == 2
    assert "set data.size=64" in capsys.readouterr().err
    assert not (tmp_path / "latents").exists()
    assert not list((tmp_path / "runs").glob("*"))
