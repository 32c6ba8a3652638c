"""Images: a folder of them as the rows of a model, prepared as its ``preprocessor_config.json`` says.

Images in folders of their own are labelled by these: with the number that the model's ``label2id`` gives to the name,
or else with the place of the name among the sorted ones. The steps, in this order, are those of Hugging Face's image
processors: resize, crop the middle, rescale, flip the channels, normalise.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from skerry.build import rows
from skerry.build.rows import Rows
from skerry.run.tensors import fits, said
from skerry.spec.errors import DependencyError, ModelKindError, SpecError
from skerry.spec.ports import Array, TensorSpec

CONFIG = "preprocessor_config.json"
SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})

_BILINEAR = 2
_WHOLE = 384
"""From this size on, processors with a ``crop_pct`` (ConvNeXT) resize without a crop."""


class Preparation(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a ``preprocessor_config.json`` that is known here; see the documentation of transformers."""

    do_resize: bool = True
    size: dict[str, int] | int | None = None
    resample: int = _BILINEAR
    crop_pct: float | None = None
    do_center_crop: bool = False
    crop_size: dict[str, int] | int | None = None
    do_rescale: bool = True
    rescale_factor: float = 1 / 255
    rescale_offset: bool = False
    do_flip_channel_order: bool = False
    do_normalize: bool = False
    image_mean: list[float] | None = None
    image_std: list[float] | None = None
    do_pad: bool = False


def read_preparation(path: Path) -> Preparation:
    """Read a model's configuration; raises ``SpecError`` for a damaged one, ``ModelKindError`` for unknown steps."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=Preparation)
    except OSError as error:
        raise SpecError(f"the configuration cannot be read: {error.strerror or error}", where=str(path)) from error
    except msgspec.DecodeError as error:
        raise SpecError(f"this configuration is not understood: {error}", where=str(path)) from error
    unknown = [name for name in ("do_pad", "rescale_offset") if getattr(found, name)]
    if unknown:
        raise ModelKindError(
            f"images are not prepared with {unknown[0]} here", where=str(path),
            hint="prepare them yourself and give the arrays as .npz",
        )  # fmt: skip
    return found


def read_images(
    folder: Path, inputs: Sequence[TensorSpec], preparation: Preparation, label2id: Mapping[str, int], most: int
) -> Rows:
    """Read and prepare the images of a folder.

    Parameters
    ----------
    inputs:
        Of the model: one, float of shape (batch, 3, height, width) or (batch, height, width, 3).
    label2id:
        The numbers of the model's classes, to know the names of folders by.
    most:
        How many are read at the most, at even distances.

    Raises
    ------
    SpecError
        There is no image, one cannot be read, or is not of the size that the model takes.
    ModelKindError
        The model has other inputs than one for images.
    DependencyError
        The package Pillow is not installed.
    """
    spec = _image_input(folder, inputs)
    paths = sorted(path for path in folder.glob("**/*") if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise SpecError("there is no image in this folder", where=str(folder), expected=", ".join(sorted(SUFFIXES)))
    step = max(len(paths) / most, 1.0)
    chosen = [paths[int(place * step)] for place in range(min(most, len(paths)))]
    items = []
    for path in chosen:
        array = prepared(path, preparation)
        array = array if spec.shape[1] in (3, array.shape[0]) else array.transpose(1, 2, 0)
        if not fits(spec, array.shape):
            raise SpecError(f"the prepared image has the shape {array.shape}", where=str(path), expected=said(spec))
        items.append({spec.name: array.astype(spec.dtype, order="C")})
    return rows.made(str(folder), items, _labels(folder, paths, chosen, label2id), called="images")


def prepared(path: Path, preparation: Preparation) -> Array:
    """Return an image as the model takes it, float32 of shape (3, height, width)."""
    import numpy as np

    image = _resized(_opened(path), preparation)
    if preparation.do_center_crop:
        image = _cropped(image, *_both(preparation.crop_size, image.size))
    found: Any = np.asarray(image, dtype=np.float32)
    if preparation.do_rescale:
        found = found * np.float32(preparation.rescale_factor)
    if preparation.do_flip_channel_order:
        found = found[..., ::-1]
    if preparation.do_normalize:
        mean, std = preparation.image_mean or [0.5] * 3, preparation.image_std or [0.5] * 3
        found = (found - np.asarray(mean, dtype=np.float32)) / np.asarray(std, dtype=np.float32)
    return np.ascontiguousarray(found.transpose(2, 0, 1), dtype=np.float32)


def _image_input(folder: Path, inputs: Sequence[TensorSpec]) -> TensorSpec:
    fitting = [spec for spec in inputs if len(spec.shape) == 4 and spec.dtype.startswith("float")]
    if len(inputs) != 1 or not fitting:
        raise ModelKindError(
            f"a folder of images fills one input, and the model has {', '.join(map(said, inputs))}",
            where=str(folder), hint="give the arrays as .npz",
        )  # fmt: skip
    return fitting[0]


def _opened(path: Path) -> Any:
    try:
        library: Any = importlib.import_module("PIL.Image")
    except ImportError as error:
        raise DependencyError(
            f"reading images needs the package Pillow: {error}",
            hint="pip install 'skerry[images]', or give the arrays as .npz",
        ) from error
    try:
        with library.open(path) as image:
            return image.convert("RGB")
    except (OSError, ValueError, SyntaxError, library.DecompressionBombError) as error:
        raise SpecError(f"this image cannot be read: {error}", where=str(path)) from error


def _resized(image: Any, preparation: Preparation) -> Any:
    if not preparation.do_resize or preparation.size is None:
        return image
    size = preparation.size if isinstance(preparation.size, dict) else {"shortest_edge": preparation.size}
    if "shortest_edge" not in size:
        return image.resize((size["width"], size["height"]), preparation.resample)
    shortest = size["shortest_edge"]
    if preparation.crop_pct is None:
        return _to_shortest(image, shortest, preparation.resample)
    if shortest >= _WHOLE:
        return image.resize((shortest, shortest), preparation.resample)
    return _cropped(_to_shortest(image, int(shortest / preparation.crop_pct), preparation.resample), shortest, shortest)


def _to_shortest(image: Any, shortest: int, resample: int) -> Any:
    width, height = image.size
    short, long = min(width, height), max(width, height)
    other = int(shortest * long / short)
    return image.resize((shortest, other) if width <= height else (other, shortest), resample)


def _cropped(image: Any, width: int, height: int) -> Any:
    """Return the middle; what lies beyond a smaller image is black."""
    left, top = (image.size[0] - width) // 2, (image.size[1] - height) // 2
    return image.crop((left, top, left + width, top + height))


def _both(size: dict[str, int] | int | None, default: tuple[int, int]) -> tuple[int, int]:
    """Return width and height."""
    if size is None:
        return default
    return (size, size) if isinstance(size, int) else (size["width"], size["height"])


def _labels(folder: Path, paths: Sequence[Path], chosen: Sequence[Path], label2id: Mapping[str, int]) -> list[int]:
    """Return the class of each image by the folder that it is in; none where one lies outside of such folders."""
    if any(path.parent == folder for path in paths):
        return []
    names = sorted({path.relative_to(folder).parts[0] for path in paths})
    numbers = label2id if all(name in label2id for name in names) else {name: at for at, name in enumerate(names)}
    return [numbers[path.relative_to(folder).parts[0]] for path in chosen]
