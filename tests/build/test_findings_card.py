"""The model card and the table for a terminal."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from ruamel.yaml import YAML

from skerry.build import card, table
from skerry.build.findings import Findings
from tests.build.findings_strategy import FINDINGS
from tests.build.sample_findings import HOPELESS, sample


def front_matter(content: bytes) -> dict[str, Any]:
    text = content.decode()
    assert text.startswith("---\n")
    found = YAML(typ="safe").load(text[4 : text.index("\n---\n", 3) + 1])
    assert isinstance(found, dict)
    return found


def test_the_card_has_what_a_hub_reads() -> None:
    found = front_matter(card.render(sample()))
    assert found["license"] == "apache-2.0"
    assert found["base_model"] == "sentence-transformers/all-MiniLM-L6-v2"
    assert found["base_model_relation"] == "quantized"
    assert found["library_name"] == "skerry"
    assert found["pipeline_tag"] == "feature-extraction"
    assert {"skerry", "litert", "litert-int8"} <= set(found["tags"])
    result = found["model-index"][0]["results"][0]
    assert result["task"]["type"] == "feature-extraction"
    assert result["dataset"]["split"] == "report"
    assert result["metrics"][0] == {
        "type": "agreement@10", "value": 0.971, "name": "agreement@10 (95 % interval 0.969 to 0.973)"
    }  # fmt: skip


def test_a_student_was_trained_and_not_only_quantized() -> None:
    assert front_matter(card.render(sample(HOPELESS)))["base_model_relation"] == "finetune"


@pytest.mark.parametrize(
    ("spdx", "found"),
    [
        ("", {"license": "unknown"}),
        ("MIT", {"license": "mit"}),
        ("GPL-3.0-or-later", {"license": "gpl-3.0"}),
        ("LicenseRef-My Terms", {"license": "other", "license_name": "my-terms"}),
    ],
)
def test_licences_are_named_as_a_hub_names_them(spdx: str, found: dict[str, str]) -> None:
    assert card.licence(spdx) == found


@pytest.mark.parametrize(
    ("source", "base"),
    [("hf://owner/name@main", "owner/name"), ("hf://owner/name", "owner/name"), ("pkg://owner", ""), ("a/b", "")],
)
def test_only_a_hub_has_base_models(source: str, base: str) -> None:
    origin = msgspec.structs.replace(sample().origin, source=source, base_model="")
    assert card.base_model(msgspec.structs.replace(sample(), origin=origin)) == base


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FINDINGS)
def test_every_card_can_be_read(found: Findings) -> None:
    content = card.render(found)
    matter = front_matter(content)
    assert all(isinstance(tag, str) for tag in matter["tags"])
    assert isinstance(matter["license"], str)
    assert "<script" not in content.decode().split("\n---\n", 1)[1].split("## Do it again")[0]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(FINDINGS)
def test_no_name_moves_the_cursor(found: Findings) -> None:
    shown = table.render(found)
    assert all(letter.isprintable() or letter == "\n" or ord(letter) > 0x9F for letter in shown)


def test_the_table_is_aligned_and_starts_with_the_best() -> None:
    lines = table.render(sample(), 3).splitlines()
    at = lines[1].index("agreement@10") + len("agreement@10")
    assert all(line[at - 5 : at].replace(".", "").isdigit() for line in lines[2:6])
    assert lines[3].startswith("*+")
    assert lines[2].split()[0] == "fp32"
    assert sum("keeps" in line for line in lines) == 2
    assert [line.split()[0] for line in lines if line.startswith("budget")] == ["budget:"] * 4


def test_the_table_says_what_failed_and_what_to_relax() -> None:
    shown = table.render(sample(HOPELESS, "raspberry-pi-5", ("latency_p50_ms",)))
    assert "planned for raspberry-pi-5" in shown
    assert "≈761 µs" in shown
    assert "relax agreement@10 from 0.990 to 0.855 (−14 %): layers3+distill+litert-int8 passes" in shown
    assert "refused: tensorrt-fp16: no NVIDIA device is at hand" in shown
