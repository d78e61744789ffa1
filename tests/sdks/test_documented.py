"""The list of clients in docs/clients.md is the list of those that are tested, in the versions that are tested."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.gateway import ROOT
from tests.support.rows import each_row

DOCUMENT = (ROOT / "docs/clients.md").read_text()
ROWS = re.findall(r"^\| `([^`]+)` \((Python|Node)\) \| ([\d.]+) \|.*\| `(tests/[^`]+)` \|$", DOCUMENT, re.MULTILINE)
SDKS = Path(__file__).parent
# What the scripts of Node clients need besides.
NOT_CLIENTS = {"zod"}
# A program that people run, and no library: the suite sends what it writes on the wire.
REPLAYED = {SDKS / "test_claude_code.py"}


def python_versions() -> dict[str, str]:
    locks = [SDKS / "langchain/requirements.txt", ROOT / "requirements-dev.txt"]  # the second counts for both
    return dict(pin for lock in locks for pin in re.findall(r"^([\w.-]+)==([\w.]+)", lock.read_text(), re.MULTILINE))


def node_versions() -> dict[str, str]:
    packages = json.loads((SDKS / "node/package-lock.json").read_text())["packages"]
    return {path.removeprefix("node_modules/"): found["version"] for path, found in packages.items() if path}


@each_row(("client", "language", "version", "test_file"), ROWS)
def test_each_client_is_tested_in_the_version_that_is_told(client, language, version, test_file):
    versions = python_versions() if language == "Python" else node_versions()
    assert versions[client] == version
    assert (ROOT / test_file).exists()


def test_every_tested_client_is_in_the_list():
    assert {ROOT / row[3] for row in ROWS} == set(SDKS.glob("test_*.py")) - {Path(__file__)} - REPLAYED
    node = json.loads((SDKS / "node/package.json").read_text())["dependencies"]
    assert {row[0] for row in ROWS if row[1] == "Node"} == node.keys() - NOT_CLIENTS
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in node.values())


def test_the_lock_of_node_names_no_registry():
    assert '"resolved"' not in (SDKS / "node/package-lock.json").read_text()


@pytest.mark.parametrize("snippet", re.findall(r"```python\n(.*?)```", DOCUMENT, re.DOTALL))
def test_python_in_the_document_is_python(snippet):
    compile(snippet, "docs/clients.md", "exec")
    assert "https://gateway.example" in snippet


@pytest.mark.parametrize("snippet", re.findall(r"```js\n(.*?)```", DOCUMENT, re.DOTALL))
def test_javascript_in_the_document_is_javascript(snippet, tmp_path):
    (tmp_path / "snippet.mjs").write_text(snippet)
    subprocess.run(["node", "--check", tmp_path / "snippet.mjs"], check=True)
    assert "https://gateway.example" in snippet
