"""Act: append one line about the alarm on standard input to the file that is named."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path


def main() -> int:
    """Write what is unusual, and how much; return 0."""
    alarm = json.load(sys.stdin)
    name = alarm["anomaly_field"]
    at = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(alarm["time"]))
    path = Path(sys.argv[1])
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as alarms:
        alarms.write(f"{at} {name} is {alarm[name]:.1f}, {alarm['anomaly']:.1f} deviations from usual\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
