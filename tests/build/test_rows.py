"""Rows of arrays and images: what is read, and what is refused, with the place and what would be right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skerry.build.classes import class_numbers, numbered
from skerry.build.images import Preparation, prepared, read_images, read_preparation
from skerry.build.rows import Rows, read_rows
from skerry.build.splits import split
from skerry.spec.errors import DependencyError, ModelKindError, SpecError, SpecMissingError
from skerry.spec.ports import TensorSpec

PIXELS = (TensorSpec("pixels", "float32", ("batch", 3, 4, 4)),)
TOKENS = (
    TensorSpec("input_ids", "int64", ("batch", "tokens")), TensorSpec("attention_mask", "int64", ("batch", "tokens")),
)  # fmt: skip
IMAGES = np.random.default_rng(0).normal(size=(60, 3, 4, 4)).astype(np.float32)


def written(folder: Path, **arrays: Any) -> Path:
    path = folder / "data.npz"
    np.savez(path, **arrays)
    return path


def test_stacked_arrays_become_rows_with_their_labels(tmp_path: Path) -> None:
    rows = read_rows(written(tmp_path, pixels=IMAGES.astype(np.float64), labels=np.arange(60) % 3), PIXELS, 2000)
    assert len(rows.items) == 60
    assert rows.items[7]["pixels"].dtype == np.float32
    assert np.allclose(rows.items[7]["pixels"], IMAGES[7])
    assert rows.truth("accuracy") == tuple(range(3)) * 20
    assert rows.truth("perplexity") is None
    assert len(read_rows(tmp_path / "data.npz", PIXELS, 25).items) == 25


def test_items_of_different_sizes_are_numbered(tmp_path: Path) -> None:
    found: dict[str, Any] = {}
    for row in range(5):
        found[f"input_ids.{row}"] = np.arange(row + 2, dtype=np.int32)
        found[f"attention_mask.{row}"] = np.ones(row + 2, dtype=np.int64)
    rows = read_rows(written(tmp_path, **found), TOKENS, 2000)
    assert [row["input_ids"].shape for row in rows.items] == [(2,), (3,), (4,), (5,), (6,)]
    truth = rows.truth("perplexity")
    assert truth is not None
    assert truth[3].tolist() == [0, 1, 2, 3, 4]


def test_rows_are_split_with_their_labels_and_equal_ones_stay_together(tmp_path: Path) -> None:
    twice = np.concatenate([IMAGES, IMAGES[:10]])
    rows = read_rows(written(tmp_path, pixels=twice, labels=np.arange(70)), PIXELS, 2000)
    splits = split(rows)
    parts: list[Rows] = [splits.calibrate, splits.select, splits.report]
    seen = [digest for part in parts for digest in part.digests]
    assert len(seen) == len(set(seen)) == 60
    for part in parts:
        assert part.called == "rows"
        for row, label in zip(part.items, part.labels, strict=True):
            assert np.array_equal(row["pixels"], twice[label])


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"pixel": IMAGES}, "the model has no input 'pixel'.*did you mean 'pixels'"),
        ({"labels": np.arange(60)}, "no array for the input 'pixels'"),
        ({"pixels": IMAGES[:, :2]}, r"pixels, item 0: the shape is \(2, 4, 4\).*float32 \(3, 4, 4\)"),
        ({"pixels": (IMAGES * 9).astype(np.uint8)}, r"the numbers are uint8.*astype\('float32'\)"),
        ({"pixels": np.where(IMAGES > 2, np.nan, IMAGES)}, r"pixels, item \d+: a number is NaN"),
        ({"pixels": IMAGES, "labels": np.arange(59)}, "59 items in 'labels' and 60 in 'pixels'"),
        ({"pixels": IMAGES, "labels": np.full(60, np.nan)}, "a label is float64: nan"),
        ({"pixels": IMAGES[:0]}, "the file holds no items"),
        ({"pixels": np.float32(3)}, "'pixels' has no axis of items"),
        ({"pixels.0": IMAGES[0], "pixels.2": IMAGES[0]}, r"there is no array pixels.1.*without a gap"),
        ({"pixels": np.array([{"a": 1}, None], dtype=object)}, "pickled Python objects"),
    ],
    ids=["name", "missing", "shape", "kind", "nan", "labels", "nan label", "none", "scalar", "gap", "pickled"],
)
def test_what_does_not_fit_the_model_is_told_with_its_place(tmp_path: Path, arrays: Any, said: str) -> None:
    path = written(tmp_path, **arrays)
    with pytest.raises(SpecError) as caught:
        read_rows(path, PIXELS, 2000)
    assert "data.npz" in str(caught.value)
    assert caught.match(f"(?s){said}")


def test_no_file_and_no_arrays(tmp_path: Path) -> None:
    with pytest.raises(SpecMissingError):
        read_rows(tmp_path / "none.npz", PIXELS, 2000)
    (tmp_path / "text.npz").write_text("these are words")
    with pytest.raises(SpecError, match=r"cannot be read|pickled"):
        read_rows(tmp_path / "text.npz", PIXELS, 2000)
    whole = written(tmp_path, pixels=IMAGES).read_bytes()
    (tmp_path / "short.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(SpecError, match="cannot be read"):
        read_rows(tmp_path / "short.npz", PIXELS, 2000)


def test_three_rows_are_too_few(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"(?s)too few different rows.*at least 48 that differ") as caught:
        split(read_rows(written(tmp_path, pixels=IMAGES[:3]), PIXELS, 2000))
    assert "data: evaluate:" in caught.value.hint


def test_labels_by_name_are_those_of_the_model(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"label2id": {"cat": 1, "dog": 0}}))
    numbers = class_numbers([tmp_path / "elsewhere", tmp_path])
    assert numbered(["dog", 1, "cat"], numbers, "data") == [0, 1, 1]
    with pytest.raises(SpecError, match=r"(?s)no class 'cats'.*did you mean 'cat'"):
        numbered(["cats"], numbers, "data")
    with pytest.raises(SpecError, match=r"(?s)no class 'cat'.*numbers of the classes"):
        numbered(["cat"], {}, "data")
    with pytest.raises(SpecError, match="is no class"):
        numbered([0.5], {}, "data")


# Images

IMAGE_INPUT = (TensorSpec("pixel_values", "float32", ("batch", 3, 8, 8)),)


def pictures(folder: Path, count: int = 3) -> Path:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install 'skerry[images]'")
    for name in ("cat", "dog"):
        (folder / name).mkdir(parents=True)
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 255, (20, 30, 3), dtype=np.uint8)
            image.fromarray(noise).save(folder / name / f"{number}.png")
    return folder


def test_images_are_prepared_as_the_model_says_and_labelled_by_their_folders(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images")
    how = Preparation(
        size={"shortest_edge": 10}, do_center_crop=True, crop_size=8, do_normalize=True, image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    )  # fmt: skip
    rows = read_images(folder, IMAGE_INPUT, how, {}, 2000)
    assert (rows.called, rows.labels) == ("images", (0, 0, 0, 1, 1, 1))
    assert rows.items[0]["pixel_values"].shape == (3, 8, 8)
    assert -2 <= rows.items[0]["pixel_values"].min() < 0 < rows.items[0]["pixel_values"].max() <= 2
    assert read_images(folder, IMAGE_INPUT, how, {"dog": 0, "cat": 1}, 2000).labels == (1, 1, 1, 0, 0, 0)
    last = (TensorSpec("x", "float32", (1, 8, 8, 3)),)
    assert read_images(folder, last, how, {}, 2000).items[0]["x"].shape == (8, 8, 3)


def test_the_steps_are_those_of_hugging_face(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "images", 1)
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    told: dict[str, Any] = {
        "size": {"shortest_edge": 14}, "crop_size": {"height": 8, "width": 8}, "do_center_crop": True,
        "do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.3, 0.25], "resample": 3,
    }  # fmt: skip
    from PIL import Image

    try:
        processor = transformers.CLIPImageProcessorPil(**told)
    except (AttributeError, ImportError) as error:
        pytest.skip(f"transformers prepares no images here: {error}")
    wanted = processor(Image.open(folder / "cat" / "0.png"), return_tensors="np")["pixel_values"][0]
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps({**told, "image_processor_type": "CLIPImageProcessor"})
    )
    found = prepared(folder / "cat" / "0.png", read_preparation(tmp_path / "preprocessor_config.json"))
    assert np.allclose(found, wanted, atol=1e-5)


def test_images_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="no image in this folder"):
        read_images(tmp_path, IMAGE_INPUT, Preparation(), {}, 9)
    with pytest.raises(ModelKindError, match="fills one input"):
        read_images(tmp_path, TOKENS, Preparation(), {}, 9)
    path = tmp_path / "preprocessor_config.json"
    path.write_text('{"do_pad": true}')
    with pytest.raises(ModelKindError, match="do_pad"):
        read_preparation(path)
    path.write_text('{"size": "large"}')
    with pytest.raises(SpecError, match="not understood"):
        read_preparation(path)
    (tmp_path / "a.png").write_bytes(b"no image at all")
    with pytest.raises((SpecError, DependencyError), match=r"cannot be read|Pillow"):
        read_images(tmp_path, IMAGE_INPUT, Preparation(), {}, 9)


def test_without_pillow_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.delitem(sys.modules, "PIL.Image", raising=False)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DependencyError, match="needs the package Pillow"):
        read_images(tmp_path, IMAGE_INPUT, Preparation(), {}, 9)
