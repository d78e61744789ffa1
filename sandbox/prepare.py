"""`make`'s first steps: a virtual environment with the packages of a requirements file, told as they go.

    python3 -m sandbox.prepare .venv requirements.txt --for-run

It runs on a Python that has nothing installed yet, and imports nothing but the standard library. --for-run refuses a
port that is taken before it makes anything, and says what is there already.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

from sandbox.steps import Step
from serving import listeners

OLDEST = (3, 11)
SAID_ON_FAILURE = 15
"""So many of pip's last lines are shown when it fails."""


class Refused(Exception):
    """Why nothing can be prepared, in one line."""


def main() -> int:
    """The command line. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m sandbox.prepare", description="Makes the virtual environment.")
    parser.add_argument("environment", type=Path, help="its folder, .venv")
    parser.add_argument("requirements", type=Path, help="what goes into it, with hashes")
    parser.add_argument("--stamp", default="runtime", help="the file in it that says it was done")
    parser.add_argument("--for-run", action="store_true", help="refuse a port that is taken before anything is made")
    asked = parser.parse_args()
    try:
        prepare(asked.environment, asked.requirements, asked.stamp, asked.for_run)
    except Refused as error:
        sys.stderr.write(f"Cannot start: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def prepare(environment: Path, requirements: Path, stamp: str, for_run: bool) -> None:
    """Make what is missing. Raises Refused."""
    if sys.version_info < OLDEST:
        raise Refused(f"this is Python {sys.version.split()[0]}; set BASE_PYTHON to one of 3.11 or newer")
    if for_run:
        host, port = where_to_listen(Path(os.environ.get("ENV_FILE") or ".env"))
        if reason := listeners.why_not(host, port):
            raise Refused(reason)
    done, steps = environment / stamp, 4 if for_run else 2
    if done.exists() and done.stat().st_mtime >= requirements.stat().st_mtime:
        if for_run:
            sys.stdout.write(f"1/4 and 2/4: the Python environment and its packages are in {environment}\n")
        return
    if not has_pip(environment):
        with Step(f"1/{steps} Making a Python environment in {environment}"):
            make_environment(environment)
    count = len(re.findall(r"^[A-Za-z0-9].*==", requirements.read_text("utf-8"), re.MULTILINE))
    with Step(f"2/{steps} Installing {count} packages") as step:
        install(environment, requirements, count, step)
    done.touch()


def where_to_listen(env_file: Path) -> tuple[str, int]:
    """HOST and PORT, roughly: from the environment, else from lines NAME=value of `.env`. The start reads them well."""
    found = {"HOST": "", "PORT": ""}
    if env_file.is_file():
        text = env_file.read_text("utf-8", errors="replace")
        found |= dict(re.findall(r"^(?:export )?(HOST|PORT)=[\"']?([\w.:-]*)", text, re.MULTILINE))
    host, port = (os.environ.get(name) or found[name] for name in ("HOST", "PORT"))
    return host or "127.0.0.1", int(port) if re.fullmatch(r"\d{1,5}", port) else 5000


def has_pip(environment: Path) -> bool:
    """False for an environment that was not made, or whose making was ended before it was whole."""
    return any(environment.glob("lib/python*/site-packages/pip/__main__.py")) and python_of(environment).exists()


def python_of(environment: Path) -> Path:
    """The environment's interpreter."""
    return environment / "bin" / "python"


def make_environment(environment: Path) -> None:
    """Make it anew. Raises Refused."""
    made = subprocess.run(
        [sys.executable, "-m", "venv", "--clear", str(environment)], check=False, capture_output=True, text=True
    )
    if made.returncode:
        said = (made.stdout + made.stderr).strip().splitlines()
        hint = "; on Debian, `apt install python3-venv`" if "ensurepip" in made.stdout + made.stderr else ""
        raise Refused(f"Python can't make {environment} ({said[-1] if said else 'it does not say why'}){hint}")


def install(environment: Path, requirements: Path, count: int, step: Step) -> None:
    """Install the packages and say how many are there. Raises Refused."""
    command = [str(python_of(environment)), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", "--require-hashes", "-r", str(requirements)]
    unbuffered = os.environ | {"PYTHONUNBUFFERED": "1"}
    said: list[str] = []
    fetched = 0
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=unbuffered
    ) as process:
        assert process.stdout  # noqa: S101 - a pipe, as asked
        for line in process.stdout:
            said = [*said[-SAID_ON_FAILURE:], line]
            fetched += line.startswith(("Collecting ", "Requirement already satisfied"))
            if line.startswith("Collecting "):
                step.note(f"{fetched} of {count}, {line.split()[1].partition('==')[0]}")
            if line.startswith("Installing collected"):
                step.note(f"all {fetched} are here, unpacking")
    if process.returncode:
        sys.stderr.write("\n" + "".join(said))
        raise Refused(f"pip could not install {requirements}; what it said last is above")


if __name__ == "__main__":
    sys.exit(main())
