"""For every test, and for every kernel that nbval starts: the book's code, one thread.

nbval compares what a notebook prints with what it stores; the cells of a notebook keep
their order when tests are shuffled.
"""

import os
import sys
from pathlib import Path

ROOT = str(Path(__file__).resolve().parent)
sys.path.insert(0, ROOT)

import pytest  # noqa: E402

from tools.execute import ENVIRONMENT  # noqa: E402

os.environ.update(ENVIRONMENT)  # before torch is imported, and inherited by kernels
os.environ["PYTHONPATH"] = os.pathsep.join(
    part for part in (ROOT, os.environ.get("PYTHONPATH", "")) if part
)


def pytest_configure(config) -> None:
    """Strict nbval compares everything but drawings, however it is called."""
    if getattr(config.option, "nbval_sanitize_with", "no nbval") is None:
        config.option.nbval_sanitize_with = f"{ROOT}/tests/nbval.cfg"


@pytest.hookimpl(tryfirst=True)  # before pytest-random-order shuffles
def pytest_collection_modifyitems(config, items) -> None:
    """Leave all cells of a notebook in their order."""
    if config.pluginmanager.hasplugin("random_order"):
        for cell in (item for item in items if item.path.suffix == ".ipynb"):
            cell.add_marker(pytest.mark.random_order(disabled=True))
