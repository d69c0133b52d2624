"""A request has parts, and flat names for their fields: both forms say the same."""

from __future__ import annotations

import dataclasses

import pytest

from unnoise.config.field import help_texts
from unnoise.config.request import FLAT, Guidance, Request, RequestOptions, Sampling

OTHERS = {
    "seeds": (3, 4), "labels": ("a",), "prompts": ("b",), "negative_prompt": "c", "values": {"age": (1.0,)},
    "image": "i.png", "mask": "m.png", "controls": ("e.png",), "control_scale": (0.5,), "guess": True,
    "sampler": "heun", "steps": 7, "spacing": "karras", "eta": 0.5, "clip": False, "dynamic_threshold": 0.9,
    "guidance": 2.0, "guidance_rescale": 0.7, "guidance_interval": (0.1, 2.0), "classifier": "runs/1",
    "classifier_scale": 3.0, "batch": 2, "precision": "bfloat16", "device": "cpu", "previews": 4,
}  # fmt: skip


def test_flat_names_and_parts_are_the_same_settings() -> None:
    assert set(OTHERS) == set(FLAT)
    request = Request.of(**OTHERS)
    assert request.flat() == OTHERS
    assert Request.of(**request.flat()) == request
    assert (request.sampling.steps, request.guidance.scale, request.guidance.interval) == (7, 2.0, (0.1, 2.0))
    assert request.sampling == Sampling("heun", 7, "karras", 0.5, False, 0.9)
    assert request.guidance == Guidance(2.0, 0.7, (0.1, 2.0), "runs/1", 3.0)


@pytest.mark.parametrize("name", OTHERS)
def test_a_change_leaves_all_other_settings(name: str) -> None:
    changed = Request().but(**{name: OTHERS[name]})
    assert changed.flat() == Request().flat() | {name: OTHERS[name]}
    assert Request().flat() == Request.of().flat()


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(TypeError, match="no setting 'stepz'"):
        Request.of(stepz=3)


def test_the_options_of_a_command_are_the_flat_settings() -> None:
    """With the same defaults, and a help text for every setting but the two whose names say enough."""
    options = {field.name for field in dataclasses.fields(RequestOptions)}
    assert options == set(FLAT)
    assert dataclasses.asdict(RequestOptions()) == Request().flat()
    assert options - set(help_texts(RequestOptions)) == {"precision", "device"}
