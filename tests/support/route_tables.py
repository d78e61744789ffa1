"""What holds of a folder's table of contents: every file with routes is in it, and no address is taken twice."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import ModuleType

from flask import Blueprint, Flask


def missing(package: ModuleType, register: Callable[[Flask], None]) -> list[str]:
    """The modules of this package without routes in the application that `register` fills."""
    app = Flask(__name__, static_folder=None)
    register(app)
    rules = [(rule.rule, method) for rule in app.url_map.iter_rules() for method in rule.methods - {"HEAD", "OPTIONS"}]
    assert len(set(rules)) == len(rules)
    names = sorted(path.stem for path in Path(str(package.__file__)).parent.glob("*.py") if path.stem != "__init__")
    routes = {name: getattr(import_module(f"{package.__name__}.{name}"), "routes", None) for name in names}
    known = set(app.blueprints.values())
    assert known >= {one for one in routes.values() if isinstance(one, Blueprint)}
    return [name for name, one in routes.items() if not isinstance(one, Blueprint)]
