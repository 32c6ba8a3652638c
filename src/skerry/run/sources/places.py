"""Places: where whole files are, on this machine, on a web server, or on any other file system of fsspec."""

from __future__ import annotations

import bz2
import functools
import glob
import gzip
import io
import lzma
import shutil
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

from skerry.spec.address import is_loopback, parse_address, refuse_plain_text
from skerry.spec.errors import DependencyError, SourceUnavailableError, SpecError

BUFFER = 256 * 1024
"""Bytes read ahead: a line costs no call into the decompressor or the network."""
PLAIN_TEXT = ("ftp://",)
"""Schemes of fsspec that travel in plain text, beside http."""


class Place(msgspec.Struct, frozen=True):
    """One file: its name and how its raw bytes are opened."""

    name: str
    open_raw: Callable[[], BinaryIO]

    def open(self) -> BinaryIO:
        """Open it, decompressed by the ending of its name.

        Raises ``OSError`` when it cannot be read, ``DependencyError`` when a package is missing.
        """
        raw = self.open_raw()
        try:
            stream = _decompressed(raw, Path(self.name).suffix.lower())
            return stream if isinstance(stream, io.BufferedReader) else io.BufferedReader(cast(Any, stream), BUFFER)
        except BaseException:
            raw.close()
            raise


def find_places(where: str, *, storage: dict[str, Any], timeout_s: float, insecure: bool) -> list[Place]:
    """Return the files of a path, a glob or a URL, sorted by name; an empty list when there are none.

    Raises
    ------
    SpecError
        The URL is plain text beyond loopback, or its scheme is unknown.
    DependencyError
        The file system needs a package that is not installed.
    SourceUnavailableError
        The place cannot be reached.
    """
    scheme, separator, _ = where.partition("://")
    if not separator:
        return _local(where)
    if scheme in {"http", "https"}:
        return [_web(where, timeout_s, insecure)]
    if where.startswith(PLAIN_TEXT) and not insecure:
        raise SpecError(f"{where!r} is plain text on a network", hint="write `insecure: true` if you accept that")
    return _remote(where, storage)


def _local(pattern: str) -> list[Place]:
    paths = [Path(pattern)]
    if not paths[0].exists() and glob.has_magic(pattern):
        paths = [Path(path) for path in sorted(glob.glob(pattern, recursive=True))]  # noqa: PTH207
    return [Place(str(path), functools.partial(_open_binary, path)) for path in paths if path.is_file()]


def _open_binary(path: Path) -> BinaryIO:
    return path.open("rb")


def _remote(url: str, storage: dict[str, Any]) -> list[Place]:
    try:
        import fsspec
    except ImportError as error:
        raise DependencyError(
            "reading from a url needs the package fsspec", hint="pip install 'skerry[files]'"
        ) from error
    try:
        system, pattern = fsspec.core.url_to_fs(url, **storage)
        names = sorted(system.glob(pattern)) if glob.has_magic(pattern) else [pattern]
        names = [name for name in names if system.isfile(name)]
    except ImportError as error:
        raise DependencyError(f"{url} needs another package: {error}", hint="install the package it names") from error
    except ValueError as error:
        raise SpecError(f"{url!r} is no place that fsspec knows: {error}") from error
    except OSError as error:
        raise SourceUnavailableError(f"{url} cannot be listed: {error}") from error
    return [Place(str(name), functools.partial(system.open, name, "rb")) for name in names]


def _web(url: str, timeout_s: float, insecure: bool) -> Place:
    """Return a file on a web server; it is read by the standard library, so that a device needs no more for it."""
    address, _ = parse_address(url)
    refuse_plain_text(address, insecure)
    loopback = is_loopback(address.host)
    proxies = urllib.request.ProxyHandler({} if loopback else None)
    opener = urllib.request.build_opener(proxies, _GuardedRedirects(insecure))

    def fetch() -> BinaryIO:
        try:
            return cast(BinaryIO, _WholeBody(opener.open(url, timeout=timeout_s)))
        except urllib.error.HTTPError as error:
            error.close()
            raise SourceUnavailableError(f"{url} answers {error.code} {error.reason}") from error
        except urllib.error.URLError as error:
            raise SourceUnavailableError(f"{url} cannot be reached: {error.reason}") from error

    return Place(url.partition("?")[0], fetch)


class _WholeBody(io.RawIOBase):
    """The body of an answer; one that ends before its announced length is an ``OSError``, which http.client hides."""

    def __init__(self, response: Any) -> None:
        self._response = response
        length = response.headers.get("Content-Length", "")
        self._missing = int(length) if length.isdigit() else None

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._response.readinto(buffer)
        if self._missing is not None:
            self._missing -= count
            if count == 0 and len(buffer) and self._missing > 0:
                raise OSError(f"the server left out the last {self._missing} bytes")
        return count

    def close(self) -> None:
        if not self.closed:
            self._response.close()
        super().close()


class _GuardedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not to plain text beyond loopback."""

    def __init__(self, insecure: bool) -> None:
        self._insecure = insecure

    def redirect_request(self, *request: Any) -> urllib.request.Request | None:
        address, _ = parse_address(request[-1])
        refuse_plain_text(address, self._insecure)
        return super().redirect_request(*request)


def _decompressed(raw: BinaryIO, suffix: str) -> BinaryIO:
    """Return the stream behind ``raw``; closing it closes ``raw``."""
    openers: dict[str, Callable[[BinaryIO], Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
    if suffix == ".zst":
        return cast(BinaryIO, _Both(_zstd(raw), raw))
    if suffix in openers:
        return cast(BinaryIO, _Both(openers[suffix](raw), raw))
    return raw


def _zstd(raw: BinaryIO) -> Any:
    try:
        import pyarrow
    except ImportError as error:
        raise DependencyError("a .zst file needs the package pyarrow", hint="pip install 'skerry[files]'") from error
    return pyarrow.CompressedInputStream(pyarrow.PythonFile(raw, "r"), "zstd")


class _Both(io.RawIOBase):
    """A decompressing stream that closes what it reads from as well."""

    def __init__(self, inner: Any, raw: BinaryIO) -> None:
        self._inner = inner
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        chunk = self._inner.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)

    def close(self) -> None:
        if not self.closed:
            self._inner.close()
            self._raw.close()
        super().close()


def spooled(stream: BinaryIO) -> BinaryIO:
    """Return ``stream`` itself when it can seek, else a temporary file with all of it."""
    if stream.seekable():
        return stream
    copy = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        shutil.copyfileobj(stream, copy, 1 << 20)
        copy.seek(0)
    except BaseException:
        copy.close()
        raise
    return cast(BinaryIO, copy)
