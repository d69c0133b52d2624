"""Captions encoded by frozen text encoders: as transformers computes them, once, the same from memory and from disk."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.helpers.pretend_device import DEVICE, PretendDevice
from tests.helpers.tiny_training import contents, launch, same
from unnoise import model
from unnoise.config.cards import ModelCard
from unnoise.config.data import DataConfig
from unnoise.config.diffusion import DiffusionConfig
from unnoise.config.networks import EncoderConfig, UNetConfig
from unnoise.config.training import Fit, LogConfig, TrainConfig
from unnoise.errors import UserError
from unnoise.formats.directory import load_text_encoder
from unnoise.generate.captions import encode_captions
from unnoise.recipes.diffusion import train
from unnoise.text.pretrained import Encoder
from unnoise.training.distributed import Processes

transformers = pytest.importorskip("transformers")
tokenizers = pytest.importorskip("tokenizers")

CAPTIONS = ["a red circle on white", "a blue square", ""]


def fast_tokenizer(pad: str, begin: str | None, end: str):
    """A word-level tokenizer, as published folders contain one."""
    words = [
        "<unk>",
        "<pad>",
        "<begin>",
        "<end>",
        *["a", "red", "blue", "green", "circle", "square", "triangle", "on", "white", "black"],
    ]
    lib = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    )
    lib.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    single = f"{begin} $A {end}" if begin else f"$A {end}"
    special = [(name, words.index(name)) for name in (begin, end) if name]
    lib.post_processor = tokenizers.processors.TemplateProcessing(single=single, special_tokens=special)
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=lib, unk_token="<unk>", pad_token=pad, bos_token=begin, eos_token=end
    )


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    base = tmp_path_factory.mktemp("encoders")
    torch.manual_seed(0)
    clip = transformers.CLIPTextConfig(
        vocab_size=20, hidden_size=16, intermediate_size=32, num_hidden_layers=3, num_attention_heads=2,
        max_position_embeddings=12, eos_token_id=3, bos_token_id=2, pad_token_id=3,
    )  # fmt: skip
    transformers.CLIPTextModel(clip).save_pretrained(base / "clip")
    fast_tokenizer("<end>", "<begin>", "<end>").save_pretrained(base / "clip")
    t5 = transformers.T5Config(vocab_size=20, d_model=24, d_kv=8, d_ff=32, num_layers=2, num_heads=3)
    transformers.T5EncoderModel(t5).save_pretrained(base / "t5")
    fast_tokenizer("<pad>", None, "<end>").save_pretrained(base / "t5")
    return base


def test_clip_is_read_with_its_padding(folders):
    encoder = Encoder(EncoderConfig(path=str(folders / "clip"), length=9))
    cond = encoder.encode(CAPTIONS)
    assert encoder.width == 16
    assert cond.mask is None
    ids = torch.full((3, 9), 3)  # padded with the end
    ids[0, :6] = torch.tensor([2, 4, 5, 8, 11, 12])
    ids[1, :4] = torch.tensor([2, 4, 6, 9])
    ids[2, :1] = 2
    theirs = transformers.CLIPTextModel.from_pretrained(folders / "clip")
    with torch.no_grad():
        found = theirs(input_ids=ids, output_hidden_states=True)
    torch.testing.assert_close(cond.text, found.last_hidden_state)
    penultimate = Encoder(EncoderConfig(path=str(folders / "clip"), length=9, layer=-2)).encode(CAPTIONS).text
    norm = getattr(theirs, "text_model", theirs).final_layer_norm
    torch.testing.assert_close(penultimate, norm(found.hidden_states[-2]).detach())
    assert not torch.allclose(penultimate, cond.text, atol=1e-3)


def test_the_padding_of_t5_is_masked(folders):
    encoder = Encoder(EncoderConfig(path=str(folders / "t5"), length=8, masked=True))
    cond = encoder.encode(CAPTIONS)
    assert encoder.width == 24
    assert cond.mask.sum(1).tolist() == [6, 4, 1]  # words and the end
    alone = transformers.T5EncoderModel.from_pretrained(folders / "t5")
    with torch.no_grad():
        right = alone(input_ids=torch.tensor([[4, 6, 9, 3]])).last_hidden_state
    torch.testing.assert_close(cond.text[1:2, :4], right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", ["clip", "t5"])
def test_captions_are_encoded_on_the_device_and_kept_on_the_cpu(folders, kind):
    config = EncoderConfig(path=str(folders / kind), length=9, masked=kind == "t5")
    right = Encoder(config).encode(CAPTIONS).text
    encoder = Encoder(config)
    with PretendDevice() as device:
        encode_captions(encoder, CAPTIONS, device=DEVICE)
        assert device.seen
    assert encoder._net.device.type == "cpu"
    torch.testing.assert_close(encoder.encode(CAPTIONS).text, right)


def test_processes_divide_the_captions(folders, tmp_path):
    """Each encodes a part, with the empty caption; all know all, and one writes the cache."""
    children = launch(tmp_path / "said", divided, str(folders / "clip"), str(tmp_path / "cache"), world=3)
    assert [child.end(120) for child in children] == [0, 0, 0], [child.said() for child in children]
    assert sum(int(child.said().splitlines()[-1]) for child in children) == len(CAPTIONS)
    assert len(list((tmp_path / "cache").iterdir())) == 1


def divided(who: Processes, path: str, cache: str) -> None:
    config = EncoderConfig(path=path, length=9)
    right = Encoder(config).encode(CAPTIONS).text
    encoder, encoded, encode = Encoder(replace(config, cache=cache)), [], Encoder._encode
    Encoder._encode = lambda self, captions: encoded.extend(captions) or encode(self, captions)
    encode_captions(encoder, reversed(CAPTIONS), processes=who)
    torch.testing.assert_close(encoder.encode(CAPTIONS).text, right)
    print(len(encoded), flush=True)


def test_long_captions_are_truncated(folders):
    encoder = Encoder(EncoderConfig(path=str(folders / "clip"), length=5))
    assert encoder.truncated("a red circle on white") == "on white"
    assert encoder.truncated("a red circle") == ""
    assert encoder.encode(["a red circle on white"]).text.shape == (1, 5, 16)


def test_captions_are_encoded_once_and_cached_on_disk(folders, tmp_path, monkeypatch):
    config = EncoderConfig(path=str(folders / "clip"), length=9, cache=str(tmp_path / "cache"))
    first = Encoder(config)
    encode_captions(first, CAPTIONS[:2])
    assert set(first.embeddings) == set(CAPTIONS)  # the empty one too: the null row
    (file,) = (tmp_path / "cache").iterdir()
    second = Encoder(config)
    monkeypatch.setattr(Encoder, "_encode", lambda self, captions: pytest.fail("encoded again"))
    encode_captions(second, reversed(CAPTIONS))
    assert torch.equal(second.encode(CAPTIONS).text, first.encode(CAPTIONS).text)
    monkeypatch.undo()
    file.write_bytes(file.read_bytes()[:100])  # damaged: encoded anew
    third = Encoder(config)
    encode_captions(third, CAPTIONS)
    assert torch.equal(third.encode(CAPTIONS).text, first.encode(CAPTIONS).text)


def test_another_encoder_in_the_same_folder_is_not_read_from_the_cache(folders, tmp_path):
    import shutil

    place = tmp_path / "here"
    shutil.copytree(folders / "clip", place)
    config = EncoderConfig(path=str(place), length=9, cache=str(tmp_path / "cache"))
    old = Encoder(config)
    encode_captions(old, CAPTIONS)
    torch.manual_seed(1)
    transformers.CLIPTextModel(transformers.CLIPTextConfig.from_pretrained(place)).save_pretrained(place)
    new = Encoder(config)
    encode_captions(new, CAPTIONS)
    assert not torch.allclose(new.encode(CAPTIONS).text, old.encode(CAPTIONS).text, atol=1e-3)


def test_a_network_is_trained_and_sampled_with_it(folders, tmp_path):
    config = TrainConfig(
        data=DataConfig(path="shapes-one:test", size=16, channels=3),
        net=UNetConfig(size=16, channels=(8, 16), blocks=1, attention=(False, True), groups=4, context=24),
        encoder=EncoderConfig(path=str(folders / "t5"), length=10, masked=True, cache=str(tmp_path / "cache")),
        process=DiffusionConfig(schedule="cosine", predicts="v", weight="snr-plus-one"),
        fit=Fit(images=4 * 8, batch=8, lr=3e-3, warmup=2, ema=(64,), precision="float32"),
        log=LogConfig(log_every=4, grid_every=0, checkpoint_steps=2),
    )
    list(train(config, tmp_path / "run"))
    loaded = model.load(tmp_path / "run")
    assert loaded.card.encoder.path == str((folders / "t5").resolve())
    red, blue = loaded.sample(prompts=("a red circle", "a blue square"), seeds=(1, 1), steps=2, guidance=3.0).pixels
    assert red.shape == blue.shape == (3, 16, 16)
    for tick in train(config, tmp_path / "again"):
        if tick.step == 2:
            break
    list(train(config, tmp_path / "again"))
    assert same(contents(tmp_path / "again"), contents(tmp_path / "run"))
    wrong = replace(config, net=replace(config.net, context=16))
    with pytest.raises(UserError, match=r"net.context 16 should be 24"):
        next(train(wrong, tmp_path / "wrong"))


def test_folders_without_an_encoder_are_refused(tmp_path):
    with pytest.raises(UserError, match="there is no text encoder at"):
        Encoder(EncoderConfig(path=str(tmp_path / "nowhere"))).encode(["a"])
    with pytest.raises(UserError, match=r"encoder.path is empty"):
        Encoder(EncoderConfig()).encode(["a"])
    (tmp_path / "bert").mkdir()
    (tmp_path / "bert" / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(UserError, match="is a bert: give a text encoder of CLIP or T5"):
        Encoder(EncoderConfig(path=str(tmp_path / "bert"))).encode(["a"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="cannot be loaded"):
        Encoder(EncoderConfig(path=str(tmp_path / "empty"))).encode(["a"])


def test_repeated_captions_are_encoded_once_and_cache_keys_differ(folders, tmp_path):
    encoder = Encoder(EncoderConfig(path=str(folders / "clip"), length=9, cache=str(tmp_path)))
    assert encoder._file(["", "a\nb", "c"]) != encoder._file(["", "a", "b\nc"])
    twice = encoder.encode(["a red circle", "", "a red circle"]).text
    assert torch.equal(twice[0], twice[2])
    assert set(encoder.embeddings) == {"a red circle", ""}  # each was encoded once


def test_another_revision_on_the_hub_has_another_cache_file(folders, tmp_path, monkeypatch):
    """The revision of a name on the hub is part of the cache key."""
    monkeypatch.chdir(tmp_path)
    real = transformers.AutoConfig.from_pretrained(str(folders / "clip"))

    def from_pretrained(path: str, **rules: bool) -> transformers.PretrainedConfig:
        assert path == "someone/clip"
        return real

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", from_pretrained)
    files = []
    for real._commit_hash in ("a" * 40, "b" * 40, "a" * 40):
        files.append(Encoder(EncoderConfig(path="someone/clip", cache="kept"), local=False)._file(["a red circle"]))
    assert files[0] == files[2] != files[1]


def test_the_encoder_of_a_card_is_read_from_this_machine_only(folders, tmp_path):
    """A name on the hub in a model's card opens no connection (tests/conftest.py refuses any), and a folder is read."""
    card = ModelCard(net=UNetConfig(context=16), encoder=EncoderConfig(path="someone/some-encoder"))
    encoder = load_text_encoder(card, tmp_path)
    with pytest.raises(UserError, match="some-encoder is not on this machine"):
        encoder.encode(["a"])
    here = replace(card, encoder=EncoderConfig(path=str(folders / "clip"), length=9))
    assert load_text_encoder(here, tmp_path).encode(["a red circle"]).text.shape == (1, 9, 16)


def test_code_beside_an_encoder_is_not_run(folders, tmp_path):
    """A configuration that names a Python file of its own (auto_map) is refused without a question."""
    (tmp_path / "config.json").write_text('{"model_type": "mine", "auto_map": {"AutoConfig": "mine.Mine"}}')
    (tmp_path / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="cannot be loaded"):
        Encoder(EncoderConfig(path=str(tmp_path))).encode(["a"])
    assert not (tmp_path / "ran").exists()


def test_a_prompt_that_is_not_unicode_is_refused(folders):
    encoder = Encoder(EncoderConfig(path=str(folders / "clip"), length=9))
    many = (lambda text: encoder.encode([text])), (lambda text: encode_captions(encoder, [text]))
    for encode in (*many, encoder.truncated):
        with pytest.raises(UserError, match=r"remove \\udcff"):
            encode("a cat\udcff")
