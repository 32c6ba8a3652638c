"""The metrics of a hub as OpenMetrics text."""

from __future__ import annotations

from skerry.fleet.hub.parts import Parts
from skerry.run.openmetrics import counter, gauge, process_load


def render(parts: Parts) -> str:
    """Return the text: counts since the start, what waits, what devices lost, how far each egress is."""
    counts, store = parts.counts, parts.store
    losses: dict[str, int] = {}
    for account in store.accounts():
        for name, number in account.losses.items():
            losses[name] = losses.get(name, 0) + number
    last = store.last_id()
    states = [(outlet.name, outlet.state()) for outlet in parts.outlets]
    load = process_load()
    families = [
        counter("skerry_hub_batches", "Batches by outcome.", [({"outcome": k}, v) for k, v in counts.batches.items()]),
        counter("skerry_hub_records", "Records by fate.", [({"fate": k}, v) for k, v in counts.records.items()]),
        counter("skerry_hub_batch_bytes", "Bytes of batches that were taken.", [({}, counts.bytes_in)], "bytes"),
        counter("skerry_hub_commits", "Commits of the store.", [({}, parts.writer.commits)]),
        gauge("skerry_hub_waiting_jobs", "Batches and other writes that wait.", [({}, parts.writer.waiting)]),
        gauge("skerry_hub_held_bytes", "Bytes of batches under way.", [({}, counts.in_flight_bytes)], "bytes"),
        counter("skerry_hub_forgotten", "Old records that were deleted.", [({}, counts.forgotten)]),
        gauge("skerry_hub_last_record", "The number of the newest record.", [({}, last)]),
        counter("skerry_device_losses", "Records that devices gave up, by class and reason, as they report it.",
                [({"kind": name}, number) for name, number in sorted(losses.items())]),
        gauge("skerry_egress_behind", "Records that an egress has not delivered yet.",
              [({"egress": name}, max(0, last - state["position"])) for name, state in states]),
        counter("skerry_egress_delivered", "Records that were delivered.",
                [({"egress": name}, state["delivered"]) for name, state in states]),
        counter("skerry_egress_failures", "Attempts that failed.",
                [({"egress": name}, state["failures"]) for name, state in states]),
        gauge("process_resident_memory_bytes", "Memory of the process.", [({}, load["resident_bytes"])], "bytes"),
        counter("process_cpu_seconds", "CPU time of the process.", [({}, load["cpu_seconds"])], "seconds"),
    ]  # fmt: skip
    return "".join(families) + "# EOF\n"
