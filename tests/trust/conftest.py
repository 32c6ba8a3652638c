"""An authority, its hub on loopback, and devices that enrolled with it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from skerry.trust.authority import Authority
from skerry.trust.enrolment import enrol
from skerry.trust.identity import Identity
from tests.trust.small_hub import SmallHub


class Clock:
    """A wall clock that tests set."""

    def __init__(self) -> None:
        self.ahead_s = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def authority(tmp_path: Path) -> Iterator[Authority]:
    made = Authority.init(tmp_path / "authority", hub="https://127.0.0.1:1", trust_domain="fleet.test", now=time.time())
    yield made
    made.close()


@pytest.fixture
def hub(authority: Authority, clock: Clock) -> Iterator[SmallHub]:
    served = SmallHub(authority, clock)
    yield served
    served.close()


@pytest.fixture
def enrolled(hub: SmallHub, tmp_path: Path, clock: Clock) -> Callable[[str], Identity]:
    """Enrol a device in a folder of its own."""

    def newcomer(name: str) -> Identity:
        token = hub.authority.issue_token(name, now=clock())
        return enrol(hub.url, token, tmp_path / f"identity-{name}")

    return newcomer
