"""The TypeScript client in Node: alone, against scripted answers, and against a running gateway."""

import json
import re
import secrets
import subprocess
from pathlib import Path

import pytest

from tests.support.gateway import ROOT, environment

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


def test_what_is_tested_was_built_from_this_source():
    oldest = min((file.stat().st_mtime for file in (CLIENT / "dist").glob("*.js")), default=0)
    assert max(file.stat().st_mtime for file in (CLIENT / "src").glob("*.ts")) < oldest, "`make test` builds it"


@pytest.mark.parametrize("name", ["derive", "pin", "session", "calls"])
def test_alone(name):
    in_node("--test", TESTS / f"{name}.test.mjs")


def test_at_a_gateway(running):
    in_node("--test", TESTS / "gateway.test.mjs", GATEWAY=running.url)


def test_its_types_help(tmp_path):
    """As an app sees them that has the package among its own, with the strictest options."""
    (tmp_path / "node_modules").mkdir()
    (tmp_path / "node_modules/openrouter-proxy-client").symlink_to(CLIENT)
    (tmp_path / "app.ts").write_text((TESTS / "types.ts").read_text())
    (tmp_path / "package.json").write_text('{"type": "module"}')
    for module in ({"module": "nodenext"}, {"module": "esnext", "moduleResolution": "bundler"}):
        options = {"noEmit": True, "strict": True, "exactOptionalPropertyTypes": True, "target": "es2022", **module}
        (tmp_path / "tsconfig.json").write_text(json.dumps({"compilerOptions": options}))
        in_node(CLIENT / "node_modules/typescript/bin/tsc", "--project", tmp_path)


def test_the_example_works(running):
    name = f"{secrets.token_hex(8)}@example.com"
    for _ in range(2):  # the second time the name is one's own
        printed = in_node("examples/chat.mjs", running.url, name, "correct horse battery")
        assert re.fullmatch(r'This is the stand-in .* keys\."\n\d+ tokens, \$0\.\d+\n', printed), printed


def test_the_program_in_its_readme_works(running, tmp_path):
    program = re.search(r"```js\n(.*?)```", (CLIENT / "README.md").read_text(), re.DOTALL)[1]
    name = f"{secrets.token_hex(8)}@example.com"
    program = program.replace("https://gateway.example", running.url).replace("user@example.com", name)
    printed = in_node("--input-type=module", "--eval", program)
    assert "stand-in" in printed
    assert "limit_usd: null" in printed


def test_the_package_holds_what_it_needs_and_no_more(tmp_path):
    npm = ["npm", "pack", "--dry-run", "--json", "--ignore-scripts", "--cache", tmp_path]
    listed = subprocess.run(npm, cwd=CLIENT, capture_output=True, check=True).stdout
    [package] = json.loads(listed)
    modules = {f"dist/{file.stem}" for file in (CLIENT / "src").glob("*.ts")}
    files = {f"{module}{ending}" for module in modules for ending in (".js", ".d.ts")}
    assert {file["path"] for file in package["files"]} == files | {"LICENSE", "README.md", "package.json"}
    assert (CLIENT / "LICENSE").read_text() == (ROOT / "LICENSE").read_text()


def test_versions_are_exact_and_the_lock_names_no_registry():
    versions = PACKAGE["dependencies"] | PACKAGE["devDependencies"]
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", version) for version in versions.values())
    lock = (CLIENT / "package-lock.json").read_text()
    assert '"resolved"' not in lock
    packages = json.loads(lock)["packages"]
    assert {name: packages[f"node_modules/{name}"]["version"] for name in versions} == versions
