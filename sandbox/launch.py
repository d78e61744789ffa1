"""`make run`: the server and the background service together, on a machine where nothing is configured yet.

Its steps are told with their times; a port that is taken is refused before anything is made. With no OpenRouter key
configured it also starts the stand-in, and keeps everything of that run (accounts, keys, database) in a folder of its
own: what is tried with the stand-in never meets a real key. Ctrl-C ends it all.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time

import orjson
import requests

from clients.python.openrouter_proxy_client import KdfParameters, derive_key
from config import sources
from config.settings import ROOT, Config
from sandbox.steps import Step
from serving import listeners

START_SECONDS = 60
STAND_IN_CLIENT = "stand-in"
Environment = dict[str, str]
Child = subprocess.Popen[bytes]


def main(steps: tuple[str, str] = ("3/4", "4/4")) -> int:
    """Start everything, say what to try, and wait. Returns the exit code. steps: the numbers of ours, after make's."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    children: list[Child] = []
    try:
        return run(children, steps)
    except sources.ConfigError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return 0
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):  # a second one must not leave children behind
            signal.signal(number, signal.SIG_IGN)
        for child in reversed(children):
            child.terminate()
            child.wait()


def run(children: list[Child], steps: tuple[str, str]) -> int:
    """Start the programs into `children` and return when one of them ends. Raises ConfigError."""
    settings = sources.look()
    if reason := listeners.why_not(settings.listen_host, settings.port):
        raise sources.ConfigError([reason])
    settings = sources.load()
    environment = dict(os.environ)
    if not (settings.openrouter_provision_key or settings.openrouter_api_keys or os.environ.get("OPENROUTER_API_URL")):
        with Step(f"{steps[0]} Starting stand-ins for OpenRouter and for log-ins"):
            environment |= start_stand_in(children, settings)
            environment |= start_identity_provider(children, settings)
        settings = sources.load(environment)
        say("No OpenRouter key is set (OPENROUTER_PROVISION_KEY in .env): a stand-in answers in its place.")
    else:
        say(f"{steps[0]} Calls go to {settings.openrouter_api_url}: no stand-in is needed.")
    url = f"http://127.0.0.1:{settings.port}"
    with Step(f"{steps[1]} Starting the database, the server and the background service", is_alone=False):
        if settings.openrouter_provision_key:
            children.append(start("key_rotation.py", environment))
        # The management key is for the rotation alone.
        without = {"OPENROUTER_PROVISION_KEY": "", "OPENROUTER_PROVISION_KEY_FILE": ""}
        children.append(start("app.py", environment | without))
        wait_until_healthy(url, children)
    say_what_to_try(url)
    if settings.github_client_id == STAND_IN_CLIENT:
        say_what_else(url)
    while all(child.poll() is None for child in children):
        time.sleep(0.2)
    return 1


def start_stand_in(children: list[Child], settings: Config) -> Environment:
    """Start the stand-in; return the settings that lead to it, and to a folder, a database and a key of its own."""
    folder = settings.data_dir / "stand-in"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key_file = folder / "management_key"
    if not key_file.exists():
        key_file.touch(mode=0o600)
        key_file.write_text(f"sk-or-v1-{secrets.token_hex(32)}", encoding="ascii")
    management_key = key_file.read_text(encoding="ascii")
    command = [sys.executable, "-m", "sandbox.openrouter", "--port", "0", "--pace-ms", "60"]
    command += ["--state", str(folder / "openrouter.json"), "--management-key", management_key]
    address = listening(children, command)
    own = {"DATA_DIR": str(folder), "OPENROUTER_API_URL": address, "OPENROUTER_PROVISION_KEY": management_key}
    no_database_server = ("DB_HOST", "DB_PASSWORD", "DB_PASSWORD_FILE", "DATABASE_URL", "DATABASE_URL_FILE")
    return own | dict.fromkeys(no_database_server, "")


def start_identity_provider(children: list[Child], settings: Config) -> Environment:
    """Start the stand-in for GitHub, Linux.do and OpenID Connect; return the settings that lead to it."""
    address = listening(children, [sys.executable, "-m", "sandbox.identity_provider", "--port", "0"])
    own = {"PUBLIC_URL": f"http://127.0.0.1:{settings.port}", "OIDC_NAME": "oidc", "OIDC_ISSUER": f"{address}/oidc"}
    own |= {"GITHUB_URL": f"{address}/github", "GITHUB_API_URL": f"{address}/github"}
    own |= {"LINUXDO_URL": f"{address}/linuxdo"}
    for name in ("GITHUB", "LINUXDO", "OIDC"):
        own |= {f"{name}_CLIENT_ID": STAND_IN_CLIENT, f"{name}_CLIENT_SECRET": f"secret-of-{STAND_IN_CLIENT}"}
        own[f"{name}_CLIENT_SECRET_FILE"] = ""
    return own


def listening(children: list[Child], command: list[str]) -> str:
    """Start a stand-in and return the address that it says it listens on."""
    stand_in = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
    children.append(stand_in)
    assert stand_in.stdout  # noqa: S101 - a pipe, as asked
    return str(orjson.loads(stand_in.stdout.readline())["listening"])


def start(program: str, environment: Environment) -> Child:
    """Start one of the project's programs; it writes to this terminal."""
    return subprocess.Popen([sys.executable, str(ROOT / program)], cwd=ROOT, env=environment)


def wait_until_healthy(url: str, children: list[Child]) -> None:
    """Return when the server can answer calls. Exits if a program ends or nothing works after START_SECONDS."""
    health = "no answer"
    for _ in range(START_SECONDS * 5):
        if any(child.poll() is not None for child in children):
            raise SystemExit(1)  # it has said why
        try:
            answer = requests.get(f"{url}/api/health", timeout=5)
            if answer.status_code == 200:
                return
            health = answer.text
        except requests.RequestException:
            pass
        time.sleep(0.2)
    sys.stderr.write(f"The service is not healthy after {START_SECONDS} s: {health}\n")
    raise SystemExit(1)


def say_what_to_try(url: str) -> None:
    """Three lines for another terminal, with the key of a password made up here."""
    parameters = KdfParameters.from_answer(requests.get(f"{url}/api/auth/kdf", timeout=5).json())
    username = f"you-{secrets.token_hex(2)}@example.com"
    key = derive_key(username, secrets.token_urlsafe(16), parameters)
    account = f'{{"username":"{username}","derived_key":"{key}"}}'
    messages = '[{"role":"user","content":"Hello, who are you?"}]'
    question = f'{{"model":"openai/gpt-4o-mini","stream":true,"messages":{messages}}}'
    post = "curl -sS -H 'Content-Type: application/json'"
    say(f"Serving at {url}: open it in a browser, and sign up. Or try, in another terminal:")
    say(f"{post} {url}/register -d '{account}'")
    say(f'TOKEN=$({post} {url}/login -d \'{account}\' | sed \'s/.*"token":"\\([^"]*\\)".*/\\1/\')')
    say(f"{post} -N {url}/v1/chat/completions -H \"Authorization: Bearer $TOKEN\" -d '{question}'")


def say_what_else(url: str) -> None:
    """What the stand-ins are good for besides."""
    say(f"{url}/login offers GitHub, Linux.do and OpenID Connect, too: stand-ins, which ask who you want to be.")


def say(line: str) -> None:
    """Tell the person at the terminal."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
