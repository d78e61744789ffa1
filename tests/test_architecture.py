"""The layout as a test: maps and files agree, how big a file may grow, where its tests are. What may import what is in
pyproject.toml, held by `make lint`."""

import ast
import re
import sys
import tomllib
from pathlib import Path

from tests.support.rows import each_row

ROOT = Path(__file__).parents[1]
ROOMS = sorted(
    path.parent for path in ROOT.glob("*/__init__.py") if path.parent.name not in {"bench", "sandbox", "tests"}
)
ROOMS += sorted(path.parent for room in ROOMS for path in room.glob("*/__init__.py"))
MAX_LINES, MAX_FUNCTION_LINES, MAX_MAP_LINES, MAX_ROOT_FILES = 400, 50, 25, 10
# One file by design: people copy it beside their own program (CONTRIBUTING.md), so its nouns cannot move out.
LONGER = {"clients/python/openrouter_proxy_client.py": 500}
MODULES = sorted([*ROOT.glob("*.py"), *(path for room in ROOMS for path in room.glob("*.py"))])
MODULES = [path for path in MODULES if path.name not in {"gunicorn.conf.py", "__init__.py"}]
OTHERS = sorted([*ROOT.glob("sandbox/*.py"), *ROOT.glob("bench/*.py"), *ROOT.glob("clients/python/*.py")])


def name_of(path):
    return str(path.relative_to(ROOT))


def each(paths):
    return each_row("path", paths, ids=name_of)


@each(ROOMS)
def test_a_rooms_map_names_its_files_and_no_others(path):
    text = (path / "__init__.py").read_text()
    assert len(text.splitlines()) <= MAX_MAP_LINES
    tree = ast.parse(text)
    assert [type(node) for node in tree.body] == [ast.Expr], "a map is a docstring, and nothing else"
    # Small files of one kind may share a line; names end where two spaces and a word begin what they hold.
    lines = [line[4:] for line in ast.get_docstring(tree, clean=False).splitlines() if line.startswith("    ")]
    found = [name for line in lines for name in re.match(r"(?:\w+(?:\.py|/)(?:  +|$))*", line)[0].split()]
    assert all(re.match(r"\w+(?:\.py|/)  +\w", line) for line in lines), "only names of files are indented"
    files = [one.name for one in path.glob("*.py") if one.name != "__init__.py"]
    files += [
        f"{one.name}/" for one in path.iterdir() if one in ROOMS or one.name in {"static", "templates", "translations"}
    ]
    assert sorted(found) == sorted(files)


def test_the_map_names_all_rooms_and_all_files_at_the_root():
    text = (ROOT / "docs/map.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    found = [name for row in rows for name in re.findall(r"`([\w./]+)`", row.split("|")[1])]
    folders = [f"{path.name}/" for path in ROOMS if path.parent == ROOT]
    folders += ["bench/", "clients/", "docs/", "migrations/", "sandbox/", "tests/"]
    assert sorted(found) == sorted([*folders, *(path.name for path in ROOT.glob("*.py"))])
    assert len(list(ROOT.glob("*.py"))) <= MAX_ROOT_FILES


def test_the_wheel_holds_all_rooms_and_all_files_at_the_root():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    folders = {path.name for path in ROOMS if path.parent == ROOT} | {"clients/python", "migrations", "sandbox"}
    assert set(wheel["only-include"]) == folders | {path.name for path in ROOT.glob("*.py")} | {"LICENSE"}


@each(MODULES + OTHERS)
def test_says_what_it_is_for(path):
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, "the first line of a file says what the file is for"
    assert docstring.splitlines()[0].endswith((".", ":", ",")) or len(docstring.splitlines()) > 1


@each(MODULES + OTHERS)
def test_stays_small(path):
    assert len(path.read_text().splitlines()) <= LONGER.get(name_of(path), MAX_LINES)
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = node.end_lineno - node.lineno + 1
            assert length <= MAX_FUNCTION_LINES, f"{node.name} has {length} lines"


@each(MODULES)
def test_does_no_work_when_imported(path):
    """Definitions, constants and `if __name__` only: no connection, no thread, no environment at import time."""
    for node in ast.parse(path.read_text()).body:
        assert not isinstance(node, ast.For | ast.While | ast.With | ast.Try), f"line {node.lineno}"
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"line {node.lineno}"


@each(MODULES)
def test_public_functions_and_classes_are_documented(path):
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_") and path.name != "errors.py":
            assert ast.get_docstring(node), node.name


@each(MODULES)
def test_has_a_test_file(path):
    assert (ROOT / "tests" / path.parent.relative_to(ROOT) / f"test_{path.name}").exists()


@each([path for path in ROOT.glob("sandbox/*.py") if path.stem != "__init__"])
def test_the_stand_in_has_test_files_too(path):
    assert (ROOT / "tests/sandbox" / f"test_{path.name}").exists()


def test_no_two_classes_share_a_name():
    classes = [
        (node.name, name_of(path))
        for path in MODULES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.ClassDef)
    ]
    names = [name for name, _ in classes]
    assert [found for found in classes if names.count(found[0]) > 1] == []


def test_no_name_repeats_its_room():
    repeated = [
        path for path in MODULES for room in path.parent.relative_to(ROOT).parts if room in path.stem.split("_")
    ]
    assert repeated == []


def test_nothing_at_the_root_hides_a_library():
    names = {path.stem for path in ROOT.glob("*.py")} | {path.name for path in ROOMS if path.parent == ROOT}
    assert names & set(sys.stdlib_module_names) == set()
    assert names & {"jwt", "limits", "schema", "requests", "redis", "click", "tokens"} == set()


def test_no_name_says_nothing():
    empty = {"utils", "helpers", "common", "misc", "base", "core", "util", "manager"}
    assert {path.stem for path in MODULES + OTHERS} & empty == set()
