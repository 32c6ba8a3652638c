"""The tail source: follows log files through rotation, truncation, absence and restarts."""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, ClassVar, Literal

import msgspec

from skerry.run.sources.delivery import deliver, read_position
from skerry.run.sources.follow import FollowedLog, Step
from skerry.run.sources.rotation import COMPRESSED, Mark, is_generation
from skerry.spec.errors import SourceError, SourceLostError, SourceUnavailableError, SpecError
from skerry.spec.ports import Address, Context, Emit, Options, Stop
from skerry.spec.units import Duration, Size

SHORTEST_POLL_S = 0.01
"""The first pause after the last line, in seconds; each further one is twice as long, up to ``poll``."""


class TailOptions(Options, frozen=True, kw_only=True):
    """How a log is followed.

    Parameters
    ----------
    also:
        More logs or globs. Those that are missing are looked for at every ``rescan``; one that exists is enough.
    from:
        Where to begin. A committed position comes first, for ``resume`` and ``start``; without one ``resume`` begins
        at the end and ``start`` at the first line. ``end`` always begins at the end.
    replay:
        Begin at the first line whatever was committed, once per run.
    history:
        Of a longer file that would be read from its first line, only the lines that begin in its last ``history``:
        last year's are rarely worth the time.
    follow:
        Wait for more lines; ``false`` ends at the end of the file.
    poll:
        The longest pause between two looks at a log that does not grow. 200 ms is prompt for a person and costs an
        idle processor about a thousandth of its time.
    rescan:
        Time between two searches for new files of a glob, and for those of ``also``.
    linger:
        Time for which a rotated file is still read after its last byte: its writer lets go of it a moment later.
    lost_after:
        How long the log may be gone before ``SourceLostError``; ``None`` waits for as long as the run lasts.
    max_line:
        The most bytes kept of one line, which bounds the memory; 1 MiB is longer than any line that somebody reads.
    """

    also: list[str] = msgspec.field(default_factory=list)
    from_: Literal["resume", "start", "end"] = msgspec.field(default="resume", name="from")
    replay: bool = False
    history: Size | None = None
    follow: bool = True
    poll: Duration = Duration(0.2)
    rescan: Duration = Duration(2.0)
    linger: Duration = Duration(1.0)
    lost_after: Duration | None = None
    max_line: Size = Size(2**20)


class TailSource:
    """``tail:///var/log/x``, or a glob such as ``tail:///var/log/*.log``.

    Emits ``{"text": line, "path": path}``, with ``truncated: true`` for the beginning of a line over ``max_line`` and
    ``invalid_utf8: true`` where bytes had to be replaced. A position is a mapping from path to
    ``{"inode", "offset", "fingerprint"}``, so that a source that is pointed elsewhere does not resume in a wrong file.
    """

    Options: ClassVar[type[Options]] = TailOptions
    live: ClassVar[bool] = True

    def __init__(self, address: Address, options: TailOptions) -> None:
        if not address.path:
            raise SpecError(f"{address.text!r} names no file", expected="tail:///var/log/syslog")
        if options.max_line < 1:
            raise SpecError("max_line would keep nothing of a line", expected="a size such as 1MiB")
        self._address = address
        self._options = options
        self._is_search = bool(options.also) or glob.has_magic(address.path)
        """Whether files may come and go: there are several places, or a pattern."""
        self._logs: dict[str, FollowedLog] = {}
        self._marks: dict[str, dict[str, Any]] = {}
        self._ran_before = False
        self._refused: set[str] = set()
        self._history = None if options.history is None else int(options.history)

    def open(self, context: Context, position: Any | None) -> None:
        """Find the files and go to where to begin.

        Raises ``SourceUnavailableError`` when there is no such file (yet) or it may not be read, ``SourceError``
        when it breaks while being opened, ``SpecError`` when it is a folder or a device.
        """
        self.close()
        self._context = context
        home = glob.escape(str(context.home)) if self._is_search else context.home
        self._patterns = [str(Path(home, place)) for place in (self._address.path, *self._options.also)]
        marks = self._known_marks(position)
        for path in sorted({*self._found(), *(path for path in marks if self._is_meant(path))}):
            self._follow(path, marks.get(path), at_end=self._starts_at_end, history=self._history)
        if not self._logs:
            raise SourceUnavailableError(f"no file matches {self._places}", expected="a log that exists")
        self._ran_before = True

    def run(self, emit: Emit, stop: Stop) -> None:
        """Emit lines until the run ends; raises ``SourceLostError`` once the log is gone for ``lost_after``."""
        pause_s, next_scan_s = SHORTEST_POLL_S, time.monotonic() + self._options.rescan
        while not stop.is_set():
            grew = False
            for name, followed in list(self._logs.items()):
                for step in self._steps(followed):
                    grew = True
                    if stop.is_set() or not self._hand_over(name, step, emit, stop):
                        return
            if not self._options.follow:
                return
            if self._is_search and time.monotonic() >= next_scan_s:
                grew |= self._rescan(emit, stop)
                next_scan_s = time.monotonic() + self._options.rescan
            self._check_lost(emit, stop)
            pause_s = SHORTEST_POLL_S if grew else min(2 * pause_s, max(SHORTEST_POLL_S, self._options.poll))
            if not grew:
                stop.wait(pause_s)

    def commit(self, position: Any) -> None:
        """Do nothing: nobody has to be told."""

    def close(self) -> None:
        """Close every file; safe to call twice."""
        for followed in self._logs.values():
            followed.close()
        self._logs.clear()
        self._marks.clear()

    @property
    def _places(self) -> str:
        return " or ".join(self._patterns)

    def _is_meant(self, path: str) -> bool:
        return any(fnmatchcase(path, pattern) for pattern in self._patterns)

    @property
    def _starts_at_end(self) -> bool:
        return not self._options.replay and self._options.from_ != "start" and self._options.follow

    def _known_marks(self, position: Any | None) -> dict[str, Mark]:
        """Return where to resume, by path; nothing where the options say to begin anew."""
        anew = self._options.replay or self._options.from_ == "end"
        if position is None or (anew and not self._ran_before):
            return {}
        return read_position(position, dict[str, Mark], self._context.log) or {}

    def _found(self) -> list[str]:
        """Return the paths to follow; older generations and compressed files that a glob matches are left out."""
        if not self._is_search:
            return self._patterns
        paths = {Path(path) for pattern in self._patterns for path in glob.glob(pattern, recursive=True)}  # noqa: PTH207
        return [
            str(path)
            for path in paths
            if path.is_file()
            and path.suffix not in COMPRESSED
            and not any(is_generation(path, other) for other in paths)
        ]

    def _follow(self, path: str, mark: Mark | None, *, at_end: bool, history: int | None = None) -> None:
        options = self._options
        followed = FollowedLog(
            Path(path), path, max_line=int(options.max_line), linger_s=options.linger, log=self._context.log
        )
        try:
            followed.open(mark, at_end=at_end, history=history)
        except OSError as error:
            followed.close()
            if self._is_search:
                self._refuse(path, error)
                return
            raise SourceUnavailableError(
                f"{path} cannot be read: {error.strerror or error}", expected="a log that exists and may be read"
            ) from error
        self._logs[path] = followed
        start = followed.mark()
        if start is not None:
            self._marks[path] = start.plain()

    def _refuse(self, path: str, error: OSError) -> None:
        """Say once that a file cannot be read; it is tried again with every search."""
        if path not in self._refused:
            self._refused.add(path)
            self._context.log.warning("%s cannot be followed: %s", path, error.strerror or error)

    def _steps(self, followed: FollowedLog) -> Iterator[Step]:
        try:
            yield from followed.step() if self._options.follow else followed.drain()
        except OSError as error:
            raise SourceError(f"{followed.path} cannot be read any more: {error.strerror or error}") from error

    def _hand_over(self, name: str, step: Step, emit: Emit, stop: Stop) -> bool:
        fields, size, mark = step
        self._marks[name] = mark
        position = dict(self._marks)
        return emit(fields, size=size, position=position) or deliver(emit, stop, fields, size=size, position=position)

    def _rescan(self, emit: Emit, stop: Stop) -> bool:
        """Follow files that are new, from their beginning, and let go of those that are gone; tell if any is new."""
        gone = [name for name, followed in self._logs.items() if _gone_for(followed) > self._options.linger]
        if len(gone) < len(self._logs):  # when all of them are gone, they are waited for
            for name in gone:
                self._finish(name, emit, stop)
        new = [path for path in sorted(self._found()) if path not in self._logs]
        for path in new:
            self._follow(path, None, at_end=False)
        return any(path in self._logs for path in new)

    def _check_lost(self, emit: Emit, stop: Stop) -> None:
        lost_after = self._options.lost_after
        if lost_after is None or any(_gone_for(followed) <= lost_after for followed in self._logs.values()):
            return
        for name in list(self._logs):
            self._finish(name, emit, stop)
        raise SourceLostError(
            f"{self._places} has been gone for {lost_after}", hint="set lost_after higher, or leave it out to wait"
        )

    def _finish(self, name: str, emit: Emit, stop: Stop) -> None:
        """Hand over the last line of a log that is gone, and let go of it."""
        followed = self._logs.pop(name)
        for step in followed.drain():
            if not self._hand_over(name, step, emit, stop):
                break
        followed.close()
        self._marks.pop(name, None)


def _gone_for(followed: FollowedLog) -> float:
    """Return for how many seconds the log has been gone; -1 while it is there."""
    return -1.0 if followed.gone_since_s is None else time.monotonic() - followed.gone_since_s
