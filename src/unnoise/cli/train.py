"""`unnoise train`: one command to start a training, and the same command to go on with it. `unnoise presets`.

What is asked is a TrainConfig, or that of a classifier: a preset or a file, then what the data says, then --set. Every
value knows where it comes from; --dry-run shows it.
"""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from unnoise.cli.console import DONE, UsageError, asking, emit, existing, say, show, started, table, writable
from unnoise.cli.data import present
from unnoise.cli.options import flag, keys_of, option
from unnoise.cli.progress import Progress
from unnoise.config import convert, files, validate
from unnoise.config.networks import UNetConfig
from unnoise.config.presets import CLASSIFIERS, PRESETS
from unnoise.config.training import ClassifierConfig, ContrastiveConfig, NoisyClassifierConfig, TrainConfig
from unnoise.errors import unknown
from unnoise.io.units import duration, human

if TYPE_CHECKING:
    from unnoise.training.distributed import Processes
    from unnoise.training.loop import Tick

Config = TrainConfig | ClassifierConfig | NoisyClassifierConfig | ContrastiveConfig

ALL = {**PRESETS, **CLASSIFIERS}


@dataclass(frozen=True)
class Asked:
    """A training as it was asked for: every value, and where it comes from."""

    config: Config
    origins: Mapping[str, str]  # dotted name: "default", "preset fashion", "my.yaml:12", "--set", ...

    def said(self, name: str) -> bool:
        """Whether a person said it, in a file or on the command line, rather than a preset or nobody."""
        where = self.origins.get(name, "")
        return where.startswith("--") or ":" in where

    def having(self, values: Mapping[str, Any], origin: str) -> Asked:
        """With some values replaced, which come from `origin`."""
        new = convert.override(self.config, values, origin)
        changed = convert.differences(self.config, new)
        kept = {name: where for name, where in self.origins.items() if name in convert.flat(new)}
        return Asked(new, kept | dict.fromkeys(changed.keys() & convert.flat(new).keys(), origin))


def ask(
    what: str, *, data: str | None = None, sets: Sequence[str] = (), device: str | None = None, name: str | None = None
) -> Asked:
    """The training that these words mean. UsageError where they mean none."""
    with asking():
        asked = begin(what)
        if data is not None:
            asked = asked.having({"data.path": data}, "--data")
        if device is not None:
            asked = asked.having({"device": device}, "--device")
        if name is not None:
            asked = asked.having({"name": name}, "--name")
        if sets:
            asked = asked.having(dict(pair(text) for text in sets), "--set")
        if not isinstance(asked.config, ClassifierConfig):
            asked = sized(asked, asked.config)
        if isinstance(asked.config, TrainConfig | NoisyClassifierConfig):
            validate.check(asked.config)
    return asked


def sized(asked: Asked, config: TrainConfig | NoisyClassifierConfig | ContrastiveConfig) -> Asked:
    """With a network for pictures of this size and these channels, where nobody said for which."""
    data = config.data
    implied = {"net.size": ("data.size", data.size), "net.in_channels": ("data.channels", data.channels)}
    if isinstance(config, TrainConfig) and isinstance(config.net, UNetConfig):
        implied["net.values"] = ("many as data.values", len(data.values))
        joined = validate.concat_channels(config.process, data.channels)
        implied["net.concat_channels"] = ("process.concat", joined)
    if not isinstance(config, ContrastiveConfig):
        outputs = data.channels * (2 if config.process.learned_variance else 1)
        implied["net.out_channels"] = ("data.channels", outputs)
    flat = convert.flat(config)
    for name, (source, value) in implied.items():
        if not asked.said(name) and flat[name] != value:
            asked = asked.having({name: value}, f"as {source}")
    return asked


def pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise UsageError(f"--set {text}: write it as key=value, for example --set lr=1e-4")
    return name.strip(), value.strip()


def begin(what: str) -> Asked:
    """What a preset's name, a file or a run says."""
    if what in ALL:
        preset: Config = ALL[what]()
        return Asked(preset, origins(preset, f"preset {what}"))
    path = Path(what)
    if path.is_dir():
        if not (path / "config.yaml").is_file():
            raise UsageError(f"{what} is a folder without config.yaml: not a run. Name a preset, and --data {what}")
        path = path / "config.yaml"
    if path.is_file():
        return from_file(path)
    if path.suffix in (".yaml", ".yml", ".json"):
        existing(path, "configuration")
    raise UsageError(f"{unknown('preset', what, ALL)}; a configuration file ends in .yaml")


def from_file(path: Path) -> Asked:
    data, lines = files.read(path)
    kinds: tuple[type[Config], ...] = (TrainConfig, ClassifierConfig, NoisyClassifierConfig, ContrastiveConfig)
    kind = max(kinds, key=lambda kind: len(data.keys() & {field.name for field in dataclasses.fields(kind)}))
    config = convert.from_dict(kind, data, str(path), lines=lines)
    where = dict.fromkeys(convert.flat(config), "default")
    where |= {name: f"{path}:{line}" for key, line in lines.items() if (name := ".".join(key)) in where}
    return Asked(config, where)


def origins(config: Config, where: str) -> dict[str, str]:
    """`where` for every value that is not the dataclass's own default."""
    plain = convert.flat(type(config)())
    return {
        name: "default" if name in plain and plain[name] == value else where
        for name, value in convert.flat(config).items()
    }


def fitting(asked: Asked, classes: int) -> Asked:
    """With as many classes as the data has, where nobody said how many and the network does not hear words instead."""
    if isinstance(asked.config, ClassifierConfig | ContrastiveConfig) or asked.config.net.classes == classes:
        return asked
    hears = getattr(asked.config.net, "text", None) or getattr(asked.config, "encoder", None)
    if asked.said("net.classes") or hears is not None:
        return asked
    return asked.having({"net.classes": classes}, f"the data ({classes} classes)")


def presets(
    name: Annotated[str | None, option("show this one whole, as a configuration file to start from")] = None,
    *,
    json: Annotated[bool, flag("one JSON document on stdout")] = False,
) -> None:
    """List the trainings that come with the package, or show one whole.

    unnoise presets fashion > my.yaml gives a file to change and train from.
    """
    if name is None:
        about = {key: (make.__doc__ or "").strip().splitlines()[0] for key, make in ALL.items()}
        if json:
            emit(about)
        else:
            show(table(list(about.items()), ragged=True))
            say("\nShow one whole: unnoise presets NAME. Train: unnoise train NAME [--data PATH] [--set key=value]")
        return
    if name not in ALL:
        raise UsageError(str(unknown("preset", name, ALL)))
    config = begin(name).config
    if json:
        emit(convert.to_dict(config))
    else:
        show(files.dumps(config).rstrip())


def preset_help() -> str:
    return "one of " + ", ".join(ALL) + "; or a configuration file; or a run to go on with"


def train(
    what: Annotated[str, option(preset_help())],
    /,
    *,
    data: Annotated[str | None, option("the pictures: a folder, a file, or a set that comes with the package")] = None,
    set: Annotated[
        tuple[str, ...], option("key=value: replaces a setting; the end of its name is enough where that is unique")
    ] = (),
    out: Annotated[Path, option("the folder of runs", "--outdir")] = Path("runs"),
    name: Annotated[str | None, option("the run's name, instead of the preset's")] = None,
    resume: Annotated[
        str, option("auto: go on with the newest run of these settings; never; or a run's path")
    ] = "auto",
    device: Annotated[str | None, option("auto, cpu, cuda, cuda:1, mps")] = None,
    dry_run: Annotated[
        bool, flag("show the settings, their origins, the cost and the data; start nothing", "-n")
    ] = False,
    json: Annotated[bool, flag("one JSON document on stdout at the end")] = False,
) -> int:
    """Train a diffusion model, or a classifier, on your pictures. The same command again goes on where it stopped.

    Ctrl-C or SIGTERM finishes the step, writes a checkpoint and leaves with 130 or 143; a second one leaves at once.
    Under torchrun the processes share each batch.
    """
    asked = ask(what, data=data, sets=set, device=device, name=name)
    with asking():
        own_pictures(what, asked)
        if resume not in ("auto", "never"):
            existing(Path(resume) / "config.yaml", "run's configuration")
    writable(out, "runs", folder=True)
    from unnoise.data.registry import find

    asked = fitting(asked, len(find(asked.config.data.path).classes))
    if isinstance(asked.config, TrainConfig):
        from unnoise import losses

        with asking():
            losses.check(asked.config.process)
            if not dry_run:
                validate.check_base(asked.config)
    if dry_run:
        plan = planned(asked)
        emit(plan) if json else show(plan_text(plan))
        return DONE
    from unnoise.acceleration.placement import best
    from unnoise.training.distributed import processes

    with asking():
        kind = best(device or asked.config.device).device.partition(":")[0]
    with processes(os.environ, kind) as together:
        with together.together():
            path = place(out, asked.config, resume, Path(what)) if together.first else out
            if together.first:
                announce(asked.config, path, together.world)
        code = follow(asked.config, path, together)
    if together.first:
        report = outcome(path, asked.config) | {"exit_code": code}
        emit(report) if json else show(str(path))
        say(next_steps(path, asked.config) if code == DONE else "saved; the same command goes on")
    return code


def own_pictures(what: str, asked: Asked) -> None:
    """Raises UsageError where the pictures are not there; of a preset for pictures of one's own, with what to type."""
    path = asked.config.data.path
    if asked.origins.get("data.path") != f"preset {what}" or path in keys_of("data/registry.py", "SETS"):
        present(path)
    elif not Path(path).exists():
        captions = isinstance(asked.config, TrainConfig) and (asked.config.net.text or asked.config.encoder)
        with_them = ", with a caption each: a text file of the same name beside it, or a metadata.jsonl with a line "
        with_them += '{"file_name": "cat.png", "text": "a cat"} a picture'
        raise UsageError(
            f"the preset {what} trains on pictures that you bring{with_them if captions else ''}. Say where they are: "
            f"unnoise train {what} --data ./{'pictures-with-captions' if captions else 'pictures'}"
        )


def place(out: Path, config: Config, resume: str, what: Path) -> Path:
    """The run's directory: the one that was named, the newest of these settings, or a new one."""
    from unnoise.training import run

    if resume not in ("auto", "never"):
        return Path(resume)
    if resume == "auto" and (what / "config.yaml").is_file():
        return what
    return run.choose(out, config, resume=resume == "auto")


def follow(config: Config, path: Path, together: Processes, *, silent: bool = False) -> int:
    """Train in `path` to the end, or to a signal, with a bar; the exit code.

    Raises UsageError where it cannot start, and then leaves no empty directory that would count as a run.
    """
    from unnoise.training import run as runs
    from unnoise.training.loop import steps
    from unnoise.training.signals import Stopped

    total, start = steps(config.fit), runs.status(path)["step"] if (path / "config.yaml").is_file() else 0
    bar = Progress(total, "training", start=start, every=config.log.log_every, silent=silent or not together.first)
    loss = rate = 0.0
    with bar:
        try:
            for tick in started(ticks(config, path, together)):
                keep = min(0.98, 1 - 1 / (tick.step - start + 1))
                loss, rate = keep * loss + (1 - keep) * tick.loss, keep * rate + (1 - keep) * tick.rate
                bar.step(tick.step, f"{human(tick.images)} pictures, loss {loss:.4f}, {rate:.0f} pictures/s")
                if "not saved" in tick.event or "skipped" in tick.event:
                    bar.say(f"step {tick.step}: {tick.event}")
        except UsageError:
            with suppress(OSError):  # it holds something
                path.rmdir()
            raise
        except Stopped as stopped:
            bar.say(f"{signal.Signals(stopped.number).name}: stopped after a checkpoint")
            return 128 + stopped.number
    return DONE


def ticks(config: Config, path: Path, together: Processes) -> Iterator[Tick]:
    """The ticks of a training of this kind."""
    from unnoise.recipes import classifier, contrastive, diffusion, noisy_classifier

    if isinstance(config, TrainConfig):
        return diffusion.train(config, path, processes=together, command=sys.argv)
    recipes = {
        ClassifierConfig: classifier.train,
        NoisyClassifierConfig: noisy_classifier.train,
        ContrastiveConfig: contrastive.train,
    }
    return held(recipes[type(config)], config, path, together)


def held(recipe: Any, config: Config, path: Path, together: Processes) -> Iterator[Tick]:
    """A recipe that is given its run held."""
    from unnoise.training.run import open_run

    with ExitStack() as stack:
        with together.together():
            run = stack.enter_context(open_run(path, config, command=sys.argv)) if together.first else None
        yield from recipe(config, run, processes=together)


# ------------------------------------------------------------------------------------- before it starts


def announce(config: Config, path: Path, world: int) -> None:
    """Where it trains, how far it is, and what it will take, before it starts."""
    from unnoise.training import run as runs
    from unnoise.training.loop import steps

    at = runs.status(path) if (path / "config.yaml").is_file() else {"step": 0, "images": 0}
    total = steps(config.fit)
    if at["step"] >= total:
        say(f"{path} is finished already: {at['images']:,} pictures. Ask for more with --set fit.images=...")
    elif at["step"]:
        say(f"{path} goes on at step {at['step']:,} of {total:,}")
    else:
        base = config.base if isinstance(config, TrainConfig) else ""
        say(f"{path} begins with {base}" if base else f"{path} begins")
        if isinstance(config, TrainConfig):
            from unnoise.recipes.cost import cost

            say(cost_text(cost(config).as_dict(), world))


def cost_text(cost: Mapping[str, Any], processes: int = 1) -> str:
    """What a training will take, in a line."""
    rate, seconds = processes * cost["images_per_second"], cost["seconds"] / processes
    return (
        f"{human(cost['parameters'])} parameters, {human(cost['flops'])}FLOP a picture (three times that to train), "
        f"{human(cost['memory'])}B of memory, {human(cost['images'])} pictures in {cost['steps']:,} steps; "
        f"about {rate:.3g} pictures a second on {cost['device']} in {cost['precision']}: {duration(seconds)}"
    )


def planned(asked: Asked) -> dict[str, Any]:
    """Everything that would be, as a JSON document; nothing is written."""
    from unnoise import data
    from unnoise.data.summary import describe

    pictures = data.open(asked.config.data)
    plan: dict[str, Any] = {
        "settings": convert.to_dict(asked.config),
        "origins": dict(asked.origins),
        "data": describe(pictures),
    }
    if isinstance(asked.config, TrainConfig):
        from unnoise.recipes.cost import cost
        from unnoise.recipes.model_card import describe as card

        with asking():
            card(asked.config, pictures)
        plan["cost"] = cost(asked.config).as_dict()
    return plan


def plan_text(plan: Mapping[str, Any]) -> str:
    rows = []
    for name, where in plan["origins"].items():
        value: Any = plan["settings"]
        for part in name.split("."):
            value = value[part]
        said = "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
        rows.append((name, said, "" if where == "default" else where))
    data = plan["data"]
    broken = f", {data['broken']['count']} broken" if data["broken"]["count"] else ""
    parts = [
        table(rows, head=("setting", "value", "origin (otherwise the default)"), ragged=True),
        f"data: {data['count']:,} pictures of {data['where']}, {len(data['classes'])} classes, "
        f"{data['captions']['count']:,} captions{broken}",
    ]
    if "cost" in plan:
        parts.append(f"cost: {cost_text(plan['cost'])}")
    return "\n\n".join(parts)


# --------------------------------------------------------------------------------------------- after it


def outcome(path: Path, config: Config) -> dict[str, Any]:
    """How far the run is, and its last numbers."""
    from unnoise.cli.inspect import last_metrics, read_json
    from unnoise.training import run as runs

    found: dict[str, Any] = {"run": str(path), "last": last_metrics(path / "metrics.jsonl")}
    if isinstance(config, TrainConfig):
        return found | runs.status(path)
    kind = "contrastive" if isinstance(config, ContrastiveConfig) else "classifier"
    card = path / kind / f"{kind}.json"
    if not card.is_file():
        return found
    if isinstance(config, ContrastiveConfig):
        return found | {"retrieval": read_json(card)["card"]["info"]["retrieval"]}
    if isinstance(config, NoisyClassifierConfig):
        return found | {"accuracy": read_json(card)["card"]["info"]["accuracy"]}
    return found | {"accuracy": read_json(card).get("accuracy")}


def next_steps(path: Path, config: Config) -> str:
    if isinstance(config, TrainConfig):
        return f"draw from it: unnoise sample {path} --seeds 0-63 --grid grid.png"
    done = outcome(path, config)
    if isinstance(config, ContrastiveConfig):
        found = [
            f"{each['first']['value']:.1%} of {each['n']:,} pictures of {each['data']} find their caption among "
            f"{each['among']:,}."
            for each in done.get("retrieval", ())
        ]
        return " ".join([*found, f"Judge by it: unnoise evaluate MODEL --metrics retrieval --judge {path}"])
    accuracy = done.get("accuracy") or {}
    if isinstance(config, NoisyClassifierConfig):
        right = ", ".join(f"{value:.0%} at t = {t}" for t, value in accuracy.items())
        return f"right on {right}. Guide by it: unnoise sample MODEL --guidance 0 --classifier {path}"
    said = f"right on {100 * accuracy['value']:.1f} % of {accuracy['n']:,} held-out pictures. " if accuracy else ""
    return f"{said}judge by it: unnoise evaluate MODEL --features {path / 'classifier'}"
