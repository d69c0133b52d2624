"""Sizes: a function has at most 40 lines of body, a file at most 300 lines, a file of the command line at most 150.

A function or a file that is longer usually lacks a noun. The exceptions of today are listed by name, and the list may
only shrink: an exception that is no longer needed fails the test until it is removed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import unnoise

SOURCE = Path(unnoise.__file__).parent
FUNCTION, FILE, COMMAND = 40, 300, 150  # lines

LONG_FUNCTIONS = {  # one a line, sorted
    "compression/format.py:read",
    "likelihood/ode.py:log_density",
}
LONG_FILES: set[str] = set()


def body_lines(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from the first statement after the docstring to the last, inner functions included."""
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def functions(tree: ast.AST, prefix: str = "") -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a file with its qualified name, methods and inner functions included."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield prefix + node.name, node
        named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        yield from functions(node, f"{prefix}{node.name}." if named else prefix)


def sources() -> dict[str, str]:
    return {path.relative_to(SOURCE).as_posix(): path.read_text("utf-8") for path in sorted(SOURCE.rglob("*.py"))}


def compare(found: dict[str, int], exceptions: set[str], limit: str) -> None:
    new = [f"{name}: {lines} lines" for name, lines in sorted(found.items()) if name not in exceptions]
    assert not new, f"longer than {limit}, so divide them: " + ", ".join(new)
    gone = sorted(exceptions - found.keys())
    assert not gone, "no exceptions any more, so remove them from tests/test_sizes.py: " + ", ".join(gone)


def test_no_function_is_longer_than_the_limit() -> None:
    found = {
        f"{name}:{function}": body_lines(node)
        for name, text in sources().items()
        for function, node in functions(ast.parse(text))
        if body_lines(node) > FUNCTION
    }
    compare(found, LONG_FUNCTIONS, f"{FUNCTION} lines of body")


def test_no_file_is_longer_than_the_limit() -> None:
    lines = {name: len(text.splitlines()) for name, text in sources().items()}
    limits = {name: COMMAND if name.startswith("cli/") else FILE for name in lines}
    found = {name: count for name, count in lines.items() if count > limits[name]}
    compare(found, LONG_FILES, f"{FILE} lines, or {COMMAND} in cli/")


def test_a_docstring_is_not_counted_and_an_inner_function_is() -> None:
    source = """
class A:
    def f(self):
        '''One.

        Two.'''
        def g():
            return 1

        return g
"""
    sizes = {name: body_lines(node) for name, node in functions(ast.parse(source))}
    assert sizes == {"A.f": 4, "A.f.g": 1}
