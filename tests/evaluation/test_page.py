"""The HTML report: one file that needs no other, with all numbers, and with every text escaped."""

from __future__ import annotations

import itertools
import re
from html.parser import HTMLParser

import pytest
from PIL import Image

from unnoise.evaluation.loss_curve import log_ticks, loss_curve, smooth, ticks
from unnoise.evaluation.page import Gallery, page

REPORT = {
    "title": "Fashion & <noise>",
    "summary": "A model.",
    "class_accuracy": 0.871,
    "class_accuracy_real": 0.893,
    "seconds": {"train": 352.2, "sample": 12.0, "evaluate": 40.0},
    "images": 154_000,
    "steps": 50,
    "pictures_per_second": {"train": 431.2, "sample": 35.3},
    "metrics": [{"name": "Frechet distance", "value": 12.34, "real": 1.9, "n": 1000, "better": "down"}],
    "class_accuracy_each": {"T-shirt/top": 0.5, "<script>alert(1)</script>": 1.0},
    "warnings": ["few pictures"],
    "curve": [(100 * k, 1 / k) for k in range(1, 400)],
    "commands": [("Draw", "unnoise sample demo/run --seeds 0-63 && echo <x>")],
    "details": {"Model": {"parameters": "2.1M"}},
}


def gallery() -> Gallery:
    square = Image.new("L", (28, 28), 128)
    return Gallery({"Bag": [square] * 8}, {"Bag": [square] * 4}, [("after 10k", square)], [("step 0", square)])


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.seen: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in ("meta", "img", "line", "path", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "path"):
            assert self.open.pop() == tag


def test_page_is_valid_and_has_no_external_resources() -> None:
    tags = Tags()
    tags.feed(page(REPORT, gallery()))
    assert tags.open == []
    assert all(link.startswith("data:image/png;base64,") for link in tags.links)
    assert "script" not in tags.seen
    assert tags.seen.count("img") == 4


def test_page_shows_its_numbers() -> None:
    text = re.sub("<[^>]*>", " ", page(REPORT, gallery()))
    for text_shown in (
        "87.1 %",
        "89.3 %",
        "5 min 52 s",
        "431/s",
        "12.34",
        "1.9",
        "50.0 %",
        "few pictures",
        "Fashion &amp; &lt;noise&gt;",
    ):
        assert text_shown in text


def test_report_without_optional_parts_is_a_valid_page() -> None:
    bare = {key: REPORT[key] for key in ("title", "summary", "seconds", "images", "steps", "pictures_per_second")}
    assert "<figcaption>" not in page(bare | {"curve": [(8, 1.0)]}, Gallery({"Bag": gallery().drawn["Bag"]}))
    tags = Tags()
    tags.feed(page(bare, Gallery({"Bag": gallery().drawn["Bag"]})))
    assert tags.open == []


def test_curve_falls_where_the_loss_falls() -> None:
    curve = loss_curve([(k, 2.0**-k) for k in range(20)])
    assert curve is not None
    points = [tuple(map(float, point.split(","))) for point in curve.mean.removeprefix("M").split("L")]
    assert all(a[0] < b[0] and a[1] < b[1] for a, b in itertools.pairwise(points))  # right and down


def test_smoothing_keeps_a_constant_and_starts_at_the_first_value() -> None:
    assert smooth([3.0] * 50) == pytest.approx([3.0] * 50)
    assert smooth([5.0, 1.0])[0] == pytest.approx(5.0)


def test_ticks_are_round_and_in_range() -> None:
    assert ticks(0, 154_000) == [0, 50_000, 100_000, 150_000]
    assert log_ticks(0.03, 1.2) == pytest.approx([0.03, 0.1, 0.3, 1.0])
    for low, high in ((0.05, 0.06), (1e-6, 1e3), (0.9, 1.1)):
        assert 3 <= len(log_ticks(low, high)) <= 12
        assert all(low <= t <= high for t in log_ticks(low, high))
