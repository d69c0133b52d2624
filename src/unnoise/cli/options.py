"""Command line options made from the fields of a settings dataclass: its names, types, defaults and help texts.

A setting is written once, in its dataclass in config/, together with its help text (config/field.py).

    @with_settings(RequestOptions, steps=Parameter(alias=("--num-inference-steps",)))
    def sample(model: Path, *, out: Path, **asked: Any) -> None:
        request = Request.of(**asked)
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_type_hints

from cyclopts import Parameter

from unnoise.config.field import help_texts

F = TypeVar("F", bound=Callable[..., Any])


def comments(settings: type) -> dict[str, str]:
    """The help text of each field that has one."""
    return help_texts(settings)


def default_of(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def option(text: str, *names: str, **how: Any) -> Parameter:
    """An option with its help text and further names it answers to."""
    return Parameter(help=text, alias=names, **how)


def flag(text: str, *names: str, **how: Any) -> Parameter:
    """A switch that is off until it is given."""
    return Parameter(help=text, alias=names, negative="", show_default=False, **how)


OVERWRITE = Annotated[bool, flag("replace files that exist")]


def shown(default: Any) -> str | None:
    """A default as people write it; None where it is that nothing is said."""
    if isinstance(default, tuple):
        return " ".join(map(str, default)) or None
    return None if default is None or default in ("", {}) else str(default)


def keys_of(file: str, name: str) -> tuple[str, ...]:
    """The keys of a dictionary that stands in the package's `file`, read without running it.

    For names that stand beside functions which need torch: the command line offers and checks them without it.
    """
    tree = ast.parse((Path(__file__).parent.parent / file).read_text(encoding="utf-8"))
    for node in tree.body:
        target = (
            node.target
            if isinstance(node, ast.AnnAssign)
            else node.targets[0]
            if isinstance(node, ast.Assign)
            else None
        )
        if isinstance(target, ast.Name) and target.id == name:
            value = getattr(node, "value", None)
            assert isinstance(value, ast.Dict)
            return tuple(
                key.value for key in value.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)
            )
    raise AssertionError(f"{file} has no dictionary {name}")


def listed(names: Sequence[str]) -> str:
    """The end of a help text that lists the names of an option."""
    return f". One of: {', '.join(names)}"


def with_settings(settings: type, **parameters: Parameter | None) -> Callable[[F], F]:
    """Give a command, in place of its `**asked`, one option a field of `settings`; a field set to None gets none.

    Only what a person typed arrives in `asked` as typed; the rest arrives as the field's default.
    """
    unknown = set(parameters) - {field.name for field in dataclasses.fields(settings)}
    assert not unknown, f"no such fields: {unknown}"
    hints, about = get_type_hints(settings), comments(settings)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=default_of(field),
            annotation=Annotated[
                hints[field.name],
                Parameter.combine(Parameter(help=about.get(field.name, "")), parameters.get(field.name)),
            ],
        )
        for field in dataclasses.fields(settings)
        if parameters.get(field.name, ...) is not None
    ]

    def apply(command: F) -> F:
        signature = inspect.signature(command)
        own = [p for p in signature.parameters.values() if p.kind is not inspect.Parameter.VAR_KEYWORD]
        hints = get_type_hints(command, include_extras=True)
        own = [p.replace(annotation=hints.get(p.name, p.annotation)) for p in own]
        keywords = [p for p in own if p.kind is inspect.Parameter.KEYWORD_ONLY]
        others = [p for p in own if p.kind is not inspect.Parameter.KEYWORD_ONLY]
        command.__signature__ = signature.replace(parameters=[*others, *keywords, *options])  # type: ignore[attr-defined]
        return command

    return apply


def within(low: float, high: float, why: str) -> Callable[[type, Any], None]:
    """A validator: the number lies in [low, high], or all of several do."""

    def check(_type: type, value: Any) -> None:
        for number in value if isinstance(value, tuple) else (value,):
            if number is not None and not low <= number <= high:
                raise ValueError(f"{number:g} is not between {low:g} and {high:g}: {why}")

    return check


def checked(check: Callable[[str], object]) -> Callable[[type, Any], None]:
    """A validator: `check` accepts the text. The UserError that it raises for another is the message of the command."""

    def validator(_type: type, value: Any) -> None:
        check(value)

    return validator
