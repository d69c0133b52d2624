"""Pictures find their captions: the loss and the counting are what is written out, and nothing is there twice."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from unnoise import data
from unnoise.cli.main import main
from unnoise.config import presets
from unnoise.config.cards import ContrastiveCard, ModelCard
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import ContrastiveNet, TextConfig, UNetConfig
from unnoise.config.training import ContrastiveConfig, Fit, LogConfig
from unnoise.errors import UserError
from unnoise.formats.directory import write_model
from unnoise.io.images import with_words
from unnoise.metrics import contrastive
from unnoise.metrics.contrastive import ContrastiveEvaluator, beaten_by, retrieval
from unnoise.metrics.nearest import nearest
from unnoise.nn import build
from unnoise.nn.contrastive import Contrastive, equal, info_nce
from unnoise.recipes import contrastive as recipe
from unnoise.text.tokenizer import Tokenizer
from unnoise.training.distributed import Processes
from unnoise.training.run import open_run

pytest.importorskip("tokenizers")
COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 40, 220), "grey": (128, 128, 128)}
SAID = tuple(f"a {name} thing" for name in COLOURS)
TEXT = TextConfig(vocabulary=300, length=8, width=16, depth=1, heads=2)
NET = ContrastiveNet(size=8, width=8, features=16, embedding=8, text=TEXT)


def born(config: ContrastiveNet = NET) -> Contrastive:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Contrastive(config).eval()


def logits(count: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(count, count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


NONE = torch.eye(5, dtype=torch.bool)
TWICE = NONE.clone()
TWICE[1, 3] = TWICE[3, 1] = True


# --- the loss ---


@pytest.mark.parametrize("same", [NONE, TWICE], ids=["all captions differ", "two captions are equal"])
def test_the_loss_written_out(same: Tensor) -> None:
    s = logits(5)
    for i, value in enumerate(info_nce(s, same).tolist()):
        kept = [j for j in range(5) if j == i or not same[i, j]]
        across = math.exp(s[i, i]) / sum(math.exp(s[i, j]) for j in kept)
        down = math.exp(s[i, i]) / sum(math.exp(s[j, i]) for j in kept)
        assert value == pytest.approx(-(math.log(across) + math.log(down)) / 2, rel=1e-12)


def test_without_equal_captions_it_is_cross_entropy_both_ways() -> None:
    s, rows = logits(5), torch.arange(5)
    both = torch.nn.functional.cross_entropy(s, rows) + torch.nn.functional.cross_entropy(s.T, rows)
    assert torch.allclose(info_nce(s, NONE).mean(), both / 2)


def test_pictures_and_captions_change_places_and_rows_their_order() -> None:
    s, order = logits(5), torch.tensor([3, 0, 4, 1, 2])
    found = info_nce(s, TWICE)
    assert torch.allclose(info_nce(s.T, TWICE), found)
    assert torch.allclose(info_nce(s[order][:, order], TWICE[order][:, order]), found[order])


def test_a_row_with_the_same_caption_changes_nothing() -> None:
    s, kept = logits(5), torch.tensor([0, 1, 2, 4])  # 3 has the caption of 1
    assert torch.allclose(info_nce(s, TWICE)[1], info_nce(s[kept][:, kept], NONE[:4, :4])[1])
    moved = s.clone()
    moved[1, 3] += 50  # however near the two are, neither is a wrong answer to the other
    moved[3, 1] += 50
    assert torch.equal(info_nce(moved, TWICE), info_nce(s, TWICE))
    (slope,) = torch.autograd.grad(info_nce(s.requires_grad_(), TWICE).sum(), s)
    assert slope.isfinite().all()
    assert slope[1, 3] == slope[3, 1] == 0


def test_one_who_knows_nothing_loses_the_logarithm_of_the_batch() -> None:
    assert torch.allclose(info_nce(torch.zeros(5, 5), NONE), torch.tensor(math.log(5)))


def test_rows_have_the_same_caption_if_all_their_tokens_are_equal() -> None:
    tokens = torch.tensor([[1, 5, 2, 0], [1, 5, 2, 0], [1, 5, 6, 2], [1, 6, 5, 2]])
    expected = torch.eye(4, dtype=torch.bool)
    expected[0, 1] = expected[1, 0] = True
    assert torch.equal(equal(tokens), expected)


# --- the network ---


def test_vectors_lie_on_the_sphere_and_do_not_depend_on_padding() -> None:
    net = born()
    x, tokens = torch.randn(3, 3, 8, 8), torch.tensor([[1, 9, 2, 0], [1, 7, 8, 2], [1, 2, 0, 0]])
    pictures, captions = net.pictures(x), net.captions(tokens)
    assert torch.allclose(pictures.norm(dim=1), torch.ones(3))
    assert torch.allclose(captions.norm(dim=1), torch.ones(3))
    assert torch.allclose(net.pictures(x[1:2]), pictures[1:2], atol=1e-6)
    for i in range(3):
        assert torch.allclose(net.captions(tokens[i : i + 1])[0], captions[i], atol=1e-6)
    padded = torch.nn.functional.pad(tokens, (0, 4))
    assert torch.allclose(net.captions(padded), captions, atol=1e-6)
    assert not torch.allclose(net.captions(tokens[:, [0, 2, 1, 3]])[1], captions[1], atol=1e-3)


def test_its_loss_is_that_of_scaled_cosines() -> None:
    net = born()
    x, tokens = torch.randn(3, 3, 8, 8), torch.tensor([[1, 9, 2], [1, 7, 2], [1, 9, 2]])
    cosines = torch.nn.functional.cosine_similarity(net.pictures(x)[:, None], net.captions(tokens)[None], dim=2)
    assert net.scale.item() == pytest.approx(1 / 0.07)
    assert torch.allclose(net(x, tokens), info_nce(cosines / 0.07, equal(tokens)), atol=1e-5)


def test_the_scale_is_learned_up_to_a_hundred() -> None:
    net = born()
    x, tokens = torch.randn(3, 3, 8, 8), torch.tensor([[1, 9, 2], [1, 7, 2], [1, 8, 2]])
    (slope,) = torch.autograd.grad(net(x, tokens).sum(), net.log_scale)
    assert slope != 0
    net.log_scale.data.fill_(math.log(99))
    assert net.scale.item() == pytest.approx(99)
    net.log_scale.data.fill_(7.0)
    assert net.scale.item() == pytest.approx(100)


# --- retrieval ---


def test_retrieval_where_the_answer_is_known() -> None:
    angles = torch.tensor([0.0, 1.0, 2.0, 3.0, 4.0, 5.0])
    captions = torch.stack([angles.cos(), angles.sin()], 1)
    seen = torch.tensor([0.1, 1.6, 4.9])  # right; nearer to 2 than to 1; nearest to 5 (asked: 0, the second nearest)
    pictures = torch.stack([seen.cos(), seen.sin()], 1)
    better = beaten_by(pictures @ captions.T, torch.tensor([0, 1, 0]))
    assert better.tolist() == [0, 1, 2]  # 4.9 is 1.38 from 0 (over 2 pi), 0.1 from 5, 0.9 from 4
    found = retrieval(better, 5, among=6)
    assert (found.among, found.n) == (6, 3)
    assert found.first.value == pytest.approx(1 / 3)
    assert found.first.error == pytest.approx(math.sqrt(2 / 9 / 2))  # the spread of (1, 0, 0) over sqrt(3)
    assert found.fifth.value == 1
    assert retrieval(better, 5, among=100) == found
    with pytest.raises(UserError, match="at least 2 different captions"):
        retrieval(better, 5, among=1)


@pytest.mark.parametrize("better", [0, 1, 2, 6, 7, 9])
@pytest.mark.parametrize("among", [2, 4, 7, 10])
def test_a_lot_is_the_mean_over_all_lots(better: int, among: int) -> None:
    """Nine others, `better` of which beat the own caption: every choice of them, counted."""
    lots = list(combinations(range(9), among - 1))
    beaten = [sum(other < better for other in lot) for lot in lots]
    found = retrieval(torch.tensor([better]), 9, among=among)
    for share, k in ((found.first, 1), (found.fifth, 5)):
        assert share.value == pytest.approx(sum(n < k for n in beaten) / len(lots), abs=1e-12)
        assert math.isnan(share.error)


def test_many_candidates_are_counted_exactly() -> None:
    better = torch.tensor([0, 1, 40, 2999])
    found = retrieval(better, 3000, among=101).first.value
    misses = [math.prod((3000 - r - i) / (3000 - i) for i in range(100)) for r in better.tolist()]
    assert found == pytest.approx(sum(misses) / 4, rel=1e-10)


def test_a_judge_that_finds_all_alike_has_found_nothing() -> None:
    better = beaten_by(torch.zeros(4, 10), torch.arange(4))
    assert better.tolist() == [9] * 4
    assert retrieval(better, 9, among=2).first.value == 0


def test_captions_that_read_alike_are_one_candidate() -> None:
    words = Tokenizer.learn(SAID, vocabulary=300, length=8)
    judge = ContrastiveEvaluator(born(), words, ContrastiveCard(net=NET))
    x = torch.randn(3, 3, 8, 8)
    few = judge.better(judge.pictures(x), SAID[:3], SAID)
    many = judge.better(judge.pictures(x), SAID[:3], [*SAID, "A  RED thing", *SAID])
    assert few[1] == many[1] == 3
    assert torch.equal(few[0], many[0])
    cosines = judge.similarity(x, SAID)
    assert few[0].tolist() == [int((cosines[i] > cosines[i, i]).sum()) for i in range(3)]
    found = judge.retrieval(judge.pictures(x), SAID[:3], SAID, among=2)
    assert found.first == retrieval(few[0], 3, among=2).first
    with pytest.raises(UserError, match="8x8 pixels with 3 channels, not 9x8 with 3"):
        judge.pictures(torch.zeros(1, 3, 9, 8))


# --- the nearest pictures ---


class Few(NamedTuple):
    x: Tensor


class Some:
    """A data set of given pictures."""

    def __init__(self, x: Tensor) -> None:
        self.x = x

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Sequence[int], /) -> Few:
        return Few(self.x[list(indices)])


def random_bytes(count: int, seed: int) -> Tensor:
    pixels = torch.randint(0, 256, (count, 3, 4, 4), generator=torch.Generator().manual_seed(seed))
    return (2 * pixels - 255) / 255


@pytest.mark.parametrize("batch", [1, 7, 100])
def test_the_nearest_are_those_found_one_by_one(batch: int) -> None:
    x, real = random_bytes(3, 0), random_bytes(30, 1)
    real[12] = real[20] = x[1]
    found = nearest(x, Some(real), 4, batch=batch)
    for i in range(3):
        errors = [float(((x[i] - other).double() * 127.5).square().mean().sqrt()) for other in real]
        order = sorted(range(30), key=lambda j: errors[j])[:4]
        assert found.row[i].tolist() == order
        assert found.distance[i].tolist() == pytest.approx([errors[j] for j in order], abs=1e-4)
    assert found.row[1, :2].tolist() == [12, 20]  # of two equal ones the first
    assert found.distance[1, :2].tolist() == [0, 0]


def test_the_nearest_by_features() -> None:
    x, real = random_bytes(3, 0), random_bytes(30, 1)
    found = nearest(x, Some(real), 2, features=lambda x: x.mean((2, 3)), batch=8)
    apart = torch.cdist(x.mean((2, 3)).double(), real.mean((2, 3)).double())
    assert torch.equal(found.row, apart.argsort(1)[:, :2])
    assert torch.allclose(found.distance, apart.sort(1).values[:, :2])
    copies = nearest(real[3:8], Some(real), 1, features=lambda x: 1000 / 3 + x.flatten(1))
    assert copies.row.flatten().tolist() == [3, 4, 5, 6, 7]
    assert copies.distance.tolist() == [[0.0]] * 5
    with pytest.raises(UserError, match="use 1 to 30"):
        nearest(x, Some(real), 31)
    with pytest.raises(UserError, match="5x4 pixels"):
        nearest(torch.zeros(1, 3, 4, 5), Some(real), 1)


# --- training, on disk, and in use ---


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty noisy pictures of 8x8 in four colours, which their captions name: ten pictures a caption."""
    folder = tmp_path_factory.mktemp("things")
    noise = np.random.default_rng(0)
    for i in range(40):
        colour = list(COLOURS)[i % 4]
        pixels = np.array(COLOURS[colour]) + noise.normal(0, 25, (8, 8, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(folder / f"{i:02d}.png")
        (folder / f"{i:02d}.txt").write_text(f"a {colour} thing")
    return folder


def config(pictures: Path, **fit: object) -> ContrastiveConfig:
    how = Fit(images=1280, batch=16, optimizer="adamw", lr=3e-3, warmup=4, decay="cosine", ema=(64,), ema_rampup=0.1)
    return ContrastiveConfig(
        name="tiny",
        data=DataConfig(path=str(pictures), size=8, channels=3),
        net=NET,
        fit=replace(how, **fit),  # type: ignore[arg-type]
        log=LogConfig(log_every=10, checkpoint_every=1e9, grid_every=0),
    )


@pytest.fixture(scope="module")
def run(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished training."""
    path, what = tmp_path_factory.mktemp("runs") / "tiny", config(pictures)
    with open_run(path, what) as held:
        losses = [tick.loss for tick in recipe.train(what, held)]
    assert len(losses) == 80
    assert sum(losses[-10:]) < 0.3 * sum(losses[:10])
    return path


def test_a_tiny_training_distinguishes_four_captions(run: Path, pictures: Path) -> None:
    judge = contrastive.load(run)
    shown = data.open(config(pictures).data).batch(range(40))
    assert shown.caption is not None
    cosines = judge.similarity(shown.x, SAID)
    assert [SAID[i] for i in cosines.argmax(1)] == list(shown.caption)
    said = judge.card.info["retrieval"]  # the same, from its card: of four captions, for the ten of each are one
    assert [(each["among"], each["n"], each["first"]["value"]) for each in said] == [(4, 40, 1.0)]
    assert "nearest of 4 in 100.0% ± 0.0%" in (run / "log.txt").read_text()


def test_the_same_training_gives_the_same_judge_and_its_files_all_of_it(
    run: Path, pictures: Path, tmp_path: Path
) -> None:
    what = config(pictures)
    for most in (33, 1000):  # stopped on its way, and gone on
        with open_run(tmp_path / "again", what) as held:
            for tick in recipe.train(what, held):
                if tick.step == most:
                    break
    first, again = contrastive.load(run), contrastive.load(tmp_path / "again")
    wanted = again.net.state_dict()
    assert all(torch.equal(value, wanted[name]) for name, value in first.net.state_dict().items())
    assert first.card == again.card
    x = torch.randn(3, 3, 8, 8)
    assert torch.equal(first.similarity(x, SAID), again.similarity(x, SAID))
    newest = contrastive.load(sorted((run / "checkpoints").iterdir())[-1])
    assert torch.equal(newest.similarity(x, SAID), first.similarity(x, SAID))


def test_damage_is_refused_and_named(run: Path, tmp_path: Path) -> None:
    judge = contrastive.load(run)
    folder = tmp_path / "judge"
    folder.mkdir()
    contrastive.write(folder, judge.net.state_dict(), judge.tokenizer, judge.card)
    contrastive.load(folder)
    card = json.loads((folder / contrastive.CARD).read_text())

    def refused(match: str) -> None:
        with pytest.raises(UserError, match=match):
            contrastive.load(folder)

    other = replace(judge.card, net=replace(NET, embedding=4))
    contrastive.write(folder, judge.net.state_dict(), judge.tokenizer, other)
    refused(r"picture\.head\.(weight|bias) has the shape")
    other = replace(judge.card, net=replace(NET, text=replace(TEXT, vocabulary=261)))
    contrastive.write(folder, Contrastive(other.net).state_dict(), judge.tokenizer, other)
    refused("tokens, contrastive.json has 261")
    (folder / contrastive.CARD).write_text(json.dumps(card | {"format": "unnoise-contrastive-0"}))
    refused("unnoise-contrastive-0")
    (folder / contrastive.CARD).write_text("{")
    refused("is not JSON")
    (folder / contrastive.CARD).unlink()
    refused("contains no contrastive model")
    with pytest.raises(UserError, match="does not exist"):
        contrastive.load(tmp_path / "nowhere")


def test_what_cannot_be_trained_is_refused_before_it_starts(pictures: Path) -> None:
    def refused(what: ContrastiveConfig, match: str, processes: Processes | None = None) -> None:
        with pytest.raises(UserError, match=match):
            next(iter(recipe.train(what, None, **({"processes": processes} if processes else {}))))

    refused(config(pictures, accumulate=2), "accumulate 1")
    refused(config(pictures), "one process", Processes(0, 2))
    refused(config(pictures, batch=1), "needs pictures to compare")
    refused(replace(config(pictures), net=replace(NET, size=9)), "data.size 8")
    refused(replace(config(pictures), net=replace(NET, width=12)), "multiple of 8")
    fashion = replace(config(pictures), data=DataConfig(), net=replace(NET, size=28, in_channels=1))
    refused(fashion, "has no captions")


def test_the_preset_is_for_the_emoji() -> None:
    preset = presets.emoji_contrastive()
    assert preset.data == presets.emoji().data
    assert not preset.data.flip  # arrows and letters
    recipe.check(preset, Processes(0, 1))


@pytest.fixture(scope="module")
def model(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of captions with random weights."""
    folder = tmp_path_factory.mktemp("models") / "words"
    folder.mkdir()
    words = Tokenizer.learn(SAID, vocabulary=300, length=8)
    net = UNetConfig(size=8, channels=(8, 16), blocks=1, attention=(False, True), groups=4, text=TEXT)
    torch.manual_seed(0)
    made = build(net)
    for p in made.parameters():
        torch.nn.init.normal_(p, std=0.1)
    card = ModelCard(net=net, process=DiffusionConfig(predicts="x0"), size=(8, 8), info={"data": str(pictures)})
    write_model(folder, made.state_dict(), card, words)
    return folder


def test_evaluate_judges_drawn_pictures_beside_real_ones(
    model: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ask = ["evaluate", str(model), "--metrics", "retrieval", "--count", "12", "--steps", "2", "--judge", str(run)]
    assert main([*ask, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    (entry,) = report["metrics"]
    assert (entry["id"], entry["n"], entry["real"], entry["known"]) == ("retrieval", 12, 1.0, True)
    assert [each["among"] for each in entry["drawn_found"]] == [4]
    assert 0 <= entry["value"] < 0.8  # random weights draw no colours that were asked for
    assert entry["drawn_found"][0]["fifth"]["value"] == 1.0
    assert main(ask) == 0
    said = capsys.readouterr().out
    assert "caption retrieval, 4" in said
    assert "of the real ones 100.0% ± 0.0% first of 4" in said
    assert "tiny was trained on these real pictures" in said
    assert main(ask[:-2]) != 0
    assert "needs a contrastive model" in capsys.readouterr().err


def test_the_table_of_guidance_conditions_on_captions_and_evaluates_them(
    model: Path, run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At scale 1 its retrieval is that of `evaluate`, of the same seeds; further scales draw other pictures. They are
    compared in the features of the judge, for the set has no classes."""
    how = ["--count", "12", "--steps", "2", "--judge", str(run), "--json"]
    assert main(["evaluate", str(model), "--metrics", "retrieval", *how]) == 0
    (alone,) = json.loads(capsys.readouterr().out)["metrics"]
    table = ["table", "guidance", str(model), "--scales", "1,3,8", *how, "--shown", "4", "--out", str(tmp_path / "out")]
    assert main(table) == 0, capsys.readouterr().err
    cells = [{m["id"]: m for m in cell["metrics"]} for cell in json.loads(capsys.readouterr().out)["cells"]]
    assert [list(cell) for cell in cells] == [["frechet", "precision", "recall", "retrieval"]] * 3
    told, first = cells[0]["retrieval"], alone["drawn_found"][0]["first"]
    assert (told["value"], told["error"]) == pytest.approx((first["value"], first["error"]))
    assert (told["n"], told["real"], cells[0]["frechet"]["features"]) == (12, 1.0, "contrastive tiny")
    assert len({cell["frechet"]["value"] for cell in cells}) == 3
    text = (tmp_path / "out" / "table.md").read_text()
    assert text.startswith("| guidance | scale | Frechet | precision | recall | caption retrieval | calls |")
    assert "100.0% of real pictures are nearest to their own caption" in text
    assert main([*table[:-7], "--shown", "4", "--out", str(tmp_path / "none")]) != 0
    assert "emoji-contrastive" in capsys.readouterr().err  # no features without the judge, and no classes to train one


def test_words_stand_below_the_columns_of_a_sheet() -> None:
    """Four words below four columns: ink under each of them, and the sheet above as it was."""
    plain = Image.fromarray(np.full((20, 400, 3), 90, np.uint8))
    worded = np.asarray(with_words(plain, SAID, 360))
    assert np.array_equal(worded[:20], np.asarray(plain))
    ink = (worded[20:] < 200).any(axis=(0, 2))
    assert not ink[:40].any()
    assert all(ink[40 + 90 * i : 40 + 90 * (i + 1)].any() for i in range(4))


def test_nearest_lays_real_pictures_beside_generated_ones(
    model: Path, run: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    real = data.open(DataConfig(path=str(pictures), size=8, channels=3))
    out, sheet = tmp_path / "out", tmp_path / "near.png"
    ask = ["sample", str(model), "--prompt", SAID[0], "--seeds", "0-2", "--steps", "2", "--out", str(out), "--json"]
    assert main(ask) == 0
    drawn = [np.asarray(Image.open(each["path"])) for each in json.loads(capsys.readouterr().out)["pictures"]]
    ask = ["nearest", str(out), "--data", str(pictures), "--count", "2", "--grid", str(sheet), "--scale", "1", "--json"]
    assert main(ask) == 0
    near = json.loads(capsys.readouterr().out)
    x = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2) / 127.5 - 1
    found = nearest(x, real, 2)
    assert [[each["name"] for each in line["nearest"]] for line in near["pictures"]] == [
        [real.name(row) for row in rows] for rows in found.row.tolist()
    ]
    assert near["pictures"][1]["nearest"][0]["distance"] == pytest.approx(found.distance[1, 0].item())
    with Image.open(sheet) as shown:
        pixels = np.asarray(shown)
    margin = pixels.shape[1] - (3 * 11 + 3)  # the names; then three pictures a line, each 8 wide and 3 apart
    first = [pixels[3:11, margin + 3 + 11 * i : margin + 11 + 11 * i] for i in range(3)]
    expected = [drawn[0], *(real.pixels(row).transpose(1, 2, 0) for row in found.row[0].tolist())]
    assert all(np.array_equal(a, b) for a, b in zip(first, expected, strict=True))
    assert main([*ask, "--features", str(run), "--overwrite"]) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["by"] == "embeddings"
    embed = contrastive.load(run)
    expected_rows = nearest(x, real, 2, features=embed.pictures).row
    assert judged["pictures"][2]["nearest"][0]["name"] == real.name(int(expected_rows[2, 0]))


@pytest.mark.parametrize(
    ("words", "message"),
    [(["--features", "model"], "contains no contrastive model"), (["--count", "99"], "fewer than")],
)
def test_nearest_refuses_what_it_cannot_compare(
    words: list[str], message: str, model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(model) if word == "model" else word for word in words]
    sheet = tmp_path / "near.png"
    assert main(["nearest", str(pictures), "--data", str(pictures), "--grid", str(sheet), *words]) == 2
    assert message in capsys.readouterr().err
    assert not sheet.exists()
