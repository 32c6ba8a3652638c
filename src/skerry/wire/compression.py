"""Compression: zstd, from the standard library where it has it, with a bound on what comes out."""

from __future__ import annotations

import sys
from typing import Any

from skerry.spec.errors import DependencyError, WireError

_loaded: Any = None


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
    """Return one zstd frame that tells its size and has no checksum: a signature or the decoder finds what is wrong."""
    result: bytes = zstd().compress(data, level)
    return result


def decompress(data: bytes, most: int) -> bytes:
    """Return what one frame holds.

    Raises
    ------
    WireError
        It is no frame, a damaged one, not the only one, or holds more than ``most`` bytes: the frame's own word for
        its size is read first, and nothing beyond ``most`` is ever allocated.
    """
    module = zstd()
    try:
        size = module.get_frame_info(data).decompressed_size
        if size is None or size > most:
            raise WireError(
                f"a batch that unpacks to {'an unknown number of' if size is None else format(size, ',')} bytes",
                expected=f"at most {most:,}",
            )
        unpacker = module.ZstdDecompressor()
        unpacked: bytes = unpacker.decompress(data, max_length=size + 1)
    except module.ZstdError as error:
        raise WireError(f"the packed part of a batch is damaged: {error}") from error
    if not unpacker.eof or unpacker.unused_data or len(unpacked) != size:
        raise WireError("the packed part of a batch is damaged: it is not one whole frame")
    return unpacked
