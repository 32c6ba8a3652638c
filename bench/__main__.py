"""All benchmarks: run each in a process of its own, and say at the end which bounds are broken."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def benchmarks(folder: Path = HERE) -> list[str]:
    """Return the names of the modules that are a benchmark: those with a top-level ``main``."""
    return [path.stem for path in sorted(folder.glob("[a-z]*.py")) if has_main(path)]


def has_main(path: Path) -> bool:
    """Tell whether a module defines ``main``, without importing it."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return any(isinstance(node, ast.FunctionDef) and node.name == "main" for node in tree.body)


def run_all() -> int:
    """Run every benchmark even when one fails; return 1 when one did."""
    failed: list[str] = []
    for name in benchmarks():
        print(f"\n== bench-{name}", flush=True)
        if subprocess.run([sys.executable, "-m", f"bench.{name}"], cwd=HERE.parent, check=False).returncode:
            failed.append(name)
    print(f"\n{len(failed)} of {len(benchmarks())} benchmarks broke a bound or failed: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(run_all())
