"""The page of the model-free stages names every option, and its examples work."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from skerry.run.stages import (
    anomaly,
    debounce,
    extract,
    filter,  # noqa: A004  the stage's own name
    hysteresis,
    map,  # noqa: A004  the stage's own name
    normalize,
    parse,
    redact,
    resample,
    standardize,
    state,
    threshold,
    window,
)
from skerry.testing.stages import decode_options

PAGE = (Path(__file__).parents[2] / "docs" / "stages.md").read_text()
STAGES: dict[str, Any] = {
    "anomaly": anomaly.AnomalyStage,
    "debounce": debounce.DebounceStage,
    "extract": extract.ExtractStage,
    "filter": filter.FilterStage,
    "hysteresis": hysteresis.HysteresisStage,
    "map": map.MapStage,
    "normalize": normalize.NormalizeStage,
    "parse": parse.ParseStage,
    "redact": redact.RedactStage,
    "resample": resample.ResampleStage,
    "standardize": standardize.StandardizeStage,
    "state": state.StateStage,
    "threshold": threshold.ThresholdStage,
    "window": window.WindowStage,
}


def section(name: str) -> str:
    return PAGE.split(f"\n## {name}\n")[1].split("\n## ")[0]


@pytest.mark.parametrize("name", STAGES)
def test_every_option_is_on_the_page(name: str) -> None:
    missing = [field for field in STAGES[name].Options.__struct_fields__ if f"`{field}`" not in section(name)]
    assert not missing


@pytest.mark.parametrize("name", STAGES)
def test_every_example_is_accepted(name: str) -> None:
    examples = re.findall(r"```yaml\n(.*?)```", section(name), re.DOTALL)
    assert examples
    for example in examples:
        for entry in YAML(typ="safe").load(example):
            STAGES[name](decode_options(STAGES[name], entry[name]))
