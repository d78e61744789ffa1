"""What sign-on knows of providers, without the libraries that talk to them."""

from __future__ import annotations

import subprocess
import sys

import pytest

from accounts.sign_on.provider import ProviderFailed
from tests.conftest import ENCRYPTION_KEY, SECRET_KEY
from tests.support.gateway import ROOT

PROGRAM = """
import sys
from config.settings import Config
from services import build
settings = dict(line.split("=", 1) for line in sys.argv[1:])
build(Config(**settings))
print(*sorted({"authlib", "joserfc", "requests"} & set(sys.modules)))
"""


@pytest.mark.parametrize(("address", "loaded"), [("", []), ("https://x.example", ["authlib", "joserfc", "requests"])])
def test_a_gateway_without_providers_does_not_load_their_libraries(tmp_path, address, loaded):
    settings = {"encryption_key": ENCRYPTION_KEY, "secret_key": SECRET_KEY, "data_dir": tmp_path, "public_url": address}
    arguments = [f"{name}={value}" for name, value in settings.items()]
    command = [sys.executable, "-c", PROGRAM, *arguments]
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.split() == loaded


def test_a_failure_names_the_provider_and_is_no_fault_of_the_user():
    failed = ProviderFailed("GitHub")
    assert (failed.status, failed.type) == (502, "upstream_failed")
    assert failed.message == "GitHub did not confirm who you are; try again"
