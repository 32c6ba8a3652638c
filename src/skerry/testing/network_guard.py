"""The network guard: from its installation on, the kernel kills this process when it opens an internet socket.

It is a seccomp filter (``man 2 seccomp``), which needs no privilege and no package. It sees native code as well as
Python, every thread that is started later, and cannot be taken off again; so it belongs into a child process.
Because the kill comes before the socket exists, not even a name is looked up.
"""

from __future__ import annotations

import ctypes
import platform
import signal
import socket
import struct
import sys

KILLED = -signal.SIGSYS if sys.platform == "linux" else -31
"""The return code that ``subprocess`` reports for a process that the guard killed."""

# (AUDIT_ARCH_*, number of the system call socket) by machine, from the kernel's audit.h and unistd.h.
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
_LOAD_WORD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _KILL_PROCESS = 0x7FFF0000, 0x80000000
_CALL, _ARCHITECTURE, _FIRST_ARGUMENT = 0, 4, 16  # offsets in struct seccomp_data
_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38


def why_not() -> str:
    """Return why the guard cannot be used on this machine, or an empty text."""
    if sys.platform != "linux":
        return "the network guard needs Linux"
    if platform.machine() not in _MACHINES:
        return f"the network guard does not know the machine {platform.machine()}"
    return ""


def install() -> None:
    """Forbid this process, for good, to open a socket of the families ``AF_INET`` and ``AF_INET6``.

    Raises ``OSError`` when the kernel refuses, and ``NotImplementedError`` where :func:`why_not` has a reason.
    """
    reason = why_not()
    if reason:
        raise NotImplementedError(reason)
    program = _program(*_MACHINES[platform.machine()])
    code = ctypes.create_string_buffer(b"".join(program))
    header = _Program(len(program), ctypes.addressof(code))
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or library.prctl(
        _PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(header), 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel refused the network guard")


class _Program(ctypes.Structure):
    """``struct sock_fprog``: a length and a pointer to the instructions."""

    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


def _program(architecture: int, socket_call: int) -> list[bytes]:
    """Return the filter; a jump counts the instructions that it leaves out when equal, and when not."""
    return [
        _instruction(_LOAD_WORD, 0, 0, _ARCHITECTURE),
        _instruction(_JUMP_IF_EQUAL, 0, 5, architecture),
        _instruction(_LOAD_WORD, 0, 0, _CALL),
        _instruction(_JUMP_IF_EQUAL, 0, 3, socket_call),
        _instruction(_LOAD_WORD, 0, 0, _FIRST_ARGUMENT),
        _instruction(_JUMP_IF_EQUAL, 2, 0, socket.AF_INET),
        _instruction(_JUMP_IF_EQUAL, 1, 0, socket.AF_INET6),
        _instruction(_RETURN, 0, 0, _ALLOW),
        _instruction(_RETURN, 0, 0, _KILL_PROCESS),
    ]


def _instruction(code: int, equal: int, otherwise: int, operand: int) -> bytes:
    """Pack a ``struct sock_filter``."""
    return struct.pack("HBBI", code, equal, otherwise, operand)
