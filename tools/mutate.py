"""How many small faults in lib do the tests notice?

    python tools/mutate.py                     every file of lib that has its own test file
    python tools/mutate.py lib/ops.py …        these files
    python tools/mutate.py --list lib/ops.py   print the mutants, run nothing

A mutant is one file of lib with one small fault: an operator swapped, a constant moved, a
default changed, an argument lost, a statement removed. A mutant that no test notices is a
survivor; a survivor is a missing test, or an equivalent way to write the same thing.

One process imports torch and collects the tests; each mutant is a fork of it in which the
code of lib's functions is exchanged, so it costs the tests and nothing more. (A fault
anywhere else needs fresh imports and a pytest of its own.) The tests are those of
tests/test_<file>.py, then those of other files of lib that import the mutated module.
"""

import argparse
import ast
import contextlib
import copy
import gc
import importlib
import importlib.abc
import importlib.util
import inspect
import os
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from _pytest.tmpdir import tmppath_result_key

ROOT = Path(__file__).resolve().parents[1]
LIMIT = 60  # seconds for the tests of one mutant; who loops longer is killed, and counts so

BINARY = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
    ast.MatMult: ast.Mult,
}
COMPARE = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
TWINS = [
    ("min", "max"),
    ("sum", "mean"),
    ("any", "all"),
    ("minimum", "maximum"),
    ("argmax", "argmin"),
    ("log", "exp"),
    ("sin", "cos"),
    ("ones", "zeros"),
    ("ones_like", "zeros_like"),
    ("float64", "float32"),
    ("softmax", "log_softmax"),
    ("rsqrt", "sqrt"),
    ("expm1", "exp"),
    ("square", "abs"),
    ("isnan", "isinf"),
    ("isfinite", "isnan"),
    ("positive", "non_negative"),
    ("double", "float"),
]
OTHER_NAME = dict(TWINS) | {b: a for a, b in reversed(TWINS)}
CANNOT = -2
QUICKLY = ["-x", "-q", "-p", "no:cacheprovider"]
QUICKLY += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]
PLAINLY = ["--assert=plain"]  # nobody reads why a mutant failed
QUIET_FIELDS = ("annotation", "returns", "type_params")


def mutants(tree: ast.Module) -> Iterator[tuple[int, str, bool]]:
    """Change the tree in place, one fault after another.

    Yields (line, what it is, whether it lies within a function or a constant).
    """
    inside = {
        id(below)
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for part in (function.args, *function.body)
        for below in ast.walk(part)
    }
    inside |= {
        id(below) for n in tree.body if isinstance(n, ast.Assign) for below in ast.walk(n)
    }
    modules = _imported(tree)
    for parent, field, index, node in list(_places(tree)):
        for fault in _faults(node, modules):
            ast.fix_missing_locations(ast.copy_location(fault, node))
            before, after = _words(node), _words(fault)
            _put(parent, field, index, fault)
            yield node.lineno, f"{before}  →  {after}", id(node) in inside
            _put(parent, field, index, node)


def _places(tree: ast.Module) -> Iterator[tuple[ast.AST, str, int | None, ast.AST]]:
    """Each expression and statement, and where it hangs; not docstrings, not types."""
    quiet = [getattr(n, f, None) for n in ast.walk(tree) for f in QUIET_FIELDS]
    quiet += [node for node in ast.walk(tree) if _is_text(node)]
    quiet += [node for node in tree.body if _is_type(node)]
    skipped = {id(below) for part in quiet for below in _nodes(part)}
    for parent in ast.walk(tree):
        for field, value in ast.iter_fields(parent):
            for index, node in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if not isinstance(node, (ast.expr, ast.stmt)) or id(node) in skipped:
                    continue
                if not isinstance(node, (ast.Import, ast.ImportFrom)):
                    yield parent, field, index, node


def _nodes(value: object) -> list[ast.AST]:
    values = value if isinstance(value, list) else [value]
    return [n for v in values if isinstance(v, ast.AST) for n in ast.walk(v)]


def _is_text(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _is_type(node: ast.AST) -> bool:
    """`Loss = tuple[Tensor, …]`: a name for a type."""
    value = getattr(node, "value", None) if isinstance(node, ast.Assign) else None
    return isinstance(value, ast.Subscript) or (
        isinstance(value, ast.BinOp) and isinstance(value.op, ast.BitOr)
    )


def _imported(tree: ast.Module) -> set[str]:
    return {
        (alias.asname or alias.name).partition(".")[0]
        for node in ast.walk(tree)
        if isinstance(node, (ast.Import, ast.ImportFrom))
        for alias in node.names
    }


def _put(parent: ast.AST, field: str, index: int | None, node: ast.AST) -> None:
    if index is None:
        setattr(parent, field, node)
    else:
        getattr(parent, field)[index] = node


def _words(node: ast.AST) -> str:
    try:
        text = ast.unparse(node)
    except (AttributeError, ValueError):  # a piece of an f-string stands for itself
        text = repr(getattr(node, "value", node))
    return text if len(text) < 70 else text[:33] + " … " + text[-33:]


def _faults(node: ast.AST, modules: set[str]) -> Iterator[ast.AST]:
    name = f"_of_{type(node).__name__.lower()}"
    if name in globals():
        yield from globals()[name](node, modules)


def _of_constant(node: ast.Constant, modules: set[str]) -> Iterator[ast.AST]:
    value = node.value
    if isinstance(value, bool):
        yield ast.Constant(not value)
    elif isinstance(value, int):
        yield from (ast.Constant(value + 1), ast.Constant(value - 1))
    elif isinstance(value, float):
        yield ast.Constant(value + 1)
        if value:
            yield ast.Constant(value * 1.1)
    elif isinstance(value, str):
        yield ast.Constant("XX" + value)
    elif isinstance(value, bytes):
        yield ast.Constant(b"XX" + value)
    elif value is None:
        yield ast.Constant("")


def _of_binop(node: ast.BinOp, modules: set[str]) -> Iterator[ast.AST]:
    if type(node.op) in BINARY:
        yield ast.BinOp(node.left, BINARY[type(node.op)](), node.right)
    if isinstance(node.op, (ast.Sub, ast.Div, ast.Pow)):
        yield ast.BinOp(node.right, node.op, node.left)
    yield from (copy.copy(node.left), copy.copy(node.right))


def _of_unaryop(node: ast.UnaryOp, modules: set[str]) -> Iterator[ast.AST]:
    yield copy.copy(node.operand)


def _of_compare(node: ast.Compare, modules: set[str]) -> Iterator[ast.AST]:
    for i, op in enumerate(node.ops):
        for other in COMPARE[type(op)]:
            ops = [*node.ops[:i], other(), *node.ops[i + 1 :]]
            yield ast.Compare(node.left, ops, node.comparators)


def _of_boolop(node: ast.BoolOp, modules: set[str]) -> Iterator[ast.AST]:
    yield ast.BoolOp(ast.And() if isinstance(node.op, ast.Or) else ast.Or(), node.values)
    for i in range(len(node.values)):
        rest = [*node.values[:i], *node.values[i + 1 :]]
        yield ast.BoolOp(node.op, rest) if len(rest) > 1 else copy.copy(rest[0])


def _of_ifexp(node: ast.IfExp, modules: set[str]) -> Iterator[ast.AST]:
    yield from (copy.copy(node.body), copy.copy(node.orelse))


def _of_call(node: ast.Call, modules: set[str]) -> Iterator[ast.AST]:
    func, args, keywords = node.func, node.args, node.keywords
    method = isinstance(func, ast.Attribute) and not (
        isinstance(func.value, ast.Name) and func.value.id in modules
    )
    if method:  # of a function, an argument lost is a TypeError
        yield copy.copy(func.value)  # x.detach()  →  x
        for i in range(len(args)):
            yield ast.Call(func, [*args[:i], *args[i + 1 :]], keywords)
    elif isinstance(func, ast.Name) and len(args) == 1:
        yield copy.copy(args[0])  # abs(x)  →  x
    if getattr(func, "attr", None) not in ("minimum", "maximum"):
        for i in range(len(args) - 1):
            swapped = [*args[:i], args[i + 1], args[i], *args[i + 2 :]]
            yield ast.Call(func, swapped, keywords)
    for i in range(len(keywords)):
        yield ast.Call(func, args, [*keywords[:i], *keywords[i + 1 :]])


def _of_attribute(node: ast.Attribute, modules: set[str]) -> Iterator[ast.AST]:
    if node.attr in OTHER_NAME:
        yield ast.Attribute(node.value, OTHER_NAME[node.attr], node.ctx)


def _of_name(node: ast.Name, modules: set[str]) -> Iterator[ast.AST]:
    if node.id in ("min", "max", "any", "all") and isinstance(node.ctx, ast.Load):
        yield ast.Name(OTHER_NAME[node.id], node.ctx)


def _of_slice(node: ast.Slice, modules: set[str]) -> Iterator[ast.AST]:
    for name in ("lower", "upper", "step"):
        if getattr(node, name) is not None:
            fault = copy.copy(node)
            setattr(fault, name, None)
            yield fault


def _of_expr(node: ast.Expr, modules: set[str]) -> Iterator[ast.AST]:
    yield ast.Pass()


def _of_assign(node: ast.Assign, modules: set[str]) -> Iterator[ast.AST]:
    if not (isinstance(node.value, ast.Constant) and node.value.value is None):
        yield ast.Assign(node.targets, ast.Constant(None))


def _of_augassign(node: ast.AugAssign, modules: set[str]) -> Iterator[ast.AST]:
    yield ast.Pass()
    yield ast.Assign([node.target], node.value)
    yield ast.AugAssign(node.target, BINARY[type(node.op)](), node.value)


def _of_return(node: ast.Return, modules: set[str]) -> Iterator[ast.AST]:
    if node.value is not None:
        yield ast.Return(None)


def _of_raise(node: ast.Raise, modules: set[str]) -> Iterator[ast.AST]:
    yield ast.Pass()
    if node.cause is not None:
        yield ast.Raise(node.exc, None)


def _of_break(node: ast.Break, modules: set[str]) -> Iterator[ast.AST]:
    yield ast.Pass()


def _of_if(node: ast.If, modules: set[str]) -> Iterator[ast.AST]:
    for answer in (True, False):
        yield ast.If(ast.Constant(answer), node.body, node.orelse)


def _of_for(node: ast.For, modules: set[str]) -> Iterator[ast.AST]:
    yield ast.For(node.target, ast.Tuple([], ast.Load()), node.body, node.orelse)


def _of_functiondef(node: ast.FunctionDef, modules: set[str]) -> Iterator[ast.AST]:
    for i in range(len(node.decorator_list)):
        fault = copy.copy(node)
        fault.decorator_list = [*node.decorator_list[:i], *node.decorator_list[i + 1 :]]
        yield fault


# ------------------------------------------------------------------ running them


class Mutated(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports one module from a changed tree instead of from its file."""

    def __init__(self, module: str, path: Path, tree: ast.Module) -> None:
        self.module, self.path, self.tree = module, path, tree

    def find_spec(self, name: str, path: object, target: object = None):  # noqa: ANN201
        """The module in question is ours; every other one is somebody else's."""
        if name == self.module:
            return importlib.util.spec_from_file_location(name, self.path, loader=self)
        return None

    def exec_module(self, module: object) -> None:
        """Run the changed tree."""
        exec(compile(self.tree, str(self.path), "exec"), module.__dict__)


def transplant(path: Path, tree: ast.Module) -> None:
    """Give the functions and constants of an imported module those of a changed tree."""
    real = sys.modules[_module(path)]
    fresh = types.ModuleType(real.__name__)
    sys.modules[real.__name__] = fresh  # dataclasses look their module up
    exec(compile(tree, str(path), "exec"), fresh.__dict__)
    sys.modules[real.__name__] = real
    for name, new in vars(fresh).items():
        old = vars(real).get(name)
        if isinstance(old, type) and old.__module__ == real.__name__:
            for attribute, method in vars(new).items():
                _exchange(vars(old).get(attribute), method)
        elif isinstance(old, types.FunctionType):
            _exchange(old, new)
        elif not isinstance(new, types.ModuleType | type):
            setattr(real, name, new)


def _exchange(old: object, new: object) -> None:
    if isinstance(old, property) and isinstance(new, property):
        old, new = old.fget, new.fget
    if not (isinstance(old, types.FunctionType) and isinstance(new, types.FunctionType)):
        return
    old, new = inspect.unwrap(old), inspect.unwrap(new)
    old.__code__ = new.__code__  # ValueError where a `super()` was lost
    old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__


def _hush() -> None:
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)


def in_a_fork(work: Callable[[], int | None]) -> int | None:
    """What `work` returns, run in a child within the time limit; -1 if it never does."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        gc.disable()  # a collection would touch, and so copy, the parent's memory
        os.setpgid(0, 0)
        answer: int | None = -1
        with contextlib.suppress(BaseException):
            answer = work()
        os.write(theirs, str(answer).encode())
        os._exit(0)
    os.close(theirs)
    deadline = time.monotonic() + LIMIT
    while not (done := os.waitpid(child, os.WNOHANG)[0]) and time.monotonic() < deadline:
        time.sleep(0.002)
    if not done:
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    return None if said == "None" else int(said or -1)


class Judge:
    """A pytest plugin: instead of running the tests once, runs them on every mutant."""

    def __init__(self, path: Path) -> None:
        self.path, self.tree = path, ast.parse(path.read_text())
        self.total, self.survivors = 0, []
        self.out = os.fdopen(os.dup(1), "w")  # pytest has the other one, and is silenced
        _hush()

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Fork, change lib, run until a test fails; that test is the first next time."""
        items = list(session.items)
        gc.freeze()
        while (broken := in_a_fork(lambda: self.first_failure(items))) is not None:
            out = items.pop(broken)  # a test that fails without any fault judges nothing
            print("  left out, fails as it is:", out.nodeid, file=self.out, flush=True)
        for line, what, within in mutants(self.tree):
            self.total += 1
            killer = self.killer(items) if within else self.killed_afresh()
            if killer is None:
                where = self.path.relative_to(ROOT)
                self.survivors.append(f"{where}:{line}  {what}")
                print("  survived", self.survivors[-1], file=self.out, flush=True)
            elif killer > 0:
                items.insert(0, items.pop(killer))
        return True

    def killer(self, items: list[pytest.Item]) -> int | None:
        """The number of the test that notices the fault, -1 if all would; None: no test."""

        def work() -> int | None:
            try:
                transplant(self.path, self.tree)
            except ValueError:
                return CANNOT
            return self.first_failure(items)

        number = in_a_fork(work)
        return self.killed_afresh() if number == CANNOT else number

    def first_failure(self, items: list[pytest.Item]) -> int | None:
        """Run the tests in order up to the first that fails."""
        for number, item in enumerate(items):
            after = items[number + 1] if number + 1 < len(items) else None
            try:  # the steps of pytest's own protocol, without its reports
                item._initrequest()
                item.stash[tmppath_result_key] = {}
                item.ihook.pytest_runtest_setup(item=item)
                item.ihook.pytest_runtest_call(item=item)
                item.ihook.pytest_runtest_teardown(item=item, nextitem=after)
            except BaseException:
                return number
        return None

    def killed_afresh(self) -> int | None:
        """The same for any other fault, such as a decorator's: in a new process."""
        with tempfile.NamedTemporaryFile("w", suffix=".py") as file:
            file.write(ast.unparse(self.tree))
            file.flush()
            command = [sys.executable, __file__, "--afresh", file.name, str(self.path)]
            try:
                done = subprocess.run(command, capture_output=True, timeout=LIMIT)
            except subprocess.TimeoutExpired:
                return -1
        return None if done.returncode == 0 else -1


def afresh(changed: str, path: Path) -> int:
    """Run the tests with `changed` in the place of the file; 0 if no test notices."""
    tree = ast.parse(Path(changed).read_text())
    sys.meta_path.insert(0, Mutated(_module(path), path, tree))
    return int(pytest.main([*QUICKLY, *tests_of(path)]))


def tests_of(path: Path) -> list[str]:
    """The file's own tests, then those of other files of lib that import the module."""
    own = ROOT / "tests" / f"test_{path.stem}.py"
    module = _module(path)
    package, _, name = module.rpartition(".")
    words = (f"from {module} import", f"from {package} import {name}\n")
    files = [
        test
        for test in sorted((ROOT / "tests").glob("test_*.py"))
        if test != own
        and any((ROOT / "lib").rglob(f"{test.stem.removeprefix('test_')}.py"))
        and any(w in test.read_text() for w in words)
    ]
    return [str(test) for test in (own, *files)]


def _module(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def judge(path: Path) -> tuple[int, int]:
    """(how many mutants a file has, how many live); in a fork, so that files do not meet."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        plugin, code = Judge(path), 1
        with contextlib.suppress(BaseException):
            importlib.import_module(_module(path))
            code = pytest.main([*QUICKLY, *PLAINLY, *tests_of(path)], [plugin])
        if plugin.total:
            os.write(theirs, f"{plugin.total} {len(plugin.survivors)}".encode())
        os._exit(int(code))
    os.close(theirs)
    with os.fdopen(ours) as pipe:
        said = pipe.read()
    os.waitpid(child, 0)
    if not said:
        sys.exit(f"{path}: its tests could not be collected")
    total, living = map(int, said.split())
    return total, living


def _files(names: list[str]) -> list[Path]:
    if names:
        return [Path(name).resolve() for name in names]
    every = sorted((ROOT / "lib").rglob("*.py"))
    return [path for path in every if Path(tests_of(path)[0]).exists()]


def main() -> None:
    """Judge the files and print the share of mutants that the tests killed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("files", nargs="*", help="files of lib (all that have tests)")
    parser.add_argument("--list", action="store_true", help="print the mutants only")
    parser.add_argument("--bar", type=float, default=95.0, help="percent to be killed")
    parser.add_argument("--afresh", metavar="CHANGED", help=argparse.SUPPRESS)
    wanted = parser.parse_args()
    if wanted.list:
        for path in _files(wanted.files):
            for line, what, _ in mutants(ast.parse(path.read_text())):
                print(f"{path.relative_to(ROOT)}:{line}  {what}")
        return
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))
    if wanted.afresh:
        sys.exit(afresh(wanted.afresh, *_files(wanted.files)))
    sys.pycache_prefix = tempfile.mkdtemp(prefix="mutate-")
    _import_what_is_slow()
    total = killed = 0
    for path in _files(wanted.files):
        started = time.monotonic()
        found, living = judge(path)
        total, killed = total + found, killed + found - living
        seconds = time.monotonic() - started
        name = path.relative_to(ROOT)
        print(f"{name}: {found - living} of {found} killed ({seconds:.0f} s)", flush=True)
    share = 100 * killed / total
    print(f"{killed} of {total} mutants killed: {share:.1f} %")
    sys.exit(share < wanted.bar)


def _import_what_is_slow() -> None:
    """Everything but lib, once, before the forks."""
    for module in ("gymnasium", "hypothesis", "numpy", "torch", "tqdm.auto"):
        importlib.import_module(module)
    torch, hypothesis = sys.modules["torch"], sys.modules["hypothesis"]
    once = (hypothesis.Phase.explicit, hypothesis.Phase.generate)  # no shrinking
    hypothesis.settings.register_profile("mutate", phases=once)
    hypothesis.settings.load_profile("mutate")
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)])


if __name__ == "__main__":
    main()
