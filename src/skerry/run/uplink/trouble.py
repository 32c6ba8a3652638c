"""The trouble: what people have to mend before records get through, kept where ``skerry outbox status`` looks."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from skerry.run.uplink.status import State, UplinkStatus

TROUBLES: frozenset[State] = frozenset({"impostor", "refused", "distrusted"})
_FILE = "uplink-trouble.json"


class Trouble(msgspec.Struct, frozen=True, kw_only=True):
    """What stands in the way, as ``state`` and ``why`` of :class:`~skerry.run.uplink.status.UplinkStatus` tell it."""

    state: State
    why: str


class TroubleNote:
    """Keeps the trouble of an uplink on disk until records get through again.

    Parameters
    ----------
    folder:
        Where the uplink keeps what must survive a restart.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / _FILE
        self._kept = read_trouble(folder)
        self._acknowledged = 0

    def follow(self, status: UplinkStatus) -> None:
        """Write down a new trouble, or strike it once records were acknowledged after it."""
        if status.state in TROUBLES:
            self._keep(Trouble(state=status.state, why=status.why))
        elif status.acknowledged > self._acknowledged:
            self._keep(None)
        self._acknowledged = status.acknowledged

    def _keep(self, trouble: Trouble | None) -> None:
        if trouble == self._kept:
            return
        with contextlib.suppress(OSError):  # a full disk: it is in the log as well
            if trouble is None:
                self._path.unlink(missing_ok=True)
            else:
                draft = self._path.with_suffix(".part")
                draft.write_bytes(msgspec.json.encode(trouble))
                draft.replace(self._path)
            self._kept = trouble


def read_trouble(folder: Path) -> Trouble | None:
    """Return the trouble of the uplink that keeps its state in a folder; ``None`` where there is none."""
    try:
        return msgspec.json.decode((folder / _FILE).read_bytes(), type=Trouble)
    except (OSError, msgspec.MsgspecError):
        return None
