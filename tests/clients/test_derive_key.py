"""The browser's key derivation gives the same keys as the Python client, and refuses the same parameters."""

import base64
import hashlib
import json
import random
import subprocess
from pathlib import Path

from openrouter_proxy_client import derive_key

from tests.support.rows import each_row

STATIC = Path(__file__).parents[2] / "web/static"
VENDORED = json.loads((STATIC / "vendor" / "vendor.json").read_text("utf-8"))
ODD_CHARACTERS = [
    "a",
    "Z",
    "0",
    " ",
    "$",
    "é",
    "e\u0301",
    "\u0301",
    "ß",
    "пё",
    "用户",
    "🔑",
    "🗝️",
    "👩‍👩‍👧",
    "\u200d",
    "\0",
    "ﷺ",
]

# runInThisContext has no `exports`, as in a page: the UMD files add themselves to globalThis.
RUN_IN_NODE = """
import { readFileSync } from 'node:fs';
import { runInThisContext } from 'node:vm';
const { scripts, module, calls } = JSON.parse(readFileSync(0, 'utf8'));
for (const file of scripts) runInThisContext(readFileSync(file, 'utf8'));
const { deriveKey, fetchParameters } = await import(module);
const answers = [];
for (const { call, served, args } of calls) {
  globalThis.fetch = async (url, options) => {
    if (url !== 'https://gateway.example/api/auth/kdf') throw new Error(`wrong address ${url}`);
    if (options.redirect !== 'error') throw new Error('a redirect would be followed');
    return new Response(JSON.stringify(served.body), { status: served.status });
  };
  try {
    answers.push({ result: await { deriveKey, fetchParameters }[call](...args) });
  } catch (error) {
    answers.push({ error: error.message });
  }
}
console.log(JSON.stringify(answers));
"""


def run_in_node(calls: list[dict]) -> list[dict]:
    source = base64.b64encode((STATIC / "derive-key.js").read_bytes()).decode()
    job = {
        "scripts": [str(STATIC / "vendor" / entry["file"]) for entry in VENDORED if entry["name"] == "hash-wasm"],
        # As a data: address Node takes it for a module, which a .js file without package.json is not.
        "module": f"data:text/javascript;base64,{source}",
        "calls": calls,
    }
    node = ["node", "--input-type=module", "--eval", RUN_IN_NODE]
    finished = subprocess.run(node, input=json.dumps(job).encode(), capture_output=True, timeout=30, check=False)
    assert finished.returncode == 0, finished.stderr.decode()
    return json.loads(finished.stdout)


def derive(username: str, password: str, parameters: dict) -> dict:
    return {"call": "deriveKey", "args": [username, password, parameters]}


def test_vectors(vectors, published):
    calls = [derive(v["email"], v["password"], {**published, "domain": v["domain"]}) for v in vectors]
    assert run_in_node(calls) == [{"result": v["derived_key"]} for v in vectors]


def test_agrees_with_python_on_odd_texts(published):
    rng = random.Random(20)
    pairs = [["".join(rng.choices(ODD_CHARACTERS, k=rng.randint(1, 12))) for _ in range(2)] for _ in range(20)]
    in_python = [{"result": derive_key(username, password)} for username, password in pairs]
    assert run_in_node([derive(username, password, published) for username, password in pairs]) == in_python


def test_refuses_what_would_weaken_or_change_the_key(published):
    changes = [
        {"time_cost": 1},
        {"memory_kib": 1952},
        {"memory_kib": "1953"},
        {"memory_kib": 2**40},
        {"parallelism": 0},
        {"hash_len": 63},
        {"algorithm": "argon2i"},
        {"encoding": "hex"},
        {"length": 32},
        {"salt": {**published["salt"], "password_prefix_characters": 60}},
        {"domain": ""},
    ]
    answers = run_in_node([derive("user", "password", {**published, **change}) for change in changes])
    for change, answer in zip(changes, answers, strict=True):
        assert next(iter(change)) in answer["error"]


def test_refuses_texts_that_have_no_key(published):
    pairs = [("user", "half an emoji \ud83d"), ("\udd11", "password"), ("user", ""), ("", "password")]
    assert run_in_node([derive(username, password, published) for username, password in pairs]) == [
        {"error": "the password is not valid Unicode"},
        {"error": "the username is not valid Unicode"},
        {"error": "the password is empty"},
        {"error": "the username is empty"},
    ]


def test_fetch_parameters(published):
    weak = {**published, "time_cost": 1}
    served = [{"status": 200, "body": published}, {"status": 200, "body": weak}, {"status": 503, "body": {}}]
    calls = [{"call": "fetchParameters", "args": ["https://gateway.example/"], "served": each} for each in served]
    good, refused, failed = run_in_node(calls)
    assert good == {"result": published}
    assert "time_cost" in refused["error"]
    assert "503" in failed["error"]


@each_row("entry", VENDORED, ids=lambda entry: entry["file"])
def test_vendored_file_is_unchanged(entry):
    content = (STATIC / "vendor" / entry["file"]).read_bytes()
    assert hashlib.sha384(content).hexdigest() == entry["sha384"]
    assert entry["name"] and entry["version"] in entry["file"] and entry["license"]
