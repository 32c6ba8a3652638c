"""The page of a search: one ``report.html`` that needs nothing else, neither a network nor JavaScript."""

from __future__ import annotations

import base64
import hashlib
from importlib.resources import files

from skerry.build import wording
from skerry.build.findings import Findings
from skerry.build.page.budget import budget_section
from skerry.build.page.candidates import candidates_section, failures_section
from skerry.build.page.facts import facts_section
from skerry.build.page.markup import Markup, element
from skerry.build.page.plot import plot_section
from skerry.build.page.summary import header, warnings

__all__ = ["render"]


def render(findings: Findings) -> bytes:
    """Return the page as UTF-8; the same bytes for the same findings."""
    style, script = _part("style.css"), _part("script.js")
    policy = f"default-src 'none'; style-src '{_digest(style)}'; script-src '{_digest(script)}'"
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content=policy),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{wording.visible(findings.name)}: what the search found"),
        element("style", Markup(style)),
    )
    main = element(
        "main",
        warnings(findings),
        budget_section(findings),
        plot_section(findings),
        candidates_section(findings),
        failures_section(findings),
        facts_section(findings),
    )
    body = element("body", header(findings), main, element("script", Markup(script)))
    return f"<!doctype html>\n{element('html', head, body, lang='en')}\n".encode()


def _part(name: str) -> str:
    """Read a part of the page that holds nothing of the findings."""
    return (files(__package__) / name).read_text(encoding="utf-8")


def _digest(content: str) -> str:
    """Name a part to the browser, so that it runs this and nothing that a text might smuggle in."""
    return "sha256-" + base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
