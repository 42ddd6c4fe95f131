"""For every test, and for every kernel that nbval starts: the book's code, one thread."""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent)
sys.path.insert(0, ROOT)

from tools.execute import ENVIRONMENT  # noqa: E402

os.environ.update(ENVIRONMENT)  # before torch is imported, and inherited by kernels
os.environ["PYTHONPATH"] = os.pathsep.join(
    part for part in (ROOT, os.environ.get("PYTHONPATH", "")) if part
)


def pytest_configure(config) -> None:  # noqa: ANN001
    """Strict nbval compares everything but drawings, however it is called."""
    if getattr(config.option, "nbval_sanitize_with", "no nbval") is None:
        config.option.nbval_sanitize_with = f"{ROOT}/tests/nbval.cfg"
