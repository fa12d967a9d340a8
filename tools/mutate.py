"""Breaks the decision rules one small thing at a time, and counts how many breaks the tests see.

    python tools/mutate.py                     every mutant of the gates and the release rules
    python tools/mutate.py --sample 60         so many of them, drawn with --seed
    python tools/mutate.py --group partners    the rules of another slice, with its tests
    python tools/mutate.py FILE ... --tests T  other files and tests

Each mutant is one change of one operator, comparison, constant or word such as min/max, any/all. It
is imported in place of the module in a process of its own, so the tree is never touched; the tests
named are run against it and must fail. A survivor is printed with its line: either a test is
missing, or the two programs mean the same. Words shown to people are not mutated, only what
decides.
"""

from __future__ import annotations

import argparse
import ast
import copy
import importlib.abc
import importlib.machinery
import importlib.util
import os
import random
import signal
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import settings

ROOT = Path(__file__).resolve().parent.parent
RELEASES = "src/stagerelease/releases"
FILES = (
    f"{RELEASES}/rules.py",
    *(f"{RELEASES}/gates/{n}.py" for n in ("deciding", "measured", "others", "standing")),
)
TESTS = ("tests/rules/test_gates.py", "tests/rules/test_promotion_rules.py")
RULES = "tests/rules/test_{}.py"
GROUPS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "releases": (FILES, TESTS),
    "access": (
        tuple(f"src/stagerelease/access/{n}.py" for n in ("rules", "answers", "forms", "abuse")),
        tuple(RULES.format(f"access_{n}") for n in ("bounds", "rules", "forms")),
    ),
    "partners": (("src/stagerelease/partners/rules.py",), (RULES.format("partner_rules"),)),
    "entitlements": (
        ("src/stagerelease/entitlements/rules.py",),
        (RULES.format("entitlement_rules"),),
    ),
    "incidents": (
        tuple(f"src/stagerelease/incidents/{n}.py" for n in ("rules", "anomalies")),
        (RULES.format("anomalies"), RULES.format("incident_rules")),
    ),
    "evidence": (
        tuple(f"src/stagerelease/evidence/{n}.py" for n in ("rules", "measure")),
        (RULES.format("evidence_rules"),),
    ),
}
TIME_LIMIT = 120
settings.register_profile("mutate", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("mutate")
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
OPERATORS: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
NAMES = {"min": "max", "max": "min", "any": "all", "all": "any"}
OUTCOMES = {"PASSED": "FAILED", "FAILED": "PASSED", "PENDING": "FAILED", "INCONCLUSIVE": "FAILED"}


@dataclass(frozen=True)
class Mutant:
    """One broken program: which file, where, what was changed, and its whole text."""

    file: str
    line: int
    change: str
    text: str


def _skipped(tree: ast.AST) -> set[int]:
    """Return the ids of nodes that only make words, or that nothing runs."""
    out: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr | ast.Raise):
            out |= {id(child) for child in ast.walk(node)}
        if isinstance(node, ast.arg | ast.AnnAssign) and node.annotation is not None:
            out |= {id(child) for child in ast.walk(node.annotation)}
        if isinstance(node, ast.FunctionDef) and node.returns is not None:
            out |= {id(child) for child in ast.walk(node.returns)}
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            for decorator in node.decorator_list:
                out |= {id(child) for child in ast.walk(decorator)}
    return out


def _changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """Yield what may stand in place of ``node``, each with a name of the change."""
    if isinstance(node, ast.Compare):
        for i, op in enumerate(node.ops):
            other = COMPARISONS.get(type(op))
            if other is not None:
                new = copy.deepcopy(node)
                new.ops[i] = other()
                yield f"{type(op).__name__} -> {other.__name__}", new
    elif isinstance(node, ast.BoolOp):
        new_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield "and <-> or", ast.BoolOp(new_op, copy.deepcopy(node.values))
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not x -> x", copy.deepcopy(node.operand)
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATORS:
        if not any(isinstance(side, ast.JoinedStr) for side in (node.left, node.right)):
            new_bin = copy.deepcopy(node)
            new_bin.op = OPERATORS[type(node.op)]()
            yield f"{type(node.op).__name__} -> {type(new_bin.op).__name__}", new_bin
    elif isinstance(node, ast.IfExp):
        yield "swap if", ast.IfExp(node.test, node.orelse, node.body)
    elif isinstance(node, ast.Constant) and type(node.value) is bool:
        yield f"{node.value} -> {not node.value}", ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and type(node.value) is int:
        yield f"{node.value} -> {node.value + 1}", ast.Constant(node.value + 1)
    elif isinstance(node, ast.Name) and node.id in NAMES:
        yield f"{node.id} -> {NAMES[node.id]}", ast.Name(NAMES[node.id], node.ctx)
    elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Outcome":
        other_outcome = OUTCOMES.get(node.attr)
        if other_outcome is not None:
            new_attr = ast.Attribute(node.value, other_outcome, node.ctx)
            yield f"{node.attr} -> {other_outcome}", new_attr


class _Replace(ast.NodeTransformer):
    def __init__(self, old: ast.AST, new: ast.AST) -> None:
        self.old, self.new = old, new

    def visit(self, node: ast.AST) -> ast.AST:
        """Put the new node where the old one is."""
        return self.new if node is self.old else self.generic_visit(node)


def mutants(file: str) -> Iterator[Mutant]:
    """Yield every mutant of a file."""
    source = (ROOT / file).read_text()
    tree = ast.parse(source)
    skipped = _skipped(tree)
    for node in list(ast.walk(tree)):
        if id(node) in skipped:
            continue
        for change, new in _changes(node):
            line = getattr(node, "lineno", 0)
            broken = _Replace(node, ast.copy_location(new, node)).visit(_shallow(tree, node))
            text = ast.unparse(ast.fix_missing_locations(broken))
            if text != ast.unparse(ast.parse(source)):
                yield Mutant(file, line, change, text)


def _shallow(tree: ast.Module, keep: ast.AST) -> ast.AST:
    """Return a deep copy of ``tree`` in which ``keep`` itself still stands, to be found by it."""
    return copy.deepcopy(tree, {id(keep): keep})


class _Broken(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Imports one module from the text of a mutant, and leaves the others as they are."""

    def __init__(self, mutant: Mutant) -> None:
        self.name = ".".join(Path(mutant.file).relative_to("src").with_suffix("").parts)
        self.text = mutant.text

    def find_spec(
        self,
        fullname: str,
        path: object,  # noqa: ARG002
        target: object = None,  # noqa: ARG002
    ) -> importlib.machinery.ModuleSpec | None:
        """Claim the mutated module."""
        if fullname != self.name:
            return None
        return importlib.util.spec_from_loader(fullname, self)

    def get_source(self, fullname: str) -> str:  # noqa: ARG002
        """Return the mutant's text."""
        return self.text


def run(mutant: Mutant, tests: Sequence[str]) -> NoReturn:
    """Run the tests on a mutant and end this process: 0 when they pass, anything else when not."""
    signal.alarm(TIME_LIMIT)  # one that never ends is killed, and counts as seen
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    os.dup2(nothing, 2)
    sys.meta_path.insert(0, _Broken(mutant))
    options = ["-x", "-q", "--noconftest", "-p", "no:cacheprovider", "-p", "no:xdist"]
    options += ["-W", "ignore::pytest.PytestAssertRewriteWarning"]  # hypothesis is here already
    code = pytest.main([*options, *tests])
    os._exit(int(code))


def verdicts(found: Sequence[Mutant], tests: Sequence[str], workers: int) -> Iterator[bool]:
    """Yield, in order, whether the tests saw each mutant; each runs in a fork of its own."""
    waiting: dict[int, int] = {}  # process id to its place
    seen: dict[int, bool] = {}
    told = 0
    for place, mutant in enumerate(found):
        child = os.fork()
        if child == 0:
            run(mutant, tests)
        waiting[child] = place
        while len(waiting) >= workers or (place == len(found) - 1 and waiting):
            ended, status = os.wait()
            seen[waiting.pop(ended)] = status != 0
        while told in seen:
            yield seen.pop(told)
            told += 1


def main() -> int:
    """Run the mutants asked for; return 1 when fewer than ``--least`` percent were seen."""
    parser = argparse.ArgumentParser(description="Count how many broken rules the tests see.")
    parser.add_argument("files", nargs="*")
    parser.add_argument("--group", choices=GROUPS, default="releases")
    parser.add_argument("--tests", nargs="+")
    parser.add_argument("--sample", type=int, default=0, help="only so many, drawn at random")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--least", type=float, default=90.0, help="percent that must be seen")
    asked = parser.parse_args()
    files, tests = GROUPS[asked.group]
    asked.files, asked.tests = asked.files or files, asked.tests or tests
    os.chdir(ROOT)
    found = [mutant for file in asked.files for mutant in mutants(file)]
    if asked.sample:
        found = random.Random(asked.seed).sample(found, min(asked.sample, len(found)))
    same = Mutant(asked.files[0], 0, "nothing", (ROOT / asked.files[0]).read_text())
    if any(verdicts([same], asked.tests, 1)):
        print("The tests fail on the program as it is; nothing can be told.")
        return 2
    seen = 0
    told = verdicts(found, asked.tests, asked.workers)
    for done, (mutant, dead) in enumerate(zip(found, told, strict=True), start=1):
        seen += dead
        if done % 20 == 0:
            print(f"{seen} of {done} seen so far, of {len(found)} in all", flush=True)
        if not dead:
            line = (ROOT / mutant.file).read_text().splitlines()[mutant.line - 1].strip()
            print(f"survived {mutant.file}:{mutant.line} {mutant.change}", flush=True)
            print(f"    {line}", flush=True)
    share = 100 * seen / len(found) if found else 100.0
    print(f"{seen} of {len(found)} mutants seen: {share:.1f} %")
    return 0 if share >= asked.least else 1


if __name__ == "__main__":
    sys.exit(main())
