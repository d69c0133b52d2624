"""Every invalid configuration of a U-Net is an error that names the setting."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.helpers.unets import SMALL
from unnoise.config.networks import ControlConfig
from unnoise.errors import UserError
from unnoise.nn import UNet


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"attention": (True,)}, "for each of the 3 levels, but has 1 values"),
        ({"channels": ()}, "channels must be a width for each level"),
        ({"groups": 3}, "channels 8 are not divisible by groups 3"),
        ({"channels": (8, 20, 18)}, "channels 18 are not divisible by groups 4"),
        ({"size": 18}, "size 18 is not a multiple of 4"),
        ({"size": 20, "patch": 2}, "size 20 is not a multiple of 8, as patches of 2 pixels and 3 levels"),
        (
            {"patch": 2, "controls": (ControlConfig(scale=1),)},
            "scale of a control must be a multiple of patch, 2, not 1",
        ),
        ({"patch": 0}, "patch must be at least 1"),
        ({"heads": 3}, "heads 3 does not divide the 16 channels"),
        ({"head_width": 32}, "head_width 32 does not divide the 16 channels"),
        ({"heads": 0}, "heads 0 does not divide"),
        ({"heads": 2, "head_width": 8}, "heads and head_width exclude each other"),
        ({"blocks": 0}, "blocks must be at least 1"),
        ({"classes": -1}, "classes must be 0"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1"),
        ({"channels": (1, 16, 16), "groups": 1}, "must be even and at least 4, not 1"),
    ],
    ids=str,
)
def test_an_invalid_configuration_is_an_error(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        UNet(replace(SMALL, **fields))
