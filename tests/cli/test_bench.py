"""`unnoise bench`: a table of measurements, and the stored precision that `sample` then uses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.helpers.toy_models import save_toy_models
from unnoise.acceleration import choices
from unnoise.acceleration.measure import BATCHES, Measured, variants
from unnoise.acceleration.placement import fast_bfloat16
from unnoise.cli.main import main
from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ControlConfig, UNetConfig
from unnoise.denoiser import make_diffusion
from unnoise.generate.conditions import placeholder
from unnoise.generate.job import place
from unnoise.model import Model, load
from unnoise.nn import UNet
from unnoise.noise import normal

OTHER = "float32" if fast_bfloat16("cpu") else "bfloat16"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    save_toy_models(folder)
    return folder


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCH_EXTENSIONS_DIR", str(Path.home() / ".cache" / "torch_extensions"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def test_bench_measures_and_stores_the_best_setting(models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(models / "model")
    assert main(["bench", path, "--seconds", "1", "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert len(found["measured"]) + len(found["left_out"]) == len(variants("cpu")) * len(BATCHES)
    assert found["sampler"] == {"name": "ddim", "steps": 50, "calls": 50}
    for row in found["measured"]:
        assert row["pictures_per_second"] == pytest.approx(row["batch"] * 1000 / (50 * row["ms"]))
    assert "measuring: case" in err
    stored = choices.read(Path(found["best"]["stored"]))
    assert (stored.precision, stored.batch) == (found["best"]["precision"], found["best"]["batch"])
    assert stored == choices.find(load(path).diffusion.net, "cpu")[0]


def faked(*found: Measured, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unnoise.cli.bench.measured", lambda *_: list(found))


def test_sampling_uses_the_stored_precision_and_doctor_lists_it(
    models: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path, model = models / "model", load(models / "model")
    assert place(model, "cpu").placement.precision != OTHER
    left = Measured("plain", 4, left_out="about 9.0 s for two calls, 3.0 s left")
    faked(Measured("plain", 1, 0.5), left, Measured(OTHER, 1, 0.1), Measured(OTHER, 4, 0.2), monkeypatch=monkeypatch)
    monkeypatch.setattr("unnoise.acceleration.measure.fastest_precision", lambda found: OTHER)
    assert main(["bench", str(path), "--device", "cpu"]) == 0
    out = capsys.readouterr().out
    assert f"best on cpu: {OTHER}, for the most pictures --batch 4; stored" in out
    assert "not measured: plain, batch 4 and more: about 9.0 s for two calls, 3.0 s left" in out
    assert place(model, "cpu").placement.precision == OTHER
    assert place(load(models / "plain"), "cpu").placement.precision != OTHER  # of another architecture
    assert main(["doctor", "--no-probe"]) == 0
    listed = capsys.readouterr().out.split("measured by `unnoise bench`\n")[1].splitlines()[0]
    assert listed.split()[:3] == [str(path), "cpu", OTHER]


def test_a_damaged_measurement_is_a_note(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(models / "model")
    faked(Measured("plain", 1, 0.5), Measured("float32", 1, 0.1), monkeypatch=monkeypatch)
    assert main(["bench", path, "--device", "cpu"]) == 0
    (file,) = choices.files()
    file.write_text("{")
    sampling = ["sample", path, "--steps", "1", "--device", "cpu", "-o", str(tmp_path / "samples")]
    capsys.readouterr()
    assert main(sampling) == 0
    assert f"note: {file} is not JSON" in capsys.readouterr().err
    assert main([*sampling[:-1], str(tmp_path / "more"), "--precision", "float32"]) == 0
    assert "not JSON" not in capsys.readouterr().err
    assert main(["doctor", "--no-probe"]) == 0
    assert f"not used: {file} is not JSON" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_is_a_note(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cache").write_text("a file")
    faked(Measured("plain", 1, 0.5), Measured("float32", 1, 0.1), monkeypatch=monkeypatch)
    assert main(["bench", str(models / "model"), "--device", "cpu", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["best"] == {"precision": "float32", "batch": 1, "stored": None}
    assert "note: the result is not stored" in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["{}/modell"], "did you mean {}/model?"),
        (["{}/judge"], "not a model"),
        (["{}/model", "--device", "gpu"], "no device 'gpu'"),
        (["{}/model", "--seconds", "-1"], "a day"),
    ],
)
def test_wrong_usage_is_refused(words: list[str], said: str, models: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", *(word.format(models) for word in words)]) == 2
    assert said.format(models) in capsys.readouterr().err


def test_a_placeholder_has_every_input_of_the_network() -> None:
    net = UNetConfig(
        size=8, channels=(8, 16), blocks=1, attention=(False, True), groups=4, classes=3, values=2, context=12,
        concat_channels=4, controls=(ControlConfig(scale=2, hint=(4, 8)),),
    )  # fmt: skip
    values = (ValueRange("age", 0, 100), ValueRange("score", -1, 1))
    card = ModelCard(net=net, size=(8, 8), classes=("a", "b", "c"), values=values)
    model = Model(make_diffusion(UNet(net).eval(), DiffusionConfig()).eval(), card)
    cond = placeholder(model, 2)
    assert cond.value is not None
    assert cond.value.tolist() == [[500.0, 500.0]] * 2
    assert cond.text is not None
    assert cond.text.shape == (2, 77, 12)
    out = model.diffusion.given(cond)(normal((2, 3, 8, 8), "x"), cond.value.new_tensor(0.5).double()).mean
    assert out.shape == (2, 3, 8, 8)
