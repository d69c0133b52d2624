"""A picture as bytes: what is received is what was sent, for about the bits that it should cost, or nothing wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

import unnoise
from tests.helpers.worlds import Gaussian, Mixture
from unnoise.cli import main as cli
from unnoise.compression import coder, compress, format
from unnoise.compression.coder import Message, Received
from unnoise.compression.symbols import Plan, SymbolReader, SymbolWriter
from unnoise.config.cards import ModelCard, ValueRange
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import TextConfig, UNetConfig
from unnoise.denoiser import Denoiser, Estimate, make_diffusion
from unnoise.errors import UserError
from unnoise.model import Model
from unnoise.nn import build
from unnoise.noise import normal
from unnoise.schedules import EDM, Cosine, CosineContinuous, Flow, LinearBeta, Schedule, VarianceExploding
from unnoise.text.tokenizer import Tokenizer

pytest.importorskip("constriction")
QUICK = Plan(bits=10, last=0.01)
SHAPE = (1, 8, 8)


def picture(seed: int, world: Gaussian | None = None) -> Tensor:
    world = world or Gaussian()
    return (world.mean + world.std * normal((1, *SHAPE), "picture", seed)).float()


def received(denoiser: Denoiser, sent: Message, plan: Plan, shape: tuple[int, ...] = SHAPE) -> list[Received]:
    return list(coder.receive(denoiser, shape, plan, sent.payload, sent.pieces))


def same(a: Received, b: Received) -> bool:
    return (a.bits, a.pieces, a.t) == (b.bits, b.pieces, b.t) and torch.equal(a.mean, b.mean)


# --- what arrives ---


@pytest.mark.parametrize("pick", ["nearest", "draw"])
@pytest.mark.parametrize("schedule", [LinearBeta(), Cosine(), CosineContinuous(), Flow(), VarianceExploding(), EDM()])
def test_each_step_arrives_bit_for_bit(schedule: Schedule, pick: str) -> None:
    denoiser, plan = Gaussian().denoiser(schedule), Plan(seed=3, bits=11, pick=pick, last=1e-4)
    sent = coder.send(denoiser, picture(0), plan, 120)
    back = received(denoiser, sent, plan)
    assert len(back) == len(sent.way) > 4
    assert all(same(a, b) for a, b in zip(sent.way, back, strict=True))
    assert all(before.t > after.t for before, after in pairwise(back))


def test_a_mixture_arrives_and_its_mode_is_known_early() -> None:
    modes = 0.8 * torch.sign(normal((4, 64), "modes"))
    world = Mixture(tuple(map(tuple, modes.tolist())), (0.25,) * 4, 0.1)
    denoiser, plan = world.denoiser(Cosine()), replace(QUICK, seed=1)
    x = (modes[2] + 0.1 * normal((64,), "x"))[None].float()
    sent = coder.send(denoiser, x, plan, 60)
    back = received(denoiser, sent, plan, (64,))
    assert all(same(a, b) for a, b in zip(sent.way, back, strict=True))
    assert (back[-1].mean - modes[2]).abs().max() < 0.2


def test_everything_lossy_brings_the_picture_to_the_last_noise() -> None:
    """At t = 1/T there is noise of sigma: the estimate of a wide world is as far off as that."""
    world = Gaussian(0.0, 0.5)
    x, denoiser = picture(5, world), world.denoiser(Cosine(steps=100))
    sent = coder.send(denoiser, x, QUICK, math.inf)
    back = received(denoiser, sent, QUICK)
    assert back[-1].t == QUICK.last
    sigma = Cosine(steps=100).at(QUICK.last).sigma.item()
    assert 0.5 < (back[-1].mean - x).square().mean().sqrt().item() / sigma < 1.4


def test_seeds_send_other_bits_and_the_budget_is_kept() -> None:
    denoiser = Gaussian().denoiser(Cosine())
    sent = [coder.send(denoiser, picture(0), replace(QUICK, seed=seed), 100) for seed in (0, 1)]
    assert sent[0].payload != sent[1].payload
    for each in sent:
        assert 80 < each.way[-1].bits < 104
        assert 8 * len(each.payload) < each.way[-1].bits + 12
    assert coder.send(denoiser, picture(0), QUICK, 3).payload == b""


def test_later_steps_bring_more_pieces() -> None:
    plan = Plan(bits=10, last=0.001)
    denoiser = Gaussian(0.0, 0.5).denoiser(CosineContinuous())
    x = 0.5 * normal((1, 1, 32, 32), "large")
    sent = coder.send(denoiser, x, plan, 1200)
    pieces = [after.pieces - before.pieces for before, after in pairwise(sent.way)]
    assert pieces[:17] == [1] * 17
    assert max(pieces[:-1]) == (sum(pieces[:-2])) // coder.SHARE
    assert all(same(a, b) for a, b in zip(sent.way, received(denoiser, sent, plan, (1, 32, 32)), strict=True))


# --- what it is written as ---

# version 2: 16 numbers, a search of 12 bits, label 2; four bytes stand for the model. No network was asked
GOLDEN = bytes.fromhex("756e7a02012345670c07030104040810c3ebe7ed611b27226ec0a97f649f9fb1b24f6b7e")
SYMBOLS = [
    (-3, 3220), (-5, 3133), (-6, 2461), (-8, 2522), (-9, 629), (-11, 3711), (-12, 1235), (-14, 3911),
]  # fmt: skip  # of each step, the error in half octaves, and which candidate


def test_files_of_version_2_are_read_and_written_as_ever() -> None:
    """Symbols, their laws and the range coder, both ways: nothing that the arithmetic of a machine decides."""
    with pytest.raises(UserError, match="written in version 1 of the format, this program reads version 2"):
        format.read(GOLDEN[:3] + b"\x01" + GOLDEN[4:], "earlier")
    file = format.read(GOLDEN, "golden")
    header = format.Header(bytes.fromhex("01234567"), 7, 12, False, 2, (1, 4, 4), len(SYMBOLS))
    assert file.header == header
    plan = Plan(seed=header.seed, bits=header.bits, last=0.004)
    reader, writer = SymbolReader(plan, file.payload, whole=True), SymbolWriter(plan)
    assert [(reader.level(), reader.index()) for _ in SYMBOLS] == SYMBOLS
    for level, index in SYMBOLS:
        assert writer.level(level) == level
        writer.index(index)
    assert format.write(header, writer.finish()) == GOLDEN
    seen = list(coder.receive(Gaussian(0.0, 0.5).denoiser(Flow()), header.shape, plan, file.payload, header.pieces))
    assert [step.pieces for step in seen] == list(range(len(SYMBOLS) + 1))
    assert seen[-1].bits == pytest.approx(119.65806398582818, abs=1e-9)
    ramp = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    assert (seen[-1].mean - ramp).square().mean().sqrt() < 0.1  # what was sent


# --- what it costs ---


@pytest.mark.parametrize("rate", [0.25, 0.5, 1.0, 2.0])
def test_the_file_keeps_its_promise_on_a_world_known_exactly(rate: float) -> None:
    """Within 10 % and 64 bytes of the accounted rate; and near what the rate-distortion function of a Gaussian allows.

    A Gaussian of variance v in R bits a number has no less than v 4^-R of squared error.
    """
    world, shape, plan = Gaussian(0.0, 0.5), (1, 16, 16), Plan(bits=14, last=1e-3)
    denoiser, errors, bits = world.denoiser(CosineContinuous()), [], []
    for k in range(3):
        x = world.std * normal((1, *shape), "promise", k)
        sent = coder.send(denoiser, x, replace(plan, seed=k), rate * 256)
        accounted = sent.way[-1].nats / math.log(2) / 8
        size = len(format.write(HEADER, sent.payload))
        assert size <= 1.1 * accounted + 64
        errors.append((sent.way[-1].mean - x).square().mean().item())
        bits.append(8 * len(sent.payload) / 256)
    ideal = math.log2(world.std**2 / (sum(errors) / len(errors))) / 2  # bits a number that so small an error needs
    assert 0.65 < ideal / (sum(bits) / len(bits)) < 1.05


def test_the_nearest_sends_more_divergence_for_its_bits_than_a_draw() -> None:
    """A draw also pays for which draw it is: some bits a piece. The nearest pays for the error's level alone."""
    world, denoiser = Gaussian(0.0, 0.5), Gaussian(0.0, 0.5).denoiser(CosineContinuous())

    def share(pick: str) -> float:
        plan = Plan(bits=14, pick=pick)
        ends = [coder.send(denoiser, picture(k, world), replace(plan, seed=k), 128).way[-1] for k in range(4)]
        return sum(end.nats for end in ends) / math.log(2) / sum(end.bits for end in ends)

    assert share("nearest") > 0.8
    assert 0.4 < share("draw") < 0.75


def test_another_arithmetic_sees_the_same_picture_but_for_its_last_digits() -> None:
    """The receiver's network is a little off, as on another machine: no symbol depends on it."""
    denoiser = Gaussian().denoiser(Cosine())

    def other(x: Tensor, t: Tensor) -> Estimate:
        mean = denoiser(x, t).mean
        return Estimate(mean + 1e-5 * normal(tuple(mean.shape), "off", round(t.item() * 1e9)))

    sent = coder.send(denoiser, picture(1), QUICK, 300)
    there = received(Denoiser(denoiser.schedule, other), sent, QUICK)
    assert [a.bits for a in there] == [b.bits for b in sent.way]
    assert (there[-1].mean - sent.way[-1].mean).abs().max() < 1e-3


# --- files that are not whole ---


def test_a_payload_cut_anywhere_gives_the_steps_that_are_certain() -> None:
    denoiser = Gaussian().denoiser(Cosine())
    for pick in ("nearest", "draw"):
        plan = replace(QUICK, pick=pick, bits=11)
        sent = coder.send(denoiser, picture(2), plan, 150)
        counts = []
        for length in range(len(sent.payload) + 1):
            cut = sent.payload[:length]
            back = list(coder.receive(denoiser, SHAPE, plan, cut, sent.pieces, whole=length == len(sent.payload)))
            assert all(same(a, b) for a, b in zip(sent.way, back))
            assert back[-1].bits <= 8 * length + 8 or length == len(sent.payload)
            assert back[-1].bits > 8 * length - 45  # no more than two pieces and the coder's tail are lost
            counts.append(len(back))
        assert counts == sorted(counts)
        assert counts[0] == 1
        assert counts[-1] == len(sent.way)


HEADER = format.Header(b"abcd", 7, 16, False, 3, (1, 8, 8), 300)


def test_a_file_says_what_was_written() -> None:
    for header in (HEADER, replace(HEADER, seed=2**63 - 1, draws=True, label=None, bits=24, shape=(3, 512, 130))):
        file = format.read(format.write(header, b"payload"), "a.un")
        assert file == format.File(header, b"payload", 7)
        assert file.whole
    assert len(format.write(replace(HEADER, seed=0), b"")) <= 22


def test_every_changed_byte_of_a_file_is_found_and_every_cut_is_seen() -> None:
    data = format.write(HEADER, bytes(range(40)))
    for place in range(len(data)):
        for change in (0x01, 0x80, 0xFF):
            spoilt = bytearray(data)
            spoilt[place] ^= change
            with pytest.raises(UserError, match=r"a\.un"):
                format.read(bytes(spoilt), "a.un")
    head = len(data) - 40 - 2
    for length in range(len(data)):
        if length < head:
            with pytest.raises(UserError, match=r"a\.un: (cut off|not a picture)"):
                format.read(data[:length], "a.un")
        else:
            file = format.read(data[:length], "a.un")
            assert file.header == HEADER
            assert file.payload == bytes(range(min(40, length - head)))
            assert file.whole == (length >= head + 40)
    with pytest.raises(UserError, match="3 bytes longer"):
        format.read(data + b"abc", "a.un")
    with pytest.raises(UserError, match="not a picture compressed by unnoise"):
        format.read(b"\x89PNG\r\n\x1a\n", "a.un")
    with pytest.raises(UserError, match="version 9"):
        format.read(format.MAGIC + b"\x09" + data[4:], "a.un")


# --- with a network: the whole way ---


def tiny(seed: int, classes: int = 0, channels: int = 1, **more: object) -> Model:
    net = UNetConfig(
        size=8,
        in_channels=channels,
        out_channels=channels,
        channels=(8, 8),
        blocks=1,
        attention=(False, True),
        groups=4,
        classes=classes,
        **more,  # type: ignore[arg-type]
    )
    process = DiffusionConfig(schedule="cosine", predicts="v", steps=100)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(net)
        for parameter in network.parameters():  # the last layers of a new network are zero
            torch.nn.init.normal_(parameter, std=0.1)
    names = tuple(f"class-{i}" for i in range(classes))
    card = ModelCard(net=net, process=process, size=(8, 8), channels=channels, classes=names)
    return Model(make_diffusion(network.eval().requires_grad_(False), process).eval(), card)


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny(0)


BYTES = (normal((1, 8, 8), "bytes") * 60 + 128).clamp(0, 255).to(torch.uint8)


@pytest.mark.parametrize("threads", [1, 2])
def test_a_network_decodes_what_its_sender_meant(model: Model, threads: int) -> None:
    before = torch.get_num_threads()
    sent = compress.send(model, BYTES, bits=0.8, search=10)
    torch.set_num_threads(threads)
    try:
        back = unnoise.decompress(model, sent.data)
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert torch.equal(back.pixels[0], sent.picture)
    assert sent.data == unnoise.compress(model, BYTES, bits=0.8, search=10)


def test_both_sides_are_conditioned_on_the_class() -> None:
    model = tiny(1, classes=3)
    sent = compress.send(model, BYTES, bits=0.6, search=10, label="class-2")
    back = unnoise.decompress(model, sent.data)
    assert back.labels == ("class-2",)
    assert torch.equal(back.pixels[0], sent.picture)
    without = compress.send(model, BYTES, bits=0.6, search=10)
    assert not torch.equal(without.way[0].mean, sent.way[0].mean)
    assert unnoise.decompress(model, without.data).labels == ("none",)


def test_a_model_of_text_and_numbers_has_null_conditions_on_both_sides() -> None:
    pytest.importorskip("tokenizers")
    model = tiny(2, text=TextConfig(vocabulary=300, length=8, width=8, depth=1, heads=2), values=1)
    words = [Tokenizer.learn(["a dog", "a cat"], vocabulary=300, length=length) for length in (8, 6)]
    model = replace(model, text=words[0], card=replace(model.card, values=(ValueRange("age", 0, 90),)))
    sent = compress.send(model, BYTES, bits=0.6, search=10)
    assert len(sent.way) > 1
    assert torch.equal(unnoise.decompress(model, sent.data).pixels[0], sent.picture)
    with pytest.raises(UserError, match="written with the model"):
        unnoise.decompress(replace(model, text=words[1]), sent.data)


def test_a_model_of_text_that_needs_a_class_is_conditioned_on_it() -> None:
    pytest.importorskip("tokenizers")
    model = tiny(2, classes=3, null_class=False, text=TextConfig(vocabulary=300, length=8, width=8, depth=1, heads=2))
    model = replace(model, text=Tokenizer.learn(["a dog", "a cat"], vocabulary=300, length=8))
    sent = compress.send(model, BYTES, bits=0.6, search=10, label="class-1")
    back = unnoise.decompress(model, sent.data)
    assert torch.equal(back.pixels[0], sent.picture)
    assert back.labels == ("class-1",)


def test_a_model_that_is_shown_a_picture_compresses_none() -> None:
    model = tiny(2, concat_channels=1)
    model = replace(model, card=replace(model.card, process=replace(model.card.process, concat="masked")))
    with pytest.raises(UserError, match="second picture"):
        compress.send(model, BYTES)


def test_a_cut_file_is_coarser_and_never_a_crash(model: Model) -> None:
    sent = compress.send(model, BYTES, bits=0.55, search=10)
    steps = []
    for length in range(len(sent.data)):
        try:
            steps.append(len(list(compress.receive(model, sent.data[:length]))))
        except UserError:
            steps.append(0)
    assert steps == sorted(steps)
    assert steps[0] == 0
    assert 1 in steps
    assert steps[-1] == len(sent.way) or steps[-1] == len(sent.way) - 1


def test_invalid_input_is_an_error_with_its_reason(model: Model) -> None:
    data = unnoise.compress(model, BYTES, bits=0.5, search=10)
    other = tiny(5)
    with pytest.raises(UserError) as wrong:
        unnoise.decompress(other, data)
    assert compress.fingerprint(model).hex() in str(wrong.value)
    assert compress.fingerprint(other).hex() in str(wrong.value)
    with pytest.raises(UserError, match=r"9x8.* this model's are 8x8 grey"):
        unnoise.compress(model, Image.new("L", (9, 8)))
    with pytest.raises(UserError, match="in colour"):
        unnoise.compress(model, Image.new("RGB", (8, 8), (1, 2, 3)))
    with pytest.raises(UserError, match="8x8 colour"):
        unnoise.compress(model, BYTES.expand(3, -1, -1))
    with pytest.raises(UserError, match="uint8"):
        unnoise.compress(model, BYTES.float())
    for wrong_way in ({"bits": 0.0}, {"bits": math.nan}, {"search": 30}, {"seed": -1}, {"pick": "best"}):
        with pytest.raises(UserError):
            compress.send(model, BYTES, **wrong_way)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="not conditioned on classes"):
        unnoise.compress(model, BYTES, label="shirt")
    file = format.read(data, "it")
    forged = format.write(replace(file.header, label=3), file.payload)
    with pytest.raises(UserError, match="its class is 3"):
        unnoise.decompress(model, forged)


def test_grey_in_a_colour_file_and_an_image_are_the_same_picture(model: Model) -> None:
    image = Image.fromarray(BYTES[0].numpy())
    for same_picture in (image, image.convert("RGB")):
        assert torch.equal(compress.pixels(model, same_picture), BYTES)


def test_the_package_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch, model: Model) -> None:
    monkeypatch.setitem(__import__("sys").modules, "constriction", None)
    with pytest.raises(UserError, match=r"pip install 'unnoise\[coder\]'"):
        unnoise.compress(model, BYTES)


# --- the command line ---


def test_the_commands_write_and_read_files(tmp_path: Path, model: Model, capsys: pytest.CaptureFixture[str]) -> None:
    model.save(tmp_path / "model")
    Image.fromarray(BYTES[0].numpy()).save(tmp_path / "a.png")
    how = ["--model", str(tmp_path / "model")]
    file, out, strip = (str(tmp_path / name) for name in ("a.un", "b.png", "strip.png"))
    ask = ["compress", str(tmp_path / "a.png"), *how, "-o", file, "--bits", "0.6", "--search", "10", "--json"]
    assert cli.main(ask) == 0
    assert f'"bytes": {Path(file).stat().st_size}' in capsys.readouterr().out
    assert cli.main(ask) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert cli.main(["decompress", file, *how, "-o", out, "--strip", strip]) == 0
    shown = torch.from_numpy(__import__("numpy").array(Image.open(out)))
    assert torch.equal(shown, compress.send(model, BYTES, bits=0.6, search=10).picture[0])
    assert Image.open(strip).width > Image.open(strip).height
    capsys.readouterr()
    Path(file).write_bytes(Path(file).read_bytes()[:-3])
    assert cli.main(["decompress", file, *how, "-o", out, "--overwrite"]) == 0
    assert "cut off" in capsys.readouterr().err
    for wrong in (["decompress", str(tmp_path / "a.png")], ["decompress", str(tmp_path / "none.un")]):
        assert cli.main([*wrong, *how, "-o", str(tmp_path / "c.png")]) == 2
        assert "Traceback" not in capsys.readouterr().err
    assert not (tmp_path / "c.png").exists()
    assert cli.main(["compress", file, *how, "-o", str(tmp_path / "d.un")]) == 2
