from __future__ import annotations

from typing import Any

from tests.safety.commands import COUNTED, printed


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if COUNTED:
        terminalreporter.write_line(printed())
