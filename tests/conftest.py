"""Settings of all tests: examples of hypothesis are the same every time, and what was skipped is named at the end."""

from __future__ import annotations

import re
import signal
from collections import defaultdict
from collections.abc import Iterable, Iterator

import pytest
from hypothesis import settings

settings.register_profile("ci", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("ci")

REMEDY = "make system-deps"
_REASON = re.compile(rf"(?:Skipped: )?(?P<component>.+?) (?:is|are) not installed: {REMEDY}")


@pytest.fixture(scope="session", autouse=True)
def signals_count() -> Iterator[None]:
    """Let children be told to end where the tests run under ``nohup`` or behind ``&`` too, which they would inherit."""
    before = {signal.SIGHUP: signal.signal(signal.SIGHUP, signal.SIG_DFL)}
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        before[signal.SIGINT] = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def missing_components(reasons: Iterable[str]) -> dict[str, int]:
    """Count by component the tests that were skipped because the system lacks it."""
    found: dict[str, int] = defaultdict(int)
    for reason in reasons:
        match = _REASON.search(reason)
        if match:
            found[match["component"]] += 1
    return dict(sorted(found.items()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Name the missing components, how many tests wait for each, and how to get them."""
    skipped = terminalreporter.stats.get("skipped", [])
    found = missing_components(str(report.longrepr[2]) for report in skipped if isinstance(report.longrepr, tuple))
    if not found:
        return
    terminalreporter.write_sep("=", "skipped, because this system lacks", yellow=True)
    for component, count in found.items():
        terminalreporter.write_line(f"{component}: {count} {'test' if count == 1 else 'tests'}")
    terminalreporter.write_line(f"to run them, install what is missing, as root: {REMEDY}")
