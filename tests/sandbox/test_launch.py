"""`make run` on a machine where nothing is configured: a newcomer's three lines work, and Ctrl-C leaves nothing behind."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import requests

from tests.support.gateway import environment, free_port, new_derived_key, wait_for

ROOT = Path(__file__).parents[2]


@pytest.fixture
def launched(tmp_path):
    """Start the launcher with so many settings; its output is a file."""
    started = []

    def launch(**settings):
        env = environment(DATA_DIR=tmp_path / "data", POOL_SIZE=2, **{"PORT": free_port(), **settings})
        output = tmp_path / f"output-{len(started)}"
        with output.open("wb") as file:
            # Who runs the tests in the background makes them deaf to Ctrl-C, and whom they start.
            process = subprocess.Popen(
                ["env", "--default-signal=INT", sys.executable, "-m", "sandbox.launch"],
                cwd=ROOT,
                env=env,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )
        started.append(process)
        return process, output

    yield launch
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def lines_to_try(process, output):
    def found():
        assert process.poll() is None, output.read_text()
        lines = [line for line in output.read_text().splitlines() if re.match(r"curl|TOKEN=", line)]
        return lines if len(lines) == 3 else None

    return wait_for(found)


def test_a_newcomer_talks_to_a_model_and_ctrl_c_ends_it_all(launched, tmp_path):
    process, output = launched()
    script = "\n".join(lines_to_try(process, output))
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, timeout=60, check=True).stdout
    assert '{"message":"User registered successfully"}' in said
    assert ": [DONE]" in said or "data: [DONE]" in said
    assert "\nNo OpenRouter key is set" in output.read_text()
    steps = re.findall(r"^(\d/4) .* done after \d+\.?\d* s$", output.read_text(), re.MULTILINE)
    assert steps == ["3/4", "4/4"]
    assert (tmp_path / "data/stand-in/openrouter_proxy.db").exists()
    assert not (tmp_path / "data/openrouter_proxy.db").exists()

    [log_in] = re.findall(r"(http://\S+)/login offers GitHub, Linux.do and OpenID Connect", output.read_text())
    buttons = re.findall(r'href="(/api/auth/sso/[^"]+)"', requests.get(f"{log_in}/login", timeout=30).text)
    assert len(buttons) == 3
    for button in buttons:
        page = requests.get(log_in + button, timeout=30)
        assert (page.status_code, "Log in as ann" in page.text) == (200, True)

    [invitation] = re.findall(r"/register#invitation=(inv_[\w-]+)", output.read_text())
    account = {"username": "operator@example.com", "derived_key": new_derived_key()}
    made = requests.post(f"{log_in}/register", json=account | {"invitation": invitation}, timeout=30)
    assert made.status_code == 201, made.text
    bearer = requests.post(f"{log_in}/login", json=account, timeout=30).json()["token"]
    seen = requests.get(f"{log_in}/admin/users", headers={"Authorization": f"Bearer {bearer}"}, timeout=30)
    assert seen.status_code == 200

    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 4
    environments = {tuple(child.cmdline()[1:2]): child.environ() for child in children}
    for child in children:
        if "key_rotation.py" not in " ".join(child.cmdline()) and "sandbox.openrouter" not in child.cmdline():
            assert not child.environ().get("OPENROUTER_PROVISION_KEY"), environments.keys()
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(60) == 0
    assert are_over(children)


def are_over(children):
    return [child for child in children if child.is_running() and child.status() != psutil.STATUS_ZOMBIE] == []


def test_a_second_start_finds_the_keys_of_the_first(launched, tmp_path):
    """What ends a start is impatient: told again while it ends what it has started, it still leaves nothing behind."""
    for _ in range(2):
        process, output = launched()
        lines_to_try(process, output)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        wait_for(lambda some=children: any(are_over([child]) for child in some))
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert are_over(children)
    assert "key_minted" not in output.read_text()


def test_a_bad_configuration_is_refused_before_anything_starts(launched, tmp_path):
    process, output = launched(LOG_LEVEL="LOUD", SERVER="apache")
    assert process.wait(60) == 1
    assert "LOG_LEVEL" in output.read_text()
    assert "SERVER" in output.read_text()
    assert not (tmp_path / "data").exists()


def test_a_taken_port_is_refused_before_anything_starts(launched, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process, output = launched(PORT=taken.getsockname()[1])
        assert process.wait(60) == 1
    assert "Address already in use" in output.read_text()
    assert not (tmp_path / "data").exists()
