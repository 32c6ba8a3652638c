"""The peers: what other tools make of the same model by themselves, each in an environment of its own.

A script in ``bench/peers/`` calls the tool as its manual does and says what it made. What it made, and how it failed,
is kept, and made again when the script, its pins or the model change (or with ``--fresh``).
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from bench import environments
from bench.build_rows.field import Entrant
from bench.build_rows.material import HOME, Material, calibration
from bench.environments import PEERS, ROOT, Environment, EnvironmentMissingError
from skerry.build import toolchain
from skerry.build.artifact import Artifact, Form
from skerry.build.following import follow
from skerry.build.techniques.buckets import doubling
from skerry.run.digest import file_digest
from skerry.spec.errors import SkerryError

MAKE_S = 600.0
"""How long a peer may take to make its forms: Olive and the export to LiteRT take one to three minutes."""
MAKE_BYTES = 12 * 2**30


class Peer(NamedTuple):
    """A tool: its script, the environment that the script runs in, and the names of what it makes.

    ``environment`` is ``own`` for the one that the benchmark runs in (it has the same ONNX Runtime), ``toolchain:NAME``
    for one of Skerry's toolchains, else a file of pins in ``bench/peers/``. ``runs_in`` is where its form is run and by
    what, if not by a runtime of Skerry's. ``packages`` are those whose versions are told.
    """

    name: str
    script: str
    environment: str
    makes: tuple[str, ...]
    packages: tuple[str, ...]
    needs: str = ""
    runs_in: str = ""
    program: str = ""


ALL: tuple[Peer, ...] = (
    Peer("onnxruntime", "onnxruntime_default.py", "own", ("ORT dynamic int8",), ("onnxruntime",)),
    Peer("optimum", "optimum_recipe.py", "optimum", ("Optimum avx512_vnni", "Optimum avx2"),
         ("optimum", "optimum-onnx")),
    Peer("nncf", "nncf_default.py", "toolchain:openvino",
         ("NNCF compress_weights", "NNCF quantize", "NNCF quantize, transformer"), ("nncf", "openvino"), needs="texts"),
    Peer("ctranslate2", "ctranslate2_int8.py", "ctranslate2_convert", ("CTranslate2 int8",), ("ctranslate2",),
         runs_in="ctranslate2", program="ctranslate2_child.py"),
    Peer("ai-edge-quantizer", "ai_edge_default.py", "toolchain:litert", ("ai-edge-quantizer",),
         ("ai-edge-quantizer", "litert-torch"), needs="litert"),
    Peer("olive", "olive_optimize.py", "olive", ("Olive optimize", "Olive optimize, dynamo"), ("olive-ai",)),
)  # fmt: skip
SHORT_RIVALS = ("ORT", "Optimum", "NNCF", "CTranslate2", "Olive")
"""How the names begin of those that run in ONNX Runtime, OpenVINO or CTranslate2."""


class Product(msgspec.Struct, frozen=True, kw_only=True):
    """What a script says of one form: where it is, or why there is none."""

    name: str
    form: Form = "onnx"
    file: str = ""
    failure: str = ""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """What a peer made, kept beside the files."""

    products: tuple[Product, ...]
    versions: dict[str, str]


class Lineup(NamedTuple):
    """The peers that take part, why others do not, and the versions of all."""

    entrants: list[Entrant]
    missing: dict[str, str]
    versions: dict[str, str]


def line_up(
    material: Material, say: Callable[[str], None], *, peers: Sequence[Peer] = ALL, fresh: bool = False
) -> Lineup:
    """Return every peer's forms, made where they are not there yet."""
    lineup = Lineup([], {}, {})
    for peer in peers:
        folder = HOME / "peers" / f"{peer.name}-{_key(peer, material)}"
        if fresh:
            shutil.rmtree(folder, ignore_errors=True)
        made = _kept(folder)
        try:
            if made is None:
                say(f"{peer.name}: make {', '.join(peer.makes)}")
                made = _make(peer, material, folder)
            runner = _runner(peer)
        except (EnvironmentMissingError, SkerryError, OSError) as error:
            lineup.missing.update(dict.fromkeys(peer.makes, _one_line(str(error))))
            continue
        lineup.versions.update(made.versions)
        for product in made.products:
            if product.failure:
                lineup.missing[product.name] = product.failure
            else:
                lineup.entrants.append(_entrant(product, folder, material, runner, peer))
    return lineup


def _key(peer: Peer, material: Material) -> str:
    pins = PEERS / f"{peer.environment}.txt"
    parts = [
        (PEERS / peer.script).read_bytes(), pins.read_bytes() if pins.is_file() else b"",
        toolchain.place(_toolchain(peer)).name.encode() if _toolchain(peer) else b"",
        file_digest(material.fp32.path).encode(),
    ]  # fmt: skip
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _toolchain(peer: Peer) -> str:
    return peer.environment.partition("toolchain:")[2]


def _kept(folder: Path) -> Made | None:
    try:
        return msgspec.json.decode((folder / "made.json").read_bytes(), type=Made)
    except (OSError, msgspec.DecodeError):
        return None


def _make(peer: Peer, material: Material, folder: Path) -> Made:
    """Run the script and keep what it says; nothing is kept of an environment that cannot be had."""
    environment = _environment(peer)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    request: dict[str, Any] = {
        "model": str(material.folder), "onnx": str(material.fp32.path), "target": str(folder),
        "max_tokens": material.fp32.max_tokens,
    }  # fmt: skip
    if peer.needs == "texts":
        request["texts"] = calibration(material)
    if peer.needs == "litert":
        request["litert"] = str(_litert(material))
    products = _asked(peer, environment, request)
    versions = {name: environment.versions.get(name, "unknown") for name in peer.packages}
    made = Made(products=products, versions=versions)
    (folder / "made.json").write_bytes(msgspec.json.format(msgspec.json.encode(made)))
    return made


def _asked(peer: Peer, environment: Environment, request: dict[str, Any]) -> tuple[Product, ...]:
    """Run a script and return what it made; a script that ends badly made nothing, for the reason it gave last."""
    heard: list[str] = []
    ended = follow(
        [str(environment.python), "-P", str(PEERS / peer.script)], on_line=heard.append, text=json.dumps(request),
        variables=environments.clean_variables() | environments.SILENT | {"CUDA_VISIBLE_DEVICES": ""},
        time_limit_s=MAKE_S, memory_limit_bytes=MAKE_BYTES,
    )  # fmt: skip
    if ended.code == 0 and not ended.cut and heard:
        return msgspec.json.decode(heard[-1], type=tuple[Product, ...])
    why = f"over the limit of {ended.cut}" if ended.cut else environments.last_error_line("\n".join(ended.tail))
    return tuple(Product(name=name, failure=_one_line(why)) for name in peer.makes)


def _environment(peer: Peer) -> Environment:
    """Return where a peer's script runs, made first where it is missing."""
    if peer.environment == "own":
        return Environment("own", Path(sys.executable), environments.list_versions(Path(sys.executable)))
    name = _toolchain(peer)
    if not name:
        return environments.provide(peer.environment)
    installed = toolchain.provide(name, say=lambda line: print(line, file=sys.stderr, flush=True))
    return Environment(name, toolchain.python_of(toolchain.place(name)), installed.versions)


def _runner(peer: Peer) -> Environment | None:
    """Return the environment that a peer's forms are run in, where it is not ours."""
    return environments.provide(peer.runs_in) if peer.runs_in else None


def _litert(material: Material) -> Path:
    """Return the fp32 LiteRT graph that a quantizer starts from, with lengths that double.

    By itself a LiteRT graph has one length, and texts of 12 tokens would pay for all of it: the peer gets the lengths.
    """
    target = HOME / "peers" / "litert" / f"{file_digest(material.fp32.path).partition(':')[2][:16]}.tflite"
    if not target.is_file():
        target.parent.mkdir(parents=True, exist_ok=True)
        request = {
            "model": str(material.folder), "target": str(target), "buckets": list(doubling(material.fp32.max_tokens)),
            "output": "last_hidden_state",
        }  # fmt: skip
        toolchain.run("litert", "litert_from_torch.py", request)
    return target


def _entrant(product: Product, folder: Path, material: Material, runner: Environment | None, peer: Peer) -> Entrant:
    path = folder / product.file
    files = tuple(sorted(other.name for other in path.parent.iterdir() if other.is_file() and _belongs(other, path)))
    artifact = Artifact(
        form=product.form, folder=path.parent, file=path.name, files=files, source=material.fp32.source,
        tokenizer=material.fp32.tokenizer, pooling=material.fp32.pooling, normalize=material.fp32.normalize,
        max_tokens=material.fp32.max_tokens, dimension=material.fp32.dimension,
    )  # fmt: skip
    if runner is None:
        return Entrant(product.name, artifact)
    return Entrant(product.name, artifact, runner.python, ROOT / "bench" / "peers" / peer.program)


def _belongs(other: Path, path: Path) -> bool:
    """Tell whether a file is part of a product: it has the product's stem, or weights that are named after it."""
    return other.stem == path.stem or other.name.startswith(path.name)


def _one_line(text: str) -> str:
    return " ".join(text.split())[:300]
