"""Words of other programs: every entry names something that exists here, and every way to write it finds it."""

from __future__ import annotations

import pytest

from unnoise.config import convert, synonyms
from unnoise.config.convert import override
from unnoise.config.request import FLAT
from unnoise.config.training import TrainConfig
from unnoise.errors import UserError, unknown
from unnoise.samplers import SAMPLERS, SPACINGS, find, find_spacing


def test_every_word_means_something_that_exists() -> None:
    assert set(synonyms.SAMPLERS.values()) <= set(SAMPLERS)
    assert set(synonyms.SPACINGS.values()) <= set(SPACINGS)
    assert set(synonyms.KEYWORDS.values()) <= set(FLAT)
    assert {key for key, _ in synonyms.SETTINGS.values()} <= set(convert.flat(TrainConfig()))


def test_no_word_is_a_name_here() -> None:
    """It would be accepted as that name, and its entry would never be read."""
    for words, names in (
        (synonyms.SAMPLERS, SAMPLERS),
        (synonyms.SPACINGS, SPACINGS),
        (synonyms.KEYWORDS, FLAT),
    ):
        assert not set(words) & set(names)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("UniPC", "unipc"), ("DDIM", "ddim"), ("euler_ancestral", "euler-ancestral"), ("DPM++2M", "dpm++2m")],
)
def test_samplers_are_found_whatever_their_case(name: str, meant: str) -> None:
    assert find(name) is SAMPLERS[meant]


@pytest.mark.parametrize(
    ("written", "sampler", "spacing"),
    [
        ("DPM++ 2M Karras", "dpm++2m", "karras"),
        ("dpmpp_2m", "dpm++2m", ""),
        ("sample_dpmpp_2m_sde", "dpm++2m-sde", ""),
        ("DPM++ 2M SDE Karras", "dpm++2m-sde", "karras"),
        ("DPM++ 2M SDE Exponential", "dpm++2m-sde", "log-snr"),
        ("DPM++ 3M SDE Karras", "dpm++3m", "karras"),
        ("Euler a", "euler-ancestral", ""),
        ("euler_a", "euler-ancestral", ""),
        ("k_euler_a", "euler-ancestral", ""),
        ("LMS Karras", "plms", "karras"),
        ("EulerAncestralDiscreteScheduler", "euler-ancestral", ""),
        ("DPMSolverMultistepScheduler", "dpm++2m", ""),
        ("PNDMScheduler", "plms", ""),
        ("UniPCMultistepScheduler", "unipc", ""),
        ("FlowMatchEulerDiscreteScheduler", "euler", ""),
    ],
)
def test_names_of_samplers_in_other_programs(written: str, sampler: str, spacing: str) -> None:
    with pytest.raises(UserError) as error:
        find(written)
    instead = repr(sampler) + (f" with the timestep spacing {spacing!r}" if spacing else "")
    assert f"did you mean {instead}?" in str(error.value)


@pytest.mark.parametrize(
    ("written", "spacing"), [("exponential", "log-snr"), ("SGM Uniform", "trailing"), ("Karras", "karras")]
)
def test_names_of_spacings_in_other_programs(written: str, spacing: str) -> None:
    with pytest.raises(UserError, match=f"did you mean '{spacing}'"):
        find_spacing(written, 1000)


def test_a_name_that_means_nothing_gets_no_wrong_advice() -> None:
    with pytest.raises(UserError, match="no sampler 'xyz'; valid: "):
        find("xyz")


@pytest.mark.parametrize("name", ["lr", "fit.lr"])
def test_a_name_of_ours_is_never_a_synonym(name: str) -> None:
    assert override(TrainConfig(), {name: "0.5"}).fit.lr == 0.5


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("epochs", "fit.images"),
        ("learning_rate", "fit.lr"),
        ("learning-rate", "fit.lr"),
        ("batch_size", "fit.batch"),
        ("fit.batch_size", "fit.batch"),
        ("resolution", "data.size"),
        ("mixed_precision", "fit.precision"),
        ("ema_decay", "fit.ema"),
    ],
)
def test_settings_of_other_programs(written: str, key: str) -> None:
    with pytest.raises(UserError, match=f"no setting '{written}'; did you mean '{key}'"):
        override(TrainConfig(), {written: "1"})


def test_a_name_in_another_case_is_found() -> None:
    assert "did you mean 'fid'?" in str(unknown("metric", "FID", ["kid", "fid"]))
    assert "did you mean 'Sneaker'?" in str(unknown("class", "SNEAKERS", ["Sneaker", "bag"]))
