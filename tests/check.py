"""`python -m tests.check`: everything CI runs, step by step, up to the first failure.

`.ci/run` does the same in fresh virtual environments, with the README's own commands.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_HERE = Path(sys.executable)
QUALITY: dict[str, tuple[str, ...]] = {
    "ruff format": (sys.executable, "-m", "ruff", "format", "--check", "."),
    "ruff check": (sys.executable, "-m", "ruff", "check", "."),
    "mypy": (sys.executable, "-m", "mypy"),
    "lint-imports": (str(_HERE.with_name("lint-imports")),),
}
"""Checks of the code itself; `tests/docs/test_quality.py` runs them too."""
TESTS: dict[str, tuple[str, ...]] = {
    "pytest": (sys.executable, "-m", "pytest", "--ignore=tests/docs"),
    "README and samples": (
        sys.executable,
        "-m",
        "pytest",
        "tests/docs",
        "--ignore=tests/docs/test_quality.py",  # its checks are steps of their own here
    ),
}


def main() -> int:
    steps = QUALITY | TESTS
    for number, (name, command) in enumerate(steps.items(), 1):
        print(f"--- {number}/{len(steps)} {name}", flush=True)
        code = subprocess.run(command, cwd=ROOT, stdin=subprocess.DEVNULL, env=os.environ | {"CI": "true"}).returncode
        if code:
            print(f"--- {name} failed with exit code {code}", flush=True)
            return code
    print("--- all passed", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
