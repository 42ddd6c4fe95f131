"""Make .venv with everything pinned, or say in one line what is missing and its remedy.

Run by the Makefile with whatever Python it found (or, where there is no make, by hand:
`python tools/preflight.py`), so this file must parse, and answer,
under very old ones: no f-strings, no type hints, nothing but the standard library.
"""

from __future__ import print_function

import hashlib
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
VENV = os.path.join(ROOT, ".venv")
STAMP = os.path.join(VENV, "installed")
REQUIREMENTS = ("requirements.txt", "requirements-dev.txt", "constraints.txt")
GIGABYTES = 3  # torch alone unpacks to about one; its CUDA libraries to five more
REASONS = (  # what pip says -> what to do; the first that fits
    (
        ("No space left on device", "Errno 28"),
        "The disk is full: free some space (about %d GB) and say make again."
        % GIGABYTES,
    ),
    (
        (
            "NewConnectionError",
            "Failed to establish a new connection",
            "Temporary failure in name resolution",
            "Name or service not known",
            "Network is unreachable",
            "ConnectTimeout",
            "Connection refused",
            "ProxyError",
            "SSLError",
        ),
        "No network: the package index cannot be reached. Check the connection (or the"
        " proxy: https_proxy, PIP_INDEX_URL) and say make again.",
    ),
    (
        ("No matching distribution found", "Could not find a version"),
        "A pinned package has no build for this Python or machine: try Python 3.11, 3.12 or"
        " 3.13 (rm -r .venv; make PYTHON=python3.12 book).",
    ),
)


def stop(message):
    """One line, exit code 2."""
    print(message, file=sys.stderr)
    sys.exit(2)


def check_python():
    """Python is new enough and can make environments."""
    if sys.version_info < (3, 11):
        stop(
            "Python %d.%d (%s) is too old: install Python 3.11 or newer, or say"
            " make PYTHON=/path/to/python3.11"
            % (sys.version_info[:2] + (sys.executable,))
        )
    try:
        import ensurepip
        import venv
    except ImportError:
        stop(
            "This Python (%s) cannot make environments: install its venv module"
            " (Debian, Ubuntu: sudo apt install python%d.%d-venv)."
            % ((sys.executable,) + sys.version_info[:2])
        )


def check_disk():
    """There is room for the packages."""
    import shutil

    free = shutil.disk_usage(ROOT).free / 1e9
    if free < GIGABYTES:
        stop(
            "The disk is too small: %.1f GB free in %s, about %d GB needed. Free some space"
            " and say make again." % (free, ROOT, GIGABYTES)
        )


def wanted():
    """What the environment is to hold: changes whenever a requirement does."""
    digest = hashlib.sha256()
    for name in REQUIREMENTS:
        with open(os.path.join(ROOT, name), "rb") as file:
            digest.update(file.read())
    return digest.hexdigest()


def ready(key):
    """The environment is there, whole, still runs, and holds what is wanted."""
    try:
        with open(STAMP) as file:
            return file.read() == key and same_python()
    except (IOError, OSError):
        return False


def venv_python():
    """The environment's own Python."""
    if os.name == "nt":
        return os.path.join(VENV, "Scripts", "python.exe")
    return os.path.join(VENV, "bin", "python")


def same_python():
    """There is an environment of this Python's version, and it runs."""
    say = (
        "import sys; sys.exit(sys.version_info[:2] != (%d, %d))" % sys.version_info[:2]
    )
    try:
        return subprocess.call([venv_python(), "-c", say]) == 0
    except (IOError, OSError):
        return False


def install(torch_index):
    """Make the environment (unless one of this Python is there) and let pip fill it."""
    print("Filling .venv (%s); this takes some minutes" % sys.executable)
    sys.stdout.flush()
    if not same_python():
        if subprocess.call([sys.executable, "-m", "venv", "--clear", VENV]) != 0:
            stop(
                "Python could not make .venv (see above): is its venv module complete?"
            )
    if torch_index:
        with open(os.path.join(ROOT, "requirements.txt")) as file:
            torch = [line.strip() for line in file if line.startswith("torch==")]
        pip(torch + ["--index-url", torch_index])
    pip(["-r", os.path.join(ROOT, "requirements-dev.txt")])


def pip(arguments):
    """Run pip, show what it does; where it fails, say why in one line."""
    command = [venv_python(), "-m", "pip", "--disable-pip-version-check", "install"]
    command += ["--progress-bar", "off", "--retries", "2", "--prefer-binary"]
    run = subprocess.Popen(
        command + arguments,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    said = []
    for line in run.stdout:
        said.append(line)
        if line.startswith(("Collecting", "Downloading", "Installing", "ERROR")):
            print("  " + line.strip()[:100])
            sys.stdout.flush()
    if run.wait() != 0:
        stop(why("".join(said)))


def why(said):
    """The line for what pip said."""
    for signs, message in REASONS:
        if any(sign in said for sign in signs):
            return message
    return "pip failed:\n" + "\n".join(said.strip().splitlines()[-8:])


def main(arguments):
    """Do nothing if all is there."""
    torch_index = arguments[0] if arguments else ""
    check_python()
    key = "%s %d.%d" % ((wanted(),) + sys.version_info[:2])
    if ready(key):
        return
    check_disk()
    install(torch_index)
    with open(STAMP, "w") as file:
        file.write(key)


if __name__ == "__main__":
    main(sys.argv[1:])
