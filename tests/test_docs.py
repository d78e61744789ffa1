"""The documents agree with the code: settings and their defaults, names of files, links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pydantic import BaseModel, SecretStr

from config.settings import SECRET_NAMES, SECTIONS, Config
from config.sources import GENERATED
from tests.support.gateway import ROOT
from tests.support.rows import each_row

DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
DOCUMENT = each_row("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
SETTINGS = {name.upper(): field for name, field in Config.model_fields.items()}
COMPOSE_ONLY = {"MYSQL_ROOT_PASSWORD"}
METHODS = {"GET", "POST", "PUT", "PATCH", "DELETE"}


def default_of(name: str) -> str:
    """A setting's default as one would write it into .env."""
    value = SETTINGS[name].default
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None or value == () else str(value)


def settings_table() -> str:
    """What docs/settings.md must hold: a table for each section."""
    return "\n\n".join(f"## {section.__doc__.rstrip('.')}\n\n{table_of(section)}" for section in SECTIONS)


def table_of(section: type[BaseModel]) -> str:
    lines = ["| name | default | meaning |", "|---|---|---|"]
    for field_name, field in section.model_fields.items():
        name = field_name.upper()
        default = "generated; none in production" if name in GENERATED else default_of(name) and f"`{default_of(name)}`"
        secret = " (secret)" if name in SECRET_NAMES else ""
        lines.append(f"| `{name}`{secret} | {default} | {field.description} |")
    return "\n".join(lines)


def test_settings_tables_are_the_codes() -> None:
    if settings_table() not in (ROOT / "docs/settings.md").read_text():
        pytest.fail(
            f"docs/settings.md differs from config/; its tables must be:\n\n{settings_table()}\n",
            pytrace=False,
        )


def test_env_example_has_every_setting_and_its_default() -> None:
    text = (ROOT / ".env.example").read_text()
    missing = []
    for name, field in SETTINGS.items():
        block = f"# {field.description}\n#{name}={default_of(name)}\n"
        # What docker compose requires stands there without the #, to be filled in.
        if block not in text and (default_of(name) or block.replace(f"#{name}", name) not in text):
            missing.append(block)
    if missing:
        pytest.fail(".env.example differs from config/; it must have:\n\n" + "".join(missing), pytrace=False)


def test_env_example_has_each_name_once_and_no_other() -> None:
    names = re.findall(r"^#?([A-Z][A-Z0-9_]*)=", (ROOT / ".env.example").read_text(), re.MULTILINE)
    assert sorted(names) == sorted([*SETTINGS, *COMPOSE_ONLY])


def test_changelog_is_there() -> None:
    assert (ROOT / "CHANGELOG.md").read_text().startswith("# Changelog\n")


def test_the_list_of_decisions_is_whole() -> None:
    decisions = {path.name for path in ROOT.glob("docs/decisions/0*.md")}
    listed = re.findall(r"\]\((0[\w-]+\.md)\)", (ROOT / "docs/decisions/README.md").read_text())
    assert sorted(listed) == sorted(decisions), "docs/decisions/README.md has a line for each decision"


@DOCUMENT
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", document.read_text())
    relative = [target for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in relative if not (document.parent / target.partition("#")[0]).exists()] == []


@DOCUMENT
def test_tables_name_what_exists(document: Path) -> None:
    """Rows that begin with files or settings: | `app.py` | ... | or | `HOST` `PORT` | their defaults | ... |."""
    wrong = []
    for line in re.findall(r"^\| *`.*", document.read_text(), re.MULTILINE):
        names, defaults = (re.findall(r"`([^`]+)`", cell) for cell in line.split("|")[1:3])
        for name in names:
            is_file = re.fullmatch(r"[\w.-][\w./-]*(\.[a-z]+|/)", name)
            is_setting = re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*", name) and name not in METHODS
            if (is_file and not (ROOT / name).exists()) or (is_setting and name not in SETTINGS.keys() | COMPOSE_ONLY):
                wrong.append(name)
        if set(names) <= set(SETTINGS) and len(names) == len(defaults):
            pairs = zip(names, defaults, strict=True)
            wrong += [f"{name} is not {default}" for name, default in pairs if default != default_of(name)]
    assert wrong == []


@DOCUMENT
def test_code_in_the_text_exists(document: Path) -> None:
    """Files, `app.py`, and what is said to be in them, `app.py`: `serve`."""
    text = document.read_text()
    missing = {name for name in re.findall(r"`([\w/]+\.py)`", text) if not (ROOT / name).exists()}
    for name, symbols in re.findall(r"`([\w/]+\.py)`: ((?:`[\w-]+`(?:, )?)+)", text):
        code = (ROOT / name).read_text() if (ROOT / name).exists() else ""
        missing |= {f"{name}: {symbol}" for symbol in re.findall(r"[\w-]+", symbols) if symbol not in code}
    assert sorted(missing) == []


@DOCUMENT
def test_tests_that_are_named_exist(document: Path) -> None:
    """As `tests/test_app.py::test_that_it_is_so`."""
    named = set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", document.read_text()))
    missing = {f"{file}::{name}" for file, name in named if not has_test(ROOT / file, name)}
    assert sorted(missing) == []


def has_test(file: Path, name: str) -> bool:
    return file.exists() and re.search(rf"^def {name}\(", file.read_text(), re.MULTILINE) is not None
