"""A shaped link: a TCP proxy on loopback that is as slow, as far away and as unreliable as it is told to be.

Each direction has one rate for all connections together, as a radio has, and half the round trip as its delay. Bytes
are counted as they enter it. The link can be cut (connections end), reset, refused, or go silent: they stay
open and nothing comes through, as when a mast is gone.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import struct
import threading
import time
from collections import deque
from typing import Literal, Self

Mode = Literal["open", "silent", "refused"]

_READ_AT_ONCE = 4096
_BUFFER = 65536  # bytes that wait in one direction of one connection: then the sender is held up, as by a modem
_GLANCE_S = 0.05


class _Direction:
    """One direction of the link: a rate that everybody shares, and a delay."""

    def __init__(self, bytes_per_s: float, delay_s: float) -> None:
        self.bytes_per_s, self.delay_s = bytes_per_s, delay_s
        self.entered = self.carried = 0
        self._free_at = 0.0

    def arrival(self, size: int, now: float) -> float:
        """Return when bytes that are sent now arrive, and take the link's time for them."""
        begin = max(now, self._free_at)
        self._free_at = begin + (size / self.bytes_per_s if self.bytes_per_s else 0.0)
        return self._free_at + self.delay_s


class _Pipe:
    """Bytes from one socket on their way to another."""

    def __init__(self, source: socket.socket, target: socket.socket, direction: _Direction) -> None:
        self.source, self.target, self.direction = source, target, direction
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.held = 0
        self.ended_at: float | None = None

    def read(self, now: float) -> bool:
        """Take what has come; tell whether the source is still there."""
        try:
            data = self.source.recv(_READ_AT_ONCE)
        except BlockingIOError:
            return True
        except OSError:
            return False
        if not data:
            self.ended_at = self.direction.arrival(0, now)
            return True
        self.direction.entered += len(data)
        self.waiting.append((self.direction.arrival(len(data), now), data))
        self.held += len(data)
        return True

    def write(self, now: float) -> bool:
        """Hand on what has arrived; tell whether the target is still there."""
        while self.waiting and self.waiting[0][0] <= now:
            due, data = self.waiting.popleft()
            try:
                sent = self.target.send(data)
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            self.held -= sent
            self.direction.carried += sent
            if sent < len(data):
                self.waiting.appendleft((due, data[sent:]))
                break
        if self.ended_at is not None and not self.waiting and self.ended_at <= now:
            with contextlib.suppress(OSError):
                self.target.shutdown(socket.SHUT_WR)
            self.ended_at = float("inf")
        return True

    def due(self) -> float:
        """Return when there is something to do next."""
        if self.waiting:
            return self.waiting[0][0]
        return self.ended_at if self.ended_at is not None else float("inf")


class _Pair:
    """A connection through the link, both ways."""

    def __init__(self, near: socket.socket, far: socket.socket, up: _Direction, down: _Direction) -> None:
        self.near, self.far = near, far
        self.pipes = (_Pipe(near, far, up), _Pipe(far, near, down))

    def close(self, *, reset: bool) -> None:
        for end in (self.near, self.far):
            if reset:  # a linger of 0 s makes close() send a reset
                with contextlib.suppress(OSError):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()


class ShapedLink:
    """A link to ``target``; ``with`` ends it.

    Parameters
    ----------
    target:
        Host and port of the other end; a port may be changed later (:meth:`retarget`), for a server that was restarted.
    rate_bits_per_s:
        Of each direction; 0 for as fast as it goes.
    round_trip_s:
        Delay there and back.
    port:
        To listen on; 0 takes any free one.
    """

    def __init__(
        self,
        target: tuple[str, int],
        *,
        rate_bits_per_s: float = 0.0,
        round_trip_s: float = 0.0,
        port: int = 0,
    ) -> None:
        self._target = target
        self._up = _Direction(rate_bits_per_s / 8, round_trip_s / 2)
        self._down = _Direction(rate_bits_per_s / 8, round_trip_s / 2)
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[_Pair] = []
        self._mode: Mode = "open"
        self._orders: deque[str] = deque()
        self._cut_at: int | None = None
        self._bell, self._ear = socket.socketpair()
        self._ear.setblocking(False)
        self._ended = False
        self.connections = 0
        """How many connections were made through it."""
        self.cuts = 0
        """How many connections were cut."""
        self._thread = threading.Thread(target=self._run, name="shaped-link", daemon=True)
        self._thread.start()

    @property
    def sent(self) -> int:
        """Bytes that went into the link towards the target, those that a cut lost on the way included."""
        return self._up.entered

    @property
    def received(self) -> int:
        """Bytes that the target sent back, those that were lost included."""
        return self._down.entered

    def shape(self, *, rate_bits_per_s: float, round_trip_s: float) -> None:
        """Change rate and delay."""
        for direction in (self._up, self._down):
            direction.bytes_per_s, direction.delay_s = rate_bits_per_s / 8, round_trip_s / 2

    def retarget(self, port: int) -> None:
        """Lead new connections to another port."""
        self._target = (self._target[0], port)

    def cut(self) -> None:
        """End every connection, losing what is on its way."""
        self._order("cut")

    def reset(self) -> None:
        """End every connection by a reset."""
        self._order("reset")

    def cut_after(self, size: int) -> None:
        """Cut as soon as ``size`` more bytes were handed on to the target."""
        self._cut_at = self._up.carried + size

    def mode(self, mode: Mode) -> None:
        """Be ``open``, ``silent`` (nothing comes through, nothing ends) or ``refused`` (new connections are reset)."""
        self._mode = mode
        self._ring()

    def _order(self, word: str) -> None:
        self._orders.append(word)
        self._ring()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            self._bell.send(b"!")

    def close(self) -> None:
        """End the link; safe to call twice."""
        self._ended = True
        self._ring()
        self._thread.join()
        for end in (self._listener, self._bell, self._ear):
            end.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *reason: object) -> None:
        self.close()

    def _run(self) -> None:
        while not self._ended:
            self._wait()
            while self._orders:
                self._end_all(reset=self._orders.popleft() == "reset")
            self._accept()
            if self._mode != "silent":
                self._carry()
        self._end_all(reset=True)

    def _wait(self) -> None:
        """Sleep until something can be read or is due."""
        now = time.monotonic()
        until = min((pipe.due() for pair in self._pairs for pipe in pair.pipes), default=float("inf"))
        silent = self._mode == "silent"
        with selectors.DefaultSelector() as selector:
            selector.register(self._ear, selectors.EVENT_READ)
            selector.register(self._listener, selectors.EVENT_READ)
            for pair in [] if silent else self._pairs:
                for pipe in pair.pipes:
                    if pipe.ended_at is None and pipe.held < _BUFFER:
                        selector.register(pipe.source, selectors.EVENT_READ)
            pause = _GLANCE_S if silent else min(_GLANCE_S, max(0.0, until - now))
            selector.select(pause)
        with contextlib.suppress(BlockingIOError):
            self._ear.recv(4096)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            try:
                if self._mode == "refused":
                    raise ConnectionRefusedError
                far = socket.create_connection(self._target, timeout=5)
            except OSError:
                near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                near.close()
                continue
            for end in (near, far):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                end.setblocking(False)
            self._pairs.append(_Pair(near, far, self._up, self._down))

    def _carry(self) -> None:
        now = time.monotonic()
        for pair in list(self._pairs):
            alive = all(
                (pipe.ended_at is not None or pipe.held >= _BUFFER or pipe.read(now)) and pipe.write(now)
                for pipe in pair.pipes
            )
            over = all(pipe.ended_at == float("inf") for pipe in pair.pipes)
            if not alive or over:
                pair.close(reset=not alive)
                self._pairs.remove(pair)
        if self._cut_at is not None and self._up.carried >= self._cut_at:
            self._cut_at = None
            self._end_all(reset=False)

    def _end_all(self, *, reset: bool) -> None:
        self.cuts += len(self._pairs)
        for pair in self._pairs:
            pair.close(reset=reset)
        self._pairs.clear()
