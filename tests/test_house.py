"""The house: few packages, few single files, small files and functions, one way, one definition a public name."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import grimp
import pytest

import evenhand

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src/evenhand"
MODULES = sorted(SOURCE.rglob("*.py"))


def module_ids(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def test_packages_and_single_files_are_few() -> None:
    packages = [path.name for path in SOURCE.iterdir() if (path / "__init__.py").exists()]
    files = [path.name for path in SOURCE.glob("*.py") if not path.name.startswith("__")]
    assert len(packages) <= 13, packages
    assert len(files) <= 7, files


def test_no_module_is_reached_from_itself() -> None:
    graph = grimp.build_graph("evenhand", cache_dir=None)
    imported = {name: graph.find_modules_directly_imported_by(name) for name in graph.modules}
    # modules that import nothing of what is left go, again and again; what stays lies on a circle
    while leaves := {name for name, found in imported.items() if not found & imported.keys()}:
        imported = {name: found for name, found in imported.items() if name not in leaves}
    assert imported.keys() == set()


@pytest.mark.parametrize("path", MODULES, ids=module_ids)
def test_files_and_functions_stay_small(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, node.name


@pytest.mark.parametrize("path", MODULES, ids=module_ids)
def test_files_named_in_the_source_exist(path: Path) -> None:
    known = {module.name for module in MODULES} | {script.name for script in (ROOT / "benchmarks").glob("*.py")}
    named = set(re.findall(r"\b([a-z_]+\.py)\b", ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""))
    assert named <= known


def test_a_public_name_is_defined_once() -> None:
    found: dict[str, list[str]] = {}
    for path in MODULES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name in evenhand.__all__:
                found.setdefault(node.name, []).append(module_ids(path))
    twice = {name: places for name, places in found.items() if len(places) > 1}
    assert twice == {}


def test_tests_lie_beside_the_names_of_what_they_test() -> None:
    rooms = {path.name for path in SOURCE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    tested = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.rglob("test_*.py"))}
    assert tested <= rooms
    assert rooms - tested == set()
