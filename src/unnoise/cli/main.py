"""`unnoise`: the app with all commands, and how errors are reported.

A command's module is imported when the command is run, and torch when its arguments have been checked:
`unnoise --help` takes a tenth of a second.
"""

from __future__ import annotations

import os
import shlex
import sys
import traceback
from collections.abc import Sequence
from importlib import metadata
from io import TextIOWrapper

from cyclopts import (
    App,
    CycloptsError,
    MissingArgumentError,
    Parameter,
    UnknownOptionError,
    UnusedCliTokensError,
)

from unnoise.cli.commands import COMMANDS, DETAILS, EARLIER, EPILOGUE, TABLES
from unnoise.cli.console import DONE, FAILED, INTERRUPTED, USAGE, UsageError, say
from unnoise.cli.options import shown
from unnoise.cli.suggest import no_command, option_instead
from unnoise.errors import UserError, is_out_of_memory


def version() -> str:
    return f"unnoise {metadata.version('unnoise')}"


app = App(
    name="unnoise",
    help="Diffusion models: train on your own pictures, sample and evaluate.",
    help_epilogue=EPILOGUE,
    help_format="plaintext",
    version=version,
    suppress_keyboard_interrupt=False,
    default_parameter=Parameter(negative_iterable=(), show_env_var=False, show_default=shown),
)
for _key, (_name, (_where, _help)) in enumerate(COMMANDS.items()):
    if _where:
        _details = DETAILS.get(_name, "")
        app.command(f"unnoise.cli.{_where}", name=_name, help=_help, help_epilogue=_details, sort_key=_key)
    else:
        _group = App(name=_name, help=_help, help_format="plaintext", help_epilogue="", sort_key=_key)
        for _table, _table_help in TABLES.items():
            _group.command(f"unnoise.cli.tables.{_table}:{_table}", name=_table, help=_table_help)
        app.command(_group)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code.

    A UserError is one message on stderr; any other exception is a fault of the program, with its traceback.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by the caller (`>&-`)
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  # open for the rest of the process
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as stderr's: no character ends a command
    try:
        code = run(list(sys.argv[1:] if argv is None else argv))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader has closed the pipe (`| head -1`)
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  # the interpreter flushes it when it ends
        return 141  # 128 + SIGPIPE, as a shell reports it
    return code


def today(word: str) -> str:
    """A word of a command line, an option of an earlier version under its name of today."""
    name, equals, value = word.partition("=")
    if name.startswith("--nearest"):
        raise UsageError(f"{name} is a command of its own: unnoise nearest FOLDER --data SET")
    return EARLIER.get(name, name) + equals + value


def run(argv: list[str]) -> int:
    try:
        if argv and not argv[0].startswith(("-", "__complete")) and argv[0] not in COMMANDS:
            raise no_command(argv[0], COMMANDS)
        result = app(
            [today(word) for word in argv], exit_on_error=False, print_error=False, result_action="return_value"
        )
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
    except OSError as error:  # disk full, no permission, a missing file: the system's message is enough
        reason = f"{error.strerror}: {error.filename!r}" if error.strerror and error.filename else str(error)
        return complain(reason, FAILED)
    except Exception as error:
        if is_out_of_memory(error):
            fix = "Choose a smaller network" if argv[0] == "train" else "Set a smaller --batch"
            return complain(f"out of memory ({f'{error}'.partition(chr(10))[0] or 'of this machine'}). {fix}", FAILED)
        say(traceback.format_exc())
        return complain("this is a fault in unnoise, not in your command: please report the lines above", FAILED)


def complain(message: str, code: int) -> int:
    """Prints an error and returns the exit code; with UNNOISE_TRACEBACK set, after the traceback."""
    if os.environ.get("UNNOISE_TRACEBACK"):
        say(traceback.format_exc())
    say(f"unnoise: error: {message}")
    return code


def usage(error: CycloptsError, argv: list[str]) -> str:
    """What is wrong with a command line, and the command that prints the help."""
    command, message = argv[0] if argv and argv[0] in COMMANDS else "", ""
    error.verbose = False
    if isinstance(error.__cause__, UserError):
        message = str(error.__cause__)
    elif isinstance(error, UnknownOptionError) and command:
        options = {name for argument in error.argument_collection for name in argument.names}
        message = option_instead(command, argv[1:], error.token.keyword or error.token.value, options)
    elif isinstance(error, UnusedCliTokensError):
        message = f"{shlex.join(error.unused_tokens or ())}: no such argument; a value with spaces needs quotes"
    elif isinstance(error, MissingArgumentError) and error.argument and not error.argument.name.startswith("-"):
        message = f"{error.argument.name} is missing: unnoise {command} {error.argument.name} ..."
    return f"{message or str(error).strip()}\nSee: unnoise {command + ' ' if command else ''}--help"


if __name__ == "__main__":
    sys.exit(main())
