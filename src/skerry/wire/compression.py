"""Compression: zstd, from the standard library where it has it, with a bound on what comes out."""

from __future__ import annotations

import sys
import threading
from typing import Any, Final

from skerry.spec.errors import DependencyError, WireError
from skerry.wire.vocabulary import VOCABULARY

MAGIC: Final = b"\x28\xb5\x2f\xfd"
"""What every zstd frame begins with (RFC 8878), and so need not be sent."""
FRAME: Final = 9
"""Bytes that a frame takes for itself."""
_loaded: Any = None
_dictionary: Any = None
_local = threading.local()


def zstd() -> Any:
    """Return the module of zstd; raises ``DependencyError`` where there is none."""
    global _loaded  # noqa: PLW0603  (loaded once: an import statement costs more than a small batch)
    if _loaded is None:
        try:
            if sys.version_info >= (3, 14):
                from compression import zstd as module
            else:
                from backports import zstd as module
        except ImportError as error:
            raise DependencyError(
                "batches need zstd, which this Python lacks", hint="pip install 'skerry[sync]'"
            ) from error
        _loaded = module
    return _loaded


def compress(data: bytes, level: int) -> bytes:
    """Return one zstd frame that tells its size, by the vocabulary, and without the four bytes that begin every frame.

    It has no checksum: a signature finds what is wrong, or the reader does.
    """
    frame: bytes = zstd().compress(data, level, None, _vocabulary())
    return frame[len(MAGIC) :]


def decompress(data: bytes, most: int) -> bytes:
    """Return what a frame of :func:`compress` holds.

    Raises
    ------
    WireError
        It is no frame, a damaged one, not the only one, or holds more than ``most`` bytes: the frame's own word for
        its size is read first, and nothing beyond ``most`` is ever allocated.
    """
    module = zstd()
    frame = MAGIC + data
    try:
        size = module.get_frame_info(frame).decompressed_size
        if size is None or size > most:
            raise WireError(
                f"a batch that unpacks to {'an unknown number of' if size is None else format(size, ',')} bytes",
                expected=f"at most {most:,}",
            )
        unpacker = module.ZstdDecompressor(_vocabulary())
        unpacked: bytes = unpacker.decompress(frame, max_length=size + 1)
    except module.ZstdError as error:
        raise WireError(f"the packed part of a batch is damaged: {error}") from error
    if not unpacker.eof or unpacker.unused_data or len(unpacked) != size:
        raise WireError("the packed part of a batch is damaged: it is not one whole frame")
    return unpacked


def size_alone(data: bytes) -> int:
    """Return about how many bytes ``data`` adds to a frame, by a quick compression of it alone."""
    return len(_quick().compress(data, _quick().FLUSH_FRAME)) - FRAME


def _quick() -> Any:
    """Return this thread's compressor for trials: to make one takes longer than to use it."""
    found = getattr(_local, "compressor", None)
    if found is None:
        found = _local.compressor = zstd().ZstdCompressor(1)
    return found


def _vocabulary() -> Any:
    """Return the vocabulary as zstd takes it, made once."""
    global _dictionary  # noqa: PLW0603  (as above)
    if _dictionary is None:
        _dictionary = zstd().ZstdDict(VOCABULARY, is_raw=True)
    return _dictionary
