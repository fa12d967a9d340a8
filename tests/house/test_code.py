"""Habits that linters cannot know."""

from __future__ import annotations

import ast
import base64
import gzip
import hashlib
import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = sorted((ROOT / "src").rglob("*.py"))
TREES = {path: ast.parse(path.read_text()) for path in SOURCES}


def calls(tree: ast.AST):
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))


def test_only_the_door_commits():
    where = {
        path.relative_to(ROOT / "src").as_posix()
        for path, tree in TREES.items()
        for call in calls(tree)
        if isinstance(call.func, ast.Attribute)
        and call.func.attr == "commit"
        and isinstance(call.func.value, ast.Attribute | ast.Name)
        and "session" in ast.unparse(call.func.value)
    }
    assert where <= {"stagerelease/db/work.py"}


def test_only_the_clock_knows_the_time():
    for path, tree in TREES.items():
        name = path.relative_to(ROOT / "src").as_posix()
        if name in ("stagerelease/kernel/clock.py", "stagerelease/supervisor/devca.py"):
            continue
        for call in calls(tree):
            text = ast.unparse(call.func)
            assert text not in ("datetime.now", "datetime.utcnow", "time.time"), f"{name}: {text}"


def test_no_source_file_is_longer_than_it_should_be():
    long = {p.name: n for p in SOURCES if (n := p.read_text().count("\n")) > 420}
    assert long == {}


def test_no_function_is_longer_than_it_should_be():
    long = [
        f"{path.name}:{node.name} {node.end_lineno - node.lineno + 1}"
        for path, tree in TREES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno - node.lineno + 1 > 75
    ]
    assert long == []


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT / "src").as_posix())
def test_no_import_hides_in_a_function(path):
    for node in ast.walk(TREES[path]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            for inner in ast.walk(node):
                if isinstance(inner, ast.Import | ast.ImportFrom):
                    names = ast.unparse(inner)
                    assert "torch" in names or "uvloop" in names, f"{path}: {names}"


def test_every_route_takes_the_door_or_is_listed_as_needing_none():
    without_work = {
        "livez",
        "version",
        "explain",
        "show_problems",
        "vkey",
        "plan_schema",
        "agent_harnesses",
        "alias_refs",
        "static_file",
        "choose_theme",
        "edge_cuts",
        "duo_codes",
        "nothing_here",
    }
    for path in (ROOT / "src/stagerelease/http").rglob("*.py"):
        for node in ast.walk(TREES[path]):
            if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            routed = any(
                isinstance(d, ast.Call)
                and isinstance(d.func, ast.Attribute)
                and isinstance(d.func.value, ast.Name)
                and d.func.value.id == "router"
                for d in node.decorator_list
            )
            if routed and node.name not in without_work:
                args = {ast.unparse(a.annotation) for a in node.args.args if a.annotation}
                assert args & {"Begin", "BeginPublic", "BeginPage", "BeginVisitor"}, (
                    f"{path.name}:{node.name}"
                )


VENDOR = ROOT / "src/stagerelease/http/pages/static/vendor"


def test_what_comes_from_elsewhere_is_exactly_what_was_written_down():
    rows = json.loads((VENDOR / "VENDOR.json").read_text())
    for row in rows:
        digest = hashlib.sha384((VENDOR / row["path"]).read_bytes()).digest()
        assert row["integrity"] == "sha384-" + base64.b64encode(digest).decode(), row["path"]
        assert row["licence"] in {"MIT", "BSD-0-Clause", "BSD-2-Clause", "BSD-3-Clause", "0BSD"}
    lying = {p.relative_to(VENDOR).as_posix() for p in VENDOR.rglob("*") if p.is_file()}
    assert lying == {row["path"] for row in rows} | {"VENDOR.json"}
    wanted = json.loads((ROOT / "package.json").read_text())["dependencies"]
    assert {row["package"]: row["version"] for row in rows} == wanted


def test_what_every_page_brings_along_stays_small():
    static = ROOT / "src/stagerelease/http/pages/static"
    assert (static / "app.css").stat().st_size <= 10 * 1024
    sheets = [*static.glob("*.css"), *static.glob("*.js"), *VENDOR.glob("*/*.min.*")]
    assert sum(len(gzip.compress(p.read_bytes())) for p in sheets) <= 40 * 1024
