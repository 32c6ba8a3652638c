"""NATS as a transport: batches as requests on ``skerry.DEVICE.batch``, receipts as their replies."""

from __future__ import annotations

import asyncio
from typing import Any

from skerry.fleet.hub.egress.address import Place
from skerry.fleet.hub.nats_client import connect
from skerry.fleet.hub.transports.carrier import CarrierOptions, Desk

AT_ONCE = 256
"""Batches that wait for their commits; those beyond it wait at the client, within the bytes of ``in_flight``."""


class NatsCarrier:
    """One subscription at a server. Nothing is kept by the server: a device that hears nothing sends again."""

    def __init__(self, place: Place, options: CarrierOptions, desk: Desk) -> None:
        self.name = place.name
        self._place, self._options, self._desk = place, options, desk
        self._tasks: set[asyncio.Task[None]] = set()

    async def carry(self) -> None:
        """Take batches until the connection ends."""
        connection = await connect(self._place, tls=self._options.tls, ca=self._options.ca)
        room = asyncio.Semaphore(AT_ONCE)

        async def arrived(message: Any) -> None:
            await room.acquire()
            task = asyncio.get_running_loop().create_task(self._answer(connection, message))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            task.add_done_callback(lambda _: room.release())

        try:
            await connection.subscribe(
                f"{self._options.prefix}.*.batch", cb=arrived, pending_bytes_limit=int(self._desk.options.in_flight)
            )
            while not connection.is_closed:
                await asyncio.sleep(0.2)
        finally:
            for task in self._tasks:
                task.cancel()
            await connection.close()

    async def _answer(self, connection: Any, message: Any) -> None:
        if not message.reply:
            return  # nobody waits for the receipt, so nothing would be settled
        reply = await self._desk.answer(message.data, message.subject.split(".")[-2])
        await connection.publish(message.reply, reply.body, headers=reply.headers or None)
