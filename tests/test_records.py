"""Records of long runs: none of other code goes unnoticed, and none is lost when killed."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from labs.record import OtherRun, Record, records, rounded
from lib.digest import code_digest, plain, sources

ROOT = Path(__file__).resolve().parents[1]
TOY = '''"""A toy.

Of no use.
"""
import os
import random
import signal

from labs.record import Record
from lib.near import MEAN


def run(settings, seed):
    """One draw."""
    if os.environ.get("KILLED_AT") == f"{settings['spread']} {seed}":
        os.kill(os.getpid(), signal.SIGKILL)
    draw = random.Random(f"{settings} {seed}")
    return {"x": draw.gauss(MEAN, settings["spread"]), "all": [draw.random(), 1]}


RECORD = Record(
    "77_toy",
    run,
    runs={"near": {"spread": 0.1}, "far": {"spread": 30.0}},
    seeds=range(3),
    file=__file__,
)
'''
NEAR = "from lib.deep import far\n\nMEAN = far.DISTANCE / 3  # about 2.3\n"
FAR = "DISTANCE = 7.0\n"


@pytest.fixture
def book(tmp_path: Path) -> Path:
    """A book with the real runner and one lab, which imports a file that imports one."""
    for package in ("lib/deep", "labs", "notebooks/records"):
        (tmp_path / package).mkdir(parents=True)
    for name in (
        "labs/record.py",
        "lib/checkpoint.py",
        "lib/digest.py",
        "lib/require.py",
    ):
        shutil.copy(ROOT / name, tmp_path / name)
    (tmp_path / "labs/toy.py").write_text(TOY)
    (tmp_path / "lib/near.py").write_text(NEAR)
    (tmp_path / "lib/deep/far.py").write_text(FAR)
    return tmp_path


def toy(book: Path, run=lambda settings, seed: seed) -> Record:
    """The lab's record, for another function to run."""
    folder = book / "notebooks/records"
    file = str(book / "labs/toy.py")
    return Record("77_toy", run, runs={"one": 1, "two": 2}, file=file, folder=folder)


def command(book: Path, *flags: str, **environment: str) -> subprocess.CompletedProcess:
    """`python -m labs.record` in this book."""
    given = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | environment
    run = [sys.executable, "-m", "labs.record", *flags]
    return subprocess.run(run, cwd=book, env=given, capture_output=True, text=True)


def change(file: Path, old: str, new: str) -> None:
    """Replace a text that is there."""
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new))


# -------------------------------------------------------------- the records of the book


def faults(declared: Iterable[Record]) -> list[str]:
    """What is wrong with records."""
    states = {record.name: record.state() for record in declared}
    [folder] = {record.folder for record in declared}
    said = [f"{name}: {state}" for name, state in states.items() if state != "fresh"]
    files = {file.stem for file in folder.glob("*.json")}
    return said + [f"{name}: no lab declares it" for name in sorted(files - {*states})]


def test_every_record_is_of_today_s_code():
    declared = records()
    assert faults(declared) == []
    assert len({record.name for record in declared}) == len(declared) >= 10


def test_a_record_of_other_code_is_named(book):
    record = toy(book)
    assert faults([record]) == ["77_toy: missing"]
    record.make()
    assert faults([record]) == []
    code = record.read()["code"]
    change(record.path, code, "0123456789ab")
    told = f"77_toy: stale: code 0123456789ab made it, today's is {code}"
    assert faults([record]) == [told]
    change(record.path, "0123456789ab", code)
    assert faults([record]) == []
    change(book / "lib/deep/far.py", "7.0", "7.1")
    [told] = faults([record])
    assert told.startswith(f"77_toy: stale: code {code} made it, today's is ")


def test_a_record_that_lacks_a_run_or_a_seed_is_named(book):
    record = toy(book)
    record.make()
    whole = record.read()
    lacking = whole | {"runs": {**whole["runs"], "two": {"0": 0}}}
    record.path.write_text(json.dumps(lacking))
    assert faults([record]) == ["77_toy: stale: not all runs and seeds"]


def test_a_record_that_no_lab_declares_is_named(book):
    record = toy(book)
    record.make()
    shutil.copy(record.path, record.path.with_name("77_orphan.json"))
    assert faults([record]) == ["77_orphan: no lab declares it"]


# ------------------------------------------------------------------------ the digest


def test_a_comment_or_a_docstring_or_a_line_s_end_leaves_the_digest(book):
    lab, near = book / "labs/toy.py", book / "lib/near.py"
    before = code_digest(lab)
    change(near, "  # about 2.3", "")
    change(lab, "Of no use.", "Of some use.")
    change(lab, '    """One draw."""\n', "")
    change(
        lab, "    draw = random.Random", "    draw = (  # seeded\n    random).Random"
    )
    near.write_bytes(b'"""New."""\r\n' + near.read_bytes().replace(b"\n", b"\r\n"))
    assert code_digest(lab) == before


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("labs/toy.py", "range(3)", "range(4)"),
        ("labs/toy.py", '"x": draw', '"y": draw'),
        ("lib/near.py", "/ 3", "* 3"),
        ("lib/deep/far.py", "7.0", "7"),
        ("lib/deep/far.py", "DISTANCE", "import os\nDISTANCE"),
    ],
)
def test_what_the_code_does_changes_the_digest_two_imports_away_too(
    book, file, old, new
):
    before = code_digest(book / "labs/toy.py")
    change(book / file, old, new)
    assert code_digest(book / "labs/toy.py") != before


def test_what_the_lab_does_not_import_leaves_the_digest_and_so_does_what_is_left_out(
    book,
):
    lab, runner = book / "labs/toy.py", book / "labs/record.py"
    with_runner, before = code_digest(lab), code_digest(lab, without=[runner])
    assert with_runner != before
    (book / "lib/other.py").write_text("X = 1\n")
    change(runner, "digits: int = 4", "digits: int = 5")
    change(book / "lib/require.py", "import", "import os, math\nimport")
    assert code_digest(lab, without=[runner]) == before
    assert code_digest(lab) != with_runner


def test_what_lies_beside_a_module_under_its_name_belongs_to_it(book):
    lab, data = book / "labs/toy.py", book / "lib/near.json"
    before = code_digest(lab)
    data.write_text("1\n")
    with_data = code_digest(lab)
    data.write_bytes(b"1\r\n")
    assert code_digest(lab) == with_data
    data.write_text("2\n")
    assert len({before, with_data, code_digest(lab)}) == 3
    data.unlink()
    (book / "lib/near.py~").write_text("MEAN = 4\n")
    assert code_digest(lab) == before


def test_every_way_to_import_is_seen(tmp_path):
    for name in ("deep", "deep/er"):
        (tmp_path / "lib" / name).mkdir(parents=True)
    (tmp_path / "labs").mkdir()
    found = "lib/a lib/b lib/c lib/d lib/e lib/deep/f lib/deep/g lib/deep/er/h labs/i"
    every = [*found.split(), "lib/deep/__init__", "lib/deep/beside"]
    for name in [*every, "lib/unused", "labs/unused"]:
        (tmp_path / f"{name}.py").write_text("")
    (tmp_path / "labs/top.py").write_text(
        "import os, lib.a\n"
        "from lib import (\n    b as other,\n    c,\n)\n"
        "from lib.deep.f import x\n"
        "from labs import i\n"
        "def late():\n    from lib.d import y\n    import lib.deep.er.h as deepest\n"
    )
    (tmp_path / "lib/d.py").write_text("from lib.e import *\nfrom lib.deep import g")
    (tmp_path / "lib/deep/er/h.py").write_text("from ..beside import x\n")
    seen = sources(tmp_path / "labs/top.py")
    names = {file.relative_to(tmp_path).with_suffix("").as_posix() for file in seen}
    assert names == {*every, "labs/top"}


VARIED = r"""
from __future__ import annotations
import os.path as p, sys
class A(B, metaclass=C):
    x: int | None = None
    @property
    async def f(self, a, /, b=-1, *c, d=1e-3, **e) -> list[str]:
        async with g() as h: yield {**a, 'k': [*b, ...]}
try: (n := 10**40) and (lambda q: q if q else not q)
except* OSError as error: raise ValueError from error
match s:
    case {'a': [1, *_], **rest} | A(x=2) if rest: del rest
told = f'{a!r:>{width}} and {b = } or {{}}' f'' 'ü\n' u'u' if 0 else 1j
print(f'{x:}', f"{'nested'}" 'tail', b'b', 1_000, 0xFF, True, x[1:2, ::3])
"""


def test_every_python_finds_the_same_digest(tmp_path):
    file = tmp_path / "labs/varied.py"
    file.parent.mkdir()
    file.write_text(VARIED, "utf-8")
    assert code_digest(file) == "922555b03fca"


@pytest.mark.parametrize("seed", ["1", "2", "3"])
def test_the_order_of_sets_leaves_the_digest(seed):
    code = "from lib.digest import code_digest; print(code_digest('labs/direct_alignment.py'))"
    given = {**os.environ, "PYTHONHASHSEED": seed}
    run = [sys.executable, "-c", code]
    found = subprocess.run(run, cwd=ROOT, env=given, capture_output=True, text=True)
    assert found.stdout.strip() == code_digest(ROOT / "labs/direct_alignment.py")


def test_a_text_s_prefix_and_quotes_leave_the_digest():
    assert plain("x = u'a'") == plain("x = 'a'") == plain('x = """a"""')
    assert plain("x = b'a'") != plain("x = 'a'") != plain("x = ('a',)")


def test_an_f_string_is_told_by_its_text_and_not_by_how_it_is_cut():
    assert plain("f'a{x}b'") == plain("f'a' f'{x}' 'b'") == plain("'a' f'{x}b' ''")
    assert plain("f'a{x}b'") != plain("f'a{x} b'")
    assert plain("f'{x:>3}'") != plain("f'{x:>4}'")
    assert plain("f'{x!r}'") != plain("f'{x!s}'")


# ------------------------------------------------------------------------ the runner


def test_a_killed_run_resumes_and_ends_equal_to_one_that_was_not_killed(book):
    place = book / "notebooks/records/77_toy.json"
    assert command(book).returncode == 0
    whole = json.loads(place.read_text())
    place.unlink()
    killed = command(book, KILLED_AT="0.1 1")
    assert killed.returncode == -9 and not place.exists()
    begun = json.loads(place.with_suffix(".part").read_text())["runs"]
    assert {name: [*of] for name, of in begun.items()} == {"near": ["0"], "far": ["0"]}
    resumed = command(book)
    assert resumed.returncode == 0 and "6/6" in resumed.stderr
    assert {f.name for f in place.parent.iterdir()} == {place.name}
    again = json.loads(place.read_text())
    assert again.pop("cpu_minutes") >= 0 and whole.pop("cpu_minutes") >= 0
    assert json.dumps(again) == json.dumps(whole)
    assert whole["what"] == "A toy." and whole["seeds"] == dict.fromkeys(
        begun, [0, 1, 2]
    )
    assert whole["command"] == "python -m labs.record 77_toy"
    assert whole["kernel"] and whole["digits"] == 4
    assert whole["torch"] == torch.__version__ and len(whole["code"]) == 12
    made = command(book, "--list")
    assert made.stdout == "77_toy fresh\n"


def test_a_run_of_other_code_is_not_resumed_unless_it_is_restarted(book):
    def stops(settings, seed):
        if seed == 3:
            raise KeyboardInterrupt
        return 1

    with pytest.raises(KeyboardInterrupt):
        toy(book, stops).make()
    record = toy(book, lambda settings, seed: 2)
    before = record.head()["code"]
    change(book / "lib/deep/far.py", "7.0", "8.0")
    with pytest.raises(OtherRun) as caught:
        record.make()
    told = f"{record.partial}: begun with code {before}, not {record.head()['code']}"
    assert str(caught.value) == f"{told} (--restart begins anew)"
    assert not record.path.exists()
    record.make(restart=True)
    assert record.state() == "fresh" and not record.partial.exists()
    assert {x for of in record.read()["runs"].values() for x in of.values()} == {2}


def test_a_record_whose_figures_today_s_code_finds_again_counts_as_today_s(book):
    place = book / "notebooks/records/77_toy.json"
    assert command(book).returncode == 0
    made = json.loads(place.read_text())
    change(book / "lib/deep/far.py", "7.0", "7.0\nUNUSED = 1")
    assert command(book, "--list").stdout.startswith("77_toy stale: code")
    assert command(book, "--recheck", "--run", "far").returncode == 0
    assert command(book, "--list").stdout == "77_toy fresh\n"
    kept = json.loads(place.read_text())
    assert kept["runs"] == made["runs"] and kept["code"] != made["code"]
    told = {"run": "far", "seed": 0, "made by": made["code"]}
    assert kept.pop("rechecked") == [told] and kept.keys() == made.keys()


def test_a_record_whose_figures_today_s_code_does_not_find_stays_stale(book):
    place = book / "notebooks/records/77_toy.json"
    assert command(book).returncode == 0
    before = place.read_bytes()
    change(book / "lib/deep/far.py", "7.0", "7.1")
    refused = command(book, "--recheck", "77_toy")
    assert refused.returncode == 1 and place.read_bytes() == before
    said = refused.stderr.splitlines()[-1]
    kernels = json.loads(before)["kernel"]
    assert "today's code finds other figures for 'near', seed 0" in said
    assert f"(made with {kernels} kernels, here {kernels})" in said
    unknown = command(book, "--recheck", "77_toy", "--run", "nigh")
    assert unknown.returncode != 0 and "one of 'near', 'far'" in unknown.stderr


def test_what_a_run_cost_may_differ_when_it_is_run_again(tmp_path):
    spent, lab = iter((1.0, 2.0, 3.0)), str(ROOT / "labs" / "forgetting.py")

    def run(settings, seed):
        said = {"cpu_minutes": next(spent), "peak_gb": 4.0}
        return {"exams": [{"right": settings, **said}]}

    toy = Record("toy", run, {"one": 0.5}, lab, [0], folder=tmp_path)
    toy.make()
    toy.recheck()
    assert toy.read()["runs"]["one"]["0"]["exams"][0]["cpu_minutes"] == 1.0
    other = Record("toy", run, {"one": 0.6}, lab, [0], folder=tmp_path)
    with pytest.raises(OtherRun, match="other figures for 'one', seed 0"):
        other.recheck()


def test_every_recheck_is_told_and_the_kernel_stays_that_of_who_made_it(tmp_path):
    lab = str(ROOT / "labs" / "forgetting.py")

    def run(settings, seed):
        return {
            "x": settings,
            "seconds": time.process_time(),
        }  # a cost, so it may differ

    toy = Record("toy", run, {"one": 1, "two": 2}, lab, [3, 4], folder=tmp_path)
    toy.make()
    made = toy.read()
    toy.path.write_text(json.dumps(made | {"kernel": "another", "code": "older"}))
    for name in ("two", "one"):
        toy.recheck(name)
    told = toy.read()
    assert told["kernel"] == "another" and told["code"] == made["code"]
    assert told["rechecked"] == [
        {"run": "two", "seed": 3, "made by": "older"},
        {"run": "one", "seed": 3, "made by": made["code"]},
    ]


def test_a_record_of_too_few_seeds_is_not_fresh(tmp_path):
    lab = str(ROOT / "labs" / "forgetting.py")
    few, more = (
        Record("toy", lambda one, seed: one, {"one": 1}, lab, seeds, folder=tmp_path)
        for seeds in ([0], [0, 1])
    )
    few.make()
    assert few.state() == "fresh"
    assert more.state() == "stale: not all runs and seeds"


def test_the_command_says_in_one_line_that_it_does_not_resume_other_code(book):
    assert command(book, KILLED_AT="30.0 0").returncode == -9
    change(book / "labs/toy.py", "range(3)", "range(2)")
    refused = command(book)
    assert refused.returncode == 1 and refused.stdout == ""
    assert len(refused.stderr.splitlines()) == 1
    assert "'far': [0, 1, 2]}, not {'near': [0, 1], 'far'" in refused.stderr
    assert command(book, "--restart").returncode == 0
    assert command(book, "--list").stdout == "77_toy fresh\n"


def test_a_record_that_is_named_is_made_and_no_other_name_is_known(book):
    place = book / "notebooks/records/77_toy.json"
    assert command(book, "--list").stdout == "77_toy missing\n"
    wrong = command(book, "77_boy")
    assert wrong.returncode == 2 and not place.exists()
    assert wrong.stderr.endswith("name: got 77_boy, wanted one of 77_toy\n")
    assert command(book, "77_toy").returncode == 0 and place.exists()


def test_a_fresh_record_is_left_alone_and_the_cheapest_is_made_first(book):
    place = book / "notebooks/records/77_toy.json"
    (book / "labs/slow.py").write_text(TOY.replace("77_toy", "76_slow"))
    assert command(book).returncode == 0
    slow = place.with_name("76_slow.json")
    for file, minutes in ((place, 1.5), (slow, 30.0)):
        made = json.loads(file.read_text())
        file.write_text(json.dumps(made | {"cpu_minutes": minutes}))
    before = place.read_bytes()
    assert command(book).stderr == "" and place.read_bytes() == before
    assert command(book, "--list").stdout == "77_toy fresh\n76_slow fresh\n"
    change(book / "lib/near.py", "/ 3", "/ 4")
    told = command(book).stderr
    assert 0 <= told.index("77_toy: 100%") < told.index("76_slow:   0%")


def test_a_fresh_record_is_made_again_when_it_is_named_with_restart(book):
    place = book / "notebooks/records/77_toy.json"
    assert command(book).returncode == 0
    made = place.read_text()
    place.write_text(made.replace("A toy.", "An old toy."))
    assert command(book, "--restart").returncode == 0
    assert "An old toy." in place.read_text()
    assert command(book, "--restart", "77_toy").returncode == 0
    assert "An old toy." not in place.read_text()


def test_seeds_come_one_after_the_other_and_each_run_may_have_its_own(book):
    record = toy(book)
    assert record.pairs()[:3] == [("one", 0), ("two", 0), ("one", 1)]
    assert len(record.pairs()) == 10
    record = replace(record, seeds={"one": [5, 0], "two": range(1)})
    assert record.pairs() == [("one", 5), ("one", 0), ("two", 0)]
    record.make()
    assert record.read()["seeds"] == {"one": [5, 0], "two": [0]}
    assert record.read()["runs"] == {"one": {"5": 5, "0": 0}, "two": {"0": 0}}


def test_a_run_is_given_its_settings_and_its_seed(book):
    record = toy(book, lambda settings, seed: 10 * settings + seed)
    record.make()
    assert record.read()["runs"]["two"] == {str(seed): 20 + seed for seed in range(5)}


def test_numbers_are_rounded_to_significant_digits_wherever_they_are():
    found = {"a": [1234567.8, 0.000123456], 3: (2 / 3, True, 7, "x", None), "z": -2e-17}
    kept = rounded(found, 4)
    assert kept == {
        "a": [1235000.0, 0.0001235],
        "3": [0.6667, True, 7, "x", None],
        "z": 0,
    }
    assert str(kept["z"]) == "0.0" and kept["3"][1] is True
    assert rounded(torch.tensor([[1 / 3, 2.0]], dtype=torch.float64), 2) == [
        [0.33, 2.0]
    ]
    assert rounded(kept, 4) == kept


@pytest.mark.parametrize("bad", [float("nan"), float("-inf")])
def test_a_number_that_is_not_finite_is_refused_and_not_written(book, bad):
    record = toy(book, lambda settings, seed: [1.0, bad])
    told = f"run: got {bad} among its results, wanted finite numbers"
    with pytest.raises(ValueError, match=told):
        record.make()
    assert not record.path.exists() and not record.partial.exists()


def test_a_record_of_no_run_or_of_a_seed_s_run_that_is_not_there_is_refused(
    book, refuses
):
    record = toy(book)
    with refuses("runs: got none, wanted a name and its settings, or more"):
        replace(record, runs={})
    with refuses("seeds: got ['one'], wanted some for each of ['one', 'two']"):
        replace(record, seeds={"one": range(3)})
    with refuses("digits: got 0, wanted an int of at least 1"):
        replace(record, digits=0)
