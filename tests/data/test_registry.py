"""What a path names: classes have names that a label can name, whatever stores them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.trees import Put, png
from unnoise.config.class_names import RESERVED
from unnoise.data.registry import find


@pytest.mark.parametrize("name", sorted(RESERVED - {""}))
def test_a_class_folder_with_a_reserved_name_is_renamed_and_noted(put: Put, name: str) -> None:
    found = find(put({f"{folder}/{i}.png": png(i) for folder in ("disc", name, "ring") for i in range(2)}))
    assert set(found.classes) == {"disc", f"{name}_", "ring"}
    assert [note for note in found.notes if note.startswith(f"class {name!r} is called '{name}_'")]
    assert found.labels is not None
    assert sorted(found.classes[k] for k in found.labels) == sorted(["disc", f"{name}_", "ring"] * 2)


def test_reserved_names_are_renamed_whatever_stores_them(put: Put, tmp_path: Path) -> None:
    rows = '{"file_name": "1.png", "label": "none"}\n{"file_name": "2.png", "label": "b"}'
    assert find(put({"1.png": png(1), "2.png": png(2), "metadata.jsonl": rows})).classes == ("b", "none_")
    np.savez(tmp_path / "a.npz", images=np.zeros((2, 4, 4), np.uint8), labels=["none", "b"])
    assert find(str(tmp_path / "a.npz")).classes == ("b", "none_")
