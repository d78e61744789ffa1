"""The TypeScript client in Node: alone, against scripted answers, and against a running gateway."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.gateway import ROOT, environment

CLIENT = ROOT / "clients/typescript"
TESTS = Path(__file__).parent / "typescript"
PACKAGE = json.loads((CLIENT / "package.json").read_text())


def in_node(*arguments: object, **settings: object) -> str:
    """What a program that ends well prints."""
    command = ["node", *map(str, arguments)]
    ended = subprocess.run(
        command, cwd=CLIENT, env=environment(**settings), capture_output=True, text=True, timeout=90, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def gateway(start, stand_in, pool_keys):
    keys = ",".join(key["key"] for key in pool_keys)
    return start(OPENROUTER_API_URL=stand_in.address, OPENROUTER_API_KEYS=keys)


def test_what_is_tested_was_built_from_this_source():
    oldest = min(file.stat().st_mtime for file in (CLIENT / "dist").glob("*.js"))
    assert max(file.stat().st_mtime for file in (CLIENT / "src").glob("*.ts")) < oldest, "`make test` builds it"


@pytest.mark.parametrize("name", ["derive", "session", "calls"])
def test_alone(name):
    in_node("--test", TESTS / f"{name}.test.mjs")


def test_at_a_gateway(gateway):
    in_node("--test", TESTS / "gateway.test.mjs", GATEWAY=gateway.url)
