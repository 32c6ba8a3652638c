"""The documents of a search: all that it leaves to be read, by file name."""

from __future__ import annotations

from skerry.build import card, page
from skerry.build.findings import Findings, write_json

REPORT_FILE = "report.json"
PAGE_FILE = "report.html"
CARD_FILE = "README.md"


def documents(findings: Findings) -> dict[str, bytes]:
    """Return the contents of ``report.json``, ``report.html`` and the model card ``README.md``."""
    return {REPORT_FILE: write_json(findings), PAGE_FILE: page.render(findings), CARD_FILE: card.render(findings)}
