"""A configuration is the same after a file; errors name the file, the line and the key."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import pytest

from unnoise.config import convert, files, validate
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import DiTConfig, UNetConfig
from unnoise.config.request import Request
from unnoise.config.training import ClassifierConfig, ContrastiveConfig, Fit, NoisyClassifierConfig, TrainConfig
from unnoise.errors import UserError

CONFIGS = [
    TrainConfig(),
    TrainConfig(net=DiTConfig(depth=3), process=DiffusionConfig(schedule_options={"s": 0.008})),
    TrainConfig(net=UNetConfig(channels=(1, 2), heads=4), fit=Fit(clip=None, ema=(1, 2), lr=1e-5)),
    Request.of(seeds=(3, 4), labels=("none", "1")),
]


@pytest.mark.parametrize("config", CONFIGS)
def test_loading_a_saved_configuration_returns_it(config, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(files.dumps(config))
    assert files.load(path, type(config)) == config


@pytest.mark.parametrize("config", CONFIGS)
def test_values_as_text_are_converted_back(config):
    """The command line passes text, which is converted to the types of the dataclass."""
    texts = {name: _typed(value) for name, value in convert.flat(config).items()}
    assert convert.override(config, texts) == config


def _typed(value):
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return value if isinstance(value, dict) else str(value)


def test_the_end_of_a_name_is_enough_if_it_is_unique():
    config = convert.override(TrainConfig(), {"lr": "1e-4", "ema": "10,20", "clip": "none", "fit.images": "1e6"})
    assert config.fit == Fit(lr=1e-4, ema=(10, 20), clip=None, images=1_000_000)
    config = convert.override(TrainConfig(), {"depth": "3", "net.kind": "dit", "net.size": "64"})
    assert config.net == DiTConfig(depth=3, size=64)
    config = convert.override(TrainConfig(), {"schedule_options.steps": "50", "schedule_options.values": "0.1,0.2"})
    assert config.process.schedule_options == {"steps": 50, "values": (0.1, 0.2)}
    config = convert.override(TrainConfig(), {"schedule_options.s": "0.01"})
    assert config.process.schedule_options == {"s": 0.01}


def test_missing_fields_come_from_the_base():
    base = TrainConfig(fit=Fit(lr=1.0, batch=7))
    assert convert.from_dict(TrainConfig, {"fit": {"lr": 2}}, base=base).fit == Fit(lr=2.0, batch=7)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("fit:\n  lr: 1e-4\n  lrr: 3\n", "file.yaml:3: fit.lrr: no setting 'lrr'; did you mean 'lr'?"),
        ("fit:\n  lr: 1e-4\n  lr: 3\n", "file.yaml:3: fit.lr: given twice; the first is in line 2"),
        ("fit:\n  lr: fast\n", 'file.yaml:2: fit.lr: should be a number, not "fast"'),
        ("fit:\n  batch: 1.5\n", "file.yaml:2: fit.batch: should be a whole number, not 1.5"),
        ("fit:\n  batch: true\n", "file.yaml:2: fit.batch: should be a whole number, not true"),
        ("fit:\n  compile: 3\n", "file.yaml:2: fit.compile: should be true or false, not 3"),
        ("fit:\n  lr: .nan\n", "file.yaml:2: fit.lr: should be a number"),
        ("fit:\n  optimizer: adan\n", "file.yaml:2: fit.optimizer: no optimizer 'adan'; did you mean 'adam'?"),
        ("fit:\n  betas: [0.9]\n", "file.yaml:2: fit.betas: should be 2 values, not 1"),
        ("fit: 3", "file.yaml:1: fit: should be a group"),
        ("net: {kind: dot}", "file.yaml:1: net.kind: no kind 'dot'; did you mean 'dit'?"),
        ("net: {kind: dit, blocks: 3}", "file.yaml:1: net.blocks: no setting 'blocks'"),
        ("data: {path: 12}", "file.yaml:1: data.path: should be text (in quotes), not 12"),
        ("fit:\n  betas: [0.9,\n    x]\n", 'file.yaml:2: fit.betas.1: should be a number, not "x"'),
        ("process:\n  steps: 10\n  joined: big\n", "file.yaml:3: process.joined (now process.concat): no concat 'big'"),
        ("watch:\n  log_every: x\n", "file.yaml:2: watch.log_every (now log.log_every): should be a whole number"),
        ("process:\n  joined: ''\n  concat: ''\n", "file.yaml:2: process.joined: no setting 'joined'"),
        ("fit: [", "file.yaml:1: this is not YAML"),
        ("- 1", "file.yaml: a configuration is a group of `key: value`"),
        ("about: !!python/object/apply:os.system [echo]", "file.yaml:1: this is not YAML"),
    ],
)
def test_errors_name_file_line_and_key(text, message, tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        files.load(path, TrainConfig)
    assert message in str(caught.value).replace(f"{tmp_path}/", "")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrr": "1"}, "no setting 'lrr'; did you mean 'lr'"),
        ({"lr": "fast"}, "fit.lr: should be a number"),
        ({"net.kind": "dot"}, "net.kind: no kind 'dot'; did you mean 'dit'?"),
        ({"depth": "3"}, "net.depth: no setting 'depth'"),
    ],
)
def test_an_error_in_an_override_names_its_key(values, message):
    with pytest.raises(UserError) as caught:
        convert.override(TrainConfig(), values, "--set")
    assert message in str(caught.value)
    assert str(caught.value).startswith("--set: ")


@pytest.mark.parametrize("kind", [TrainConfig, ClassifierConfig, NoisyClassifierConfig, ContrastiveConfig])
def test_size_and_channels_are_the_pictures_in_every_training(kind):
    config = convert.override(kind(), {"size": "24", "channels": "3"}, "--set")
    assert (config.data.size, config.data.channels) == (24, 3)
    assert getattr(config, "net", None) == getattr(kind(), "net", None)


@dataclass(frozen=True)
class _Pair:
    left: Fit = Fit()
    right: Fit = Fit()


def test_a_name_of_two_settings_is_refused_with_both():
    with pytest.raises(UserError, match=r"'lr' could be any of left\.lr, right\.lr; write the whole name"):
        convert.override(_Pair(), {"lr": "1"})


def test_numbers_out_of_range_are_listed_all_at_once():
    fit = Fit(lr=-1.0, batch=3, accumulate=2, betas=(0.9, 1.0), ema=())
    with pytest.raises(UserError) as caught:
        validate.check(TrainConfig(fit=fit))
    for name in ("fit.lr", "fit.batch", "fit.betas", "fit.ema", "net.in_channels", "net.size"):
        assert name in str(caught.value)


def test_configurations_do_not_import_torch():
    code = "import sys, unnoise.config.validate, unnoise.config.files; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
