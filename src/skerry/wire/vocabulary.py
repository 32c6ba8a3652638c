"""The vocabulary: words that batches of this project hold again and again, known to both ends before the first byte.

It is a raw-content dictionary of zstd: each word ends as a text of a batch does, with the byte 255. It belongs to the
version of the format: to add a word is to make a new version.
"""

from __future__ import annotations

from typing import Final

LOGS: Final = (
    "remove purge trigproc config-files not-installed triggers-awaited triggers-pending startup archives packages "
    "upgrade install configure status half-installed half-configured unpacked installed <none> "
    "systemd kernel cron sshd sudo session opened closed for user root connection refused timeout from port "
    "/usr/share/doc/ /usr/share/man/man1/ .1.gz /usr/lib/ /usr/bin/ /var/log/ .service .log "
    "link group updated to point to --install --slave python3- lib :arm64 :amd64 :all "
    "failed failure error warning info debug security change routine event"
)
"""Words of the logs of Linux, by their own manuals: dpkg, update-alternatives, syslog."""

NAMES: Final = (
    "name id unit device sensor value values level state level_previous count sum min max mean std slope latency_ms "
    "window_start window_end window_items window_complete anomaly anomaly_field alarm changed previous confidence "
    "topic path host program message text labels label score log "
    "time cpu_percent cpu_percent_per_core load_1m load_5m load_15m processes "
    "memory_percent memory_used_bytes memory_available_bytes swap_percent swap_used_bytes disk_percent disk_free_bytes "
    "disk_read_bytes_per_s disk_write_bytes_per_s network_received_bytes_per_s network_sent_bytes_per_s "
    "temperature_c battery_percent on_battery"
)
"""Names of fields that the sources and stages of Skerry give."""

VOCABULARY: Final = b"".join(word.encode() + b"\xff" for word in f"{LOGS} {NAMES}".split(" "))
