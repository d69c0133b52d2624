"""What a training records about its data can be written, whatever the files are called."""

from __future__ import annotations

import json
import os
from pathlib import Path

from PIL import Image

from unnoise import data
from unnoise.config.data import DataConfig
from unnoise.config.training import TrainConfig
from unnoise.recipes.model_card import data_facts, describe


def test_the_path_of_the_data_is_recorded_where_it_is_not_utf8(tmp_path: Path) -> None:
    top = Path(os.fsdecode(os.path.join(os.fsencode(tmp_path), b"caf\xe9")))
    top.mkdir()
    for i in range(3):
        Image.new("L", (8, 8), i).save(top / f"{i}.png")
    (top / os.fsdecode(b"\xff.png")).write_bytes(b"")
    config = TrainConfig(data=DataConfig(path=str(top), size=8, channels=1, max_broken=0.5))
    pictures = data.open(config.data)
    facts = data_facts(pictures)
    assert facts["path"] == f"{tmp_path}/caf\\xe9"
    assert [broken["path"] for broken in facts["broken"]] == ["\\xff.png"]
    assert describe(config, pictures).info["data"] == facts["path"]
    json.dumps(facts, ensure_ascii=False).encode()
