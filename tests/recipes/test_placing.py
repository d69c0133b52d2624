"""Each of several processes trains on a GPU of its own, whatever is trained."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.helpers.tiny_training import pretended_cards
from unnoise.config.presets import ALL
from unnoise.config.training import AnyConfig
from unnoise.errors import UserError
from unnoise.recipes.placing import place
from unnoise.training.distributed import ALONE, Processes


@pytest.mark.parametrize("config", [ALL["toy"](), ALL["classifier"](), ALL["fashion-noisy-classifier"]()])
def test_a_process_trains_on_its_own_gpu(config: AnyConfig) -> None:
    with pretended_cards(4):
        assert place(config, Processes(7, 8, 3)).device == "cuda:3"
        assert place(config, ALONE).device == "cuda"
    assert place(config, Processes(7, 8, 3)).device == "cpu"


def test_processes_that_would_share_a_gpu_are_refused() -> None:
    with pretended_cards(4), pytest.raises(UserError, match="2 processes would share device cuda:1"):
        place(replace(ALL["toy"](), device="cuda:1"), Processes(0, 2, 0))
