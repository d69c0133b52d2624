"""`unnoise`: the app, and what becomes of errors.

A command's module is imported when the command is asked for, and torch by the command when its question has been
read and found good: `unnoise --help` takes a tenth of a second.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata

from cyclopts import App, CycloptsError, Parameter

from unnoise.cli.console import DONE, FAILED, INTERRUPTED, USAGE, UsageError, say
from unnoise.cli.options import shown
from unnoise.errors import UserError, unknown

COMMANDS = {  # name: (where, what it does)
    "demo": ("demo:demo", "Train, draw and measure on embedded pictures; write a report. Start here."),
    "train": ("train:train", "Train a diffusion model, or a classifier, on your pictures."),
    "sample": ("sample:sample", "Draw pictures from a model."),
    "evaluate": ("evaluate:evaluate", "Measure how good a model's pictures are."),
    "compare": ("tables.compare:compare", "Draw with several samplers from the same noise, and say which one to take."),
    "table": ("", "The papers' tables, over a model of your own."),
    "nearest": ("nearest:nearest", "Show generated pictures beside the nearest real ones."),
    "invert": ("invert:invert", "Find the noise from which a picture is sampled."),
    "interpolate": ("interpolate:interpolate", "Interpolate between pictures: strips and planes."),
    "vary": ("vary:vary", "Generate pictures that share the first part of their walk."),
    "compress": ("compress:compress", "Write a picture as a file of a few bytes, coarse to fine, with a model."),
    "decompress": ("compress:decompress", "Read a compressed picture, all of it or its beginning."),
    "info": ("inspect:info", "Read how a picture was made, or describe a run or a model."),
    "data": ("data:data", "Look at a set of pictures before training on it."),
    "presets": ("train:presets", "List the trainings that come with the package, or show one whole."),
    "export": ("export:export", "Write a model as a diffusers folder."),
    "doctor": ("doctor:doctor", "Say what this machine has, what is fast on it, and what is missing."),
    "completion": ("inspect:completion", "Print the script that teaches a shell to complete unnoise's commands."),
}

TABLES = {  # each a file of tables/, and the function in it
    "ddim": "Steps by eta: how good few steps are, with fresh noise and without.",
    "ddpm": "Six trainings: what to ask the network for, and what to minimise.",
    "guidance": "Fidelity against diversity: what guidance buys at each scale, and what it costs.",
    "inversion": "Pictures to noise and back: what is left of them.",
}

EPILOGUE = """\
First steps:
  unnoise demo                              some minutes; ends in a report
  unnoise train fashion
  unnoise sample runs/00001-fashion --seeds 0-63 --grid grid.png
  unnoise info grid.png

Exit codes: 0 done, 1 failed, 2 asked wrongly, 130 interrupted,
143 terminated (a training writes a checkpoint before 130 and 143).
Environment: NO_COLOR; UNNOISE_TRACEBACK=1 shows where an error comes from."""


EXAMPLES = {
    "sample": """\
Examples:
  unnoise sample runs/00001-fashion --seeds 0-63 --grid grid.png
  unnoise sample runs/00001-fashion --label sneaker --seeds 0-7 --guidance 2
  unnoise sample runs/00001-emoji --prompt "a cat" --guidance 3

A picture depends on its seed, what is said of it and the settings alone:
the same command draws the same again, and `unnoise info PICTURE` says it.""",
}


def version() -> str:
    return f"unnoise {metadata.version('unnoise')}"


app = App(
    name="unnoise",
    help="Diffusion models: train on your own pictures, draw, measure.",
    help_epilogue=EPILOGUE,
    help_format="plaintext",
    version=version,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative_iterable=(), show_env_var=False, show_default=shown),
)
for _name, (_where, _about) in COMMANDS.items():
    _key = list(COMMANDS).index(_name)
    if _where:
        _more = EXAMPLES.get(_name, "")
        app.command(f"unnoise.cli.{_where}", name=_name, help=_about, help_epilogue=_more, sort_key=_key)
    else:
        _group = App(name=_name, help=_about, help_format="plaintext", help_epilogue="", sort_key=_key)
        for _table, _what in TABLES.items():
            _group.command(f"unnoise.cli.tables.{_table}:{_table}", name=_table, help=_what)
        app.command(_group)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code. People's errors are one message on stderr, faults of ours a traceback."""
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has gone (`| head -1`): nobody is left to tell
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # for the interpreter's own flush at its end
        return 141  # 128 + SIGPIPE, as a shell says it
    return code


def run(argv: list[str]) -> int:
    try:
        if argv and not argv[0].startswith(("-", "__complete")) and argv[0] not in COMMANDS:
            raise UsageError(str(unknown("command", argv[0], COMMANDS)))
        result = app(argv, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else DONE
    except CycloptsError as error:
        return complain(usage(error, argv), USAGE)
    except UsageError as error:
        return complain(str(error), USAGE)
    except UserError as error:
        return complain(str(error), FAILED)
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        raise
    except OSError as error:  # disk full, no permission, a file that has gone: the machine's report is the message
        return complain(str(error), FAILED)
    except Exception as error:
        if "out of memory" in str(error) or isinstance(error, MemoryError):
            return complain(f"out of memory ({str(error).splitlines()[0]}). Ask for a smaller --batch", FAILED)
        traceback.print_exc()
        return complain("this is a fault in unnoise, not in what you asked: please report the lines above", FAILED)


def complain(message: str, code: int) -> int:
    if os.environ.get("UNNOISE_TRACEBACK"):
        traceback.print_exc()
    say(f"unnoise: error: {message}")
    return code


def usage(error: CycloptsError, argv: list[str]) -> str:
    """What cyclopts found wrong, in one line, and where to read more."""
    error.verbose = False
    command = argv[0] if argv and argv[0] in COMMANDS else ""
    return f"{str(error).strip()}\nSee: unnoise {command + ' ' if command else ''}--help"


if __name__ == "__main__":
    sys.exit(main())
