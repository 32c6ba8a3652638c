"""The hub: records kept safe in an outbox on this device, and carried to the hub whenever the link allows."""

from __future__ import annotations

import contextlib
import re
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import msgspec

from skerry.run.encoding import Encoder
from skerry.run.uplink.options import UplinkOptions, check_options
from skerry.spec.errors import (
    OutboxError,
    OutboxFullError,
    SinkError,
    SinkFullError,
    SinkUnavailableError,
    TrustError,
)
from skerry.spec.ports import Address, Context
from skerry.spec.record import Record
from skerry.spec.units import Duration, Size

if TYPE_CHECKING:
    from skerry.run.outbox.outbox import Outbox
    from skerry.run.uplink.uplink import Uplink
    from skerry.trust.identity import Identity

Priority = Literal["low", "normal", "high", "critical"]
_PRIORITIES = frozenset(get_args(Priority))  # those of the outbox, which is not imported before a sink is opened
_NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PLAIN = frozenset({str, int, bool, type(None)})
_LONGEST_PLAIN = 20_000  # characters of one text beyond which a record's stored size is looked at


class HubOptions(UplinkOptions, frozen=True, kw_only=True):
    """What is kept, how urgent it is, and, from :class:`UplinkOptions`, when and how much is sent.

    Parameters
    ----------
    identity:
        The folder of the device's identity; default where ``skerry enroll`` puts it.
    device:
        The device's name, for a hub on the same machine that enrols nobody; default the host's name.
    priority:
        ``low``, ``normal`` (default), ``high`` or ``critical``: what is sent first, and given up last.
    priority_from:
        A field that holds one of these words, for single records; default none.
    ttl:
        How long a record is worth sending; default for ever.
    release:
        The digest of the release that makes the records (``sha256:…``); default that of the release that runs.
    max_size:
        The most that is kept while there is no link; default 256 MB, a day of one record of 300 bytes each 100 ms.
    class_sizes:
        The same for single classes, such as ``{low: 16MB}``; default none but ``max_size``.
    ballast:
        What is given up when others fill the disk; default 4 MB.
    farewell:
        How long the end of a run waits for the hub, as long as records get through; default 3 s. A link that is down is
        not waited for: what is left is sent by the next run.
    array_items:
        The largest array that is sent, in numbers; default 1024, so that an embedding is.
    """

    identity: str | None = None
    device: str | None = None
    priority: Priority = "normal"
    priority_from: str | None = None
    ttl: Duration | None = None
    release: str = ""
    max_size: Size = Size(256e6)
    class_sizes: dict[Priority, Size] = msgspec.field(default_factory=dict)
    ballast: Size = Size(4e6)
    farewell: Duration = Duration(3.0)
    array_items: int = 1024


class HubSink:
    """Puts records durably into an outbox; threads of its own carry them to the hub.

    A write returns once the records are safe on this device, so a run never waits for a link.
    """

    Options: ClassVar[type[HubOptions]] = HubOptions
    blocking: ClassVar[bool] = True

    def __init__(self, address: Address, options: HubOptions) -> None:
        check_options(options, where=address.text)
        self._address, self._options = address, options
        self._encoder = Encoder(options.array_items)
        self._outbox: Outbox | None = None
        self._uplink: Uplink | None = None
        self._adopted: list[Outbox] = []
        self._stream = self._release = ""
        self._last_counters: dict[str, int] = {}

    def open(self, context: Context) -> None:
        """Open the outbox and start the uplink; the hub need not be there.

        Raises ``SinkUnavailableError`` when the device is not enrolled or the outbox cannot be used, ``SpecError`` for
        an address that is none, ``DependencyError`` without the packages of ``skerry[sync]``.
        """
        self.close()
        self._stream, self._release = context.name, self._options.release or context.release
        identity = self._identity(context)
        try:
            self._outbox = self._open_outbox(context, identity.device)
            self._uplink = self._open_uplink(context, identity, self._outbox)
        except OutboxError as error:
            self.close()
            raise SinkUnavailableError(error.message, where=error.where, hint=error.hint) from error
        except BaseException:
            self.close()
            raise
        self._uplink.start()

    def _identity(self, context: Context) -> Identity:
        from skerry.trust.identity import load_identity, loopback_identity

        options = self._options
        try:
            if self._address.scheme == "hub+http":
                return loopback_identity(context.state / "identity", options.device or host_name())
            return load_identity(context.home / options.identity if options.identity else None)
        except TrustError as error:
            raise SinkUnavailableError(error.message, where=error.where, hint=error.hint) from error

    def _open_outbox(self, context: Context, device: str) -> Outbox:
        from skerry.run.outbox.options import OutboxOptions
        from skerry.run.outbox.outbox import Outbox

        options = self._options
        limits = msgspec.structs.replace(
            OutboxOptions(),
            max_size=options.max_size,
            class_sizes=options.class_sizes,
            ballast=options.ballast,
            max_record=Size(min(1e6, options.max_size)),
        )
        return Outbox(context.state / "outbox", device=device, options=limits)

    def _open_uplink(self, context: Context, identity: Identity, outbox: Outbox) -> Uplink:
        from skerry.run.outbox.clock import SystemClock
        from skerry.run.uplink.opening import open_uplink, read_target

        address = self._address
        rest = address.path or (f"{address.host}:{address.port}" if address.host else "")
        target = read_target(address.scheme, rest, identity.hub, insecure=context.insecure, where=context.name)
        uplink = open_uplink(
            outbox,
            target,
            identity,
            self._options,
            state=context.state,
            clock=SystemClock(),
            retire=_retire,
            log=context.log,
        )
        self._adopted = outbox.adopt()
        for left_behind in self._adopted:
            uplink.add(left_behind)
        return uplink

    def write(self, records: Sequence[Record]) -> None:
        """Store the records durably.

        Raises ``SinkError`` for a record that is too large, ``SinkFullError`` on a full disk, and
        ``SinkUnavailableError`` when the outbox cannot be written to; none of them has been stored then.
        """
        from skerry.run.outbox.item import Item, ItemsRefusedError

        outbox = self._outbox
        if outbox is None or self._uplink is None:
            raise SinkUnavailableError("the outbox is not open", where=self._stream)
        if not records:
            return
        ttl_s = None if self._options.ttl is None else float(self._options.ttl)
        items = [
            Item(
                stream=self._stream,
                fields=self._fields(record.fields),
                priority=self._priority(record.fields),
                ttl_s=ttl_s,
                release=self._release,
            )
            for record in records
        ]
        try:
            outbox.put(items, all_or_none=True)
        except ItemsRefusedError as error:  # whoever writes tries each alone then: what was stored would come twice
            raise SinkError(error.message, where=error.where, expected=error.expected) from error
        except OutboxFullError as error:
            raise SinkFullError(error.message, where=error.where, hint=error.hint) from error
        except OutboxError as error:
            raise SinkUnavailableError(error.message, where=error.where, hint=error.hint) from error
        self._uplink.wake()

    def _priority(self, fields: dict[str, Any]) -> Priority:
        found = fields.get(self._options.priority_from) if self._options.priority_from else None
        chosen: Any = found if isinstance(found, str) and found in _PRIORITIES else self._options.priority
        return chosen  # type: ignore[no-any-return]

    def _fields(self, fields: dict[str, Any]) -> dict[str, Any]:
        """Return fields as plain JSON values, as every sink writes them; what is plain already is left as it is."""
        for name, value in fields.items():
            kind = type(value)
            if type(name) is not str or not name.isascii() or (kind is str and not value.isascii()):
                break
            if kind is str and len(value) > _LONGEST_PLAIN:
                break
            if kind is float and (value != value or value in (_INFINITY, -_INFINITY)):  # noqa: PLR0124 -- a NaN
                break
            if kind not in _PLAIN and kind is not float:
                break
        else:
            return fields
        encoded = self._encoder.encode(fields)
        if len(encoded) > self._most_bytes:
            raise SinkError(
                f"a record of {len(encoded)} bytes", expected=f"at most {self._most_bytes}: files travel as blobs"
            )
        return dict(msgspec.json.decode(encoded))

    @property
    def _most_bytes(self) -> int:
        """Bytes of a record as JSON: a list of short numbers takes twice as much when it is stored."""
        return int(min(1e6, self._options.max_size) / 3)

    def flush(self) -> None:
        """Do nothing more: what was written is durable already."""
        if self._outbox is None:
            raise SinkUnavailableError("the outbox is not open", where=self._stream)

    def counters(self) -> dict[str, int]:
        """Return the counts of the uplink, and the losses of the outbox as `lost.…`."""
        uplink, outbox = self._uplink, self._outbox
        return self._last_counters if uplink is None or outbox is None else _counted(uplink, outbox)

    def send_blob(self, path: Path, *, kind: str = "application/octet-stream") -> str:
        """Queue a file for the hub and return its digest; see :meth:`skerry.run.uplink.uplink.Uplink.send_blob`."""
        if self._uplink is None:
            raise SinkUnavailableError("the outbox is not open", where=self._stream)
        return self._uplink.send_blob(path, kind=kind)

    def close(self) -> None:
        """Stop sending and close the outbox; what was not sent is sent by the next run. Safe to call twice."""
        uplink, self._uplink = self._uplink, None
        outbox, self._outbox = self._outbox, None
        if uplink is not None:
            with contextlib.suppress(OutboxError):
                uplink.wait_until_sent(self._options.farewell, while_healthy=True)
            uplink.close()
            if outbox is not None:
                self._last_counters = _counted(uplink, outbox)
        adopted, self._adopted = self._adopted, []
        for left_behind in adopted:
            left_behind.close()
        if outbox is not None:
            outbox.close()


_INFINITY = float("inf")


def _counted(uplink: Uplink, outbox: Outbox) -> dict[str, int]:
    status = msgspec.structs.asdict(uplink.status())
    counts = {name: value for name, value in status.items() if isinstance(value, int)}
    with contextlib.suppress(OutboxError):
        counts |= {f"lost.{name}": number for name, number in outbox.losses().items()}
    return counts


def _retire(store: Any) -> None:
    """Remove a store that another process left behind, once it is empty."""
    store.retire()


def host_name() -> str:
    """Return this host's name as the name of a device."""
    name = re.sub(r"[^a-z0-9-]+", "-", socket.gethostname().split(".")[0].lower()).strip("-")[:63]
    return name if _NAME.fullmatch(name) else "device"
