"""Options of the tests: `--few-schedules` runs what is parametrised over schedules on two of them (`make quick`).

No test opens a connection: the library never does, whatever a file names.
"""

from __future__ import annotations

import socket
from typing import Any

import pytest

FEW = ("LinearBeta", "EDM")  # a table of betas that preserves the variance; sigmas that do not


LOCAL = ("127.0.0.1", "::1", "localhost")  # processes of one training find each other there


@pytest.fixture(autouse=True)
def no_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection to another machine, or the question for its address, fails the test."""
    connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo

    def refused(where: object) -> None:
        if isinstance(where, bytes):
            where = where.decode(errors="replace")
        if where is not None and where not in (*LOCAL, socket.gethostname()):
            pytest.fail(f"a connection to {where}: nothing may be downloaded")

    def guarded(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX:
            refused(address[0])
        connect(self, address)

    def looked_up(host: Any, *rest: Any, **options: Any) -> Any:
        refused(host)
        return getaddrinfo(host, *rest, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded)
    monkeypatch.setattr(socket, "getaddrinfo", looked_up)


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
