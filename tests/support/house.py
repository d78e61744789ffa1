"""Kinds of contract for import-linter (pyproject.toml has the contracts), which by itself sees packages, but no single
files at the root: `floors`, its layers with those files among them; `door`, who may import a package."""

from __future__ import annotations

import ast
from pathlib import Path

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output
from importlinter.contracts.layers import LayersContract

ROOT = Path(__file__).parents[2]
ROOT_MODULES = sorted({path.stem for path in ROOT.glob("*.py")} - {"gunicorn.conf"})
PLACES = {"app", *ROOT_MODULES}


def add_root_modules(graph: ImportGraph) -> None:
    """Give the graph the files at the root, and what each of them imports."""
    for name in ROOT_MODULES:
        if name in graph.modules:  # as somebody else's, without any imports of its own
            importers = graph.find_modules_that_directly_import(name)
            graph.remove_module(name)
            graph.add_module(name)
            for importer in importers:
                graph.add_import(importer=importer, imported=name)
        else:
            graph.add_module(name)
    for name in ROOT_MODULES:
        for line, imported in _imports(ast.parse((ROOT / f"{name}.py").read_text()), graph):
            known = imported if imported in graph.modules else imported.partition(".")[0]
            if known not in graph.modules:
                graph.add_module(known, is_squashed=True)
            graph.add_import(importer=name, imported=known, line_number=line, line_contents="")


def _imports(tree: ast.Module, graph: ImportGraph) -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [(node.lineno, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            whole = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [(node.lineno, name if name in graph.modules else str(node.module)) for name in whole]
    return found


class Floors(LayersContract):
    """Layers; without `containers` they must name every package and every file at the root."""

    type_name = "floors"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        add_root_modules(graph)
        if not self.containers:
            named = {tail.name for layer in self.layers for tail in layer.module_tails}  # type: ignore[attr-defined]
            missing = {*self.session_options["root_packages"], *ROOT_MODULES} ^ named
            if missing:
                raise ValueError(f"without a floor, or on one and not there: {', '.join(sorted(missing))}")
        return super().check(graph, verbose)


class Door(Contract):
    """Only `doors` may import `packages`. A door is a module, or a package with all that is in it (`web.*`)."""

    type_name = "door"
    packages = fields.ListField(subfield=fields.StringField())
    doors = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        add_root_modules(graph)
        if unknown := [door for door in self.doors if door.removesuffix(".*") not in graph.modules]:  # type: ignore[attr-defined]
            raise ValueError(f"doors that are not there: {', '.join(unknown)}")
        found = [
            f"{importer} imports {package}; only {', '.join(self.doors)} may"  # type: ignore[arg-type]
            for package in self.packages  # type: ignore[attr-defined]
            if package in graph.modules
            for importer in sorted(graph.find_modules_that_directly_import(package))
            if not any(_is_behind(importer, door) for door in self.doors)  # type: ignore[attr-defined]
        ]
        return ContractCheck(kept=not found, metadata={"found": found})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for line in check.metadata["found"]:
            output.print_error(line, bold=False)


def _is_behind(module: str, door: str) -> bool:
    return module == door or (door.endswith(".*") and f"{module}.".startswith(door[:-1]))
