"""Options of the tests: `--few-schedules` runs what is parametrised over schedules on two of them (`make quick`)."""

from __future__ import annotations

import pytest

FEW = ("LinearBeta", "EDM")  # a table of betas that preserves the variance; sigmas that do not


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--few-schedules", action="store_true", help=f"of all schedules, test {' and '.join(FEW)} only")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--few-schedules"):
        return
    left_out = [item for item in items if _schedule(item) not in (None, *FEW)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if _schedule(item) in (None, *FEW)]


def _schedule(item: pytest.Item) -> str | None:
    """The class of a test's parameter `schedule`; None if it has no such parameter."""
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    return type(parameters["schedule"]).__name__ if "schedule" in parameters else None
