"""Install what only some readers want, beside what the book needs, unless it is there.

    python -m tools.extras requirements-lab.txt
    python -m tools.extras --no-deps requirements-real.txt

Options go to pip. What is there in the pinned version is not installed again, and needs
no network.
"""

import importlib.metadata
import re
import subprocess
import sys

from tools import notebooks, preflight

PIN = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


def missing(file: str) -> list[str]:
    """What a requirements file pins and this Python lacks or has in another version."""
    text = (notebooks.ROOT / file).read_text(encoding="utf-8")
    pins = PIN.findall(text)
    return [f"{name}=={wanted}" for name, wanted in pins if _has(name) != wanted]


def need(file: str, *options: str) -> None:
    """Let pip install what is missing, or stop with one line that says why it cannot."""
    lacking = missing(file)
    if not lacking:
        return
    print(f"Installing {', '.join(lacking)}; this takes a minute", flush=True)
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install"]
    command += ["-q", "--progress-bar", "off", *options]
    command += ["-r", str(notebooks.ROOT / file)]
    pip = subprocess.run(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if pip.returncode:
        preflight.stop(preflight.why(pip.stdout))


def _has(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


if __name__ == "__main__":
    options = [word for word in sys.argv[1:] if word.startswith("-")]
    for each in sys.argv[1:]:
        if each not in options:
            need(each, *options)
