"""A process that writes into an outbox for ever and prints each number that was acknowledged: to be killed."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

from skerry.run.outbox import Item, Outbox
from tests.run.outbox.parts import options

PRINTING = threading.Lock()


def produce(outbox: Outbox, thread: int) -> None:
    number = 0
    while True:
        number += 1
        name = f"{thread}-{number}"
        outbox.put([Item(stream="s", fields={"name": name, "pad": "x" * 200})])
        with PRINTING:
            sys.stdout.write(f"{name}\n")
            sys.stdout.flush()


if __name__ == "__main__":
    opened = Outbox(Path(sys.argv[1]), device="d", options=options())
    for index in range(4):
        threading.Thread(target=produce, args=(opened, index), daemon=True).start()
    threading.Event().wait()
