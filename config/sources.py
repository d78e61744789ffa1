"""Where settings come from: the environment, else the file `.env`; `problems()` lists all faults at once.

A secret may also come from a file that `<NAME>_FILE` names. An empty value counts as not set. Development generates
missing secrets and keeps them in DATA_DIR with mode 0600; production refuses to start without them.
"""

from __future__ import annotations

import base64
import os
import secrets
import uuid
from collections.abc import Collection, Mapping
from enum import StrEnum
from pathlib import Path

from pydantic import SecretStr, ValidationError

from config import env_file
from config.settings import ROOT, SECRET_NAMES, Config

GENERATED = {
    "SECRET_KEY": lambda: secrets.token_urlsafe(48),
    "ENCRYPTION_KEY": lambda: base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
    "DEPLOYMENT_ID": lambda: str(uuid.uuid4()),
}


class Source(StrEnum):
    """Where a value comes from."""

    ENVIRONMENT = "environment"
    ENV_FILE = ".env"
    SECRET_FILE = "secret file"
    GENERATED = "generated, in DATA_DIR"
    DEFAULT = "default"


class ConfigError(Exception):
    """The configuration can't be used; `problems` holds one line a fault."""

    def __init__(self, problems: list[str]) -> None:
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__("\n  ".join([f"Cannot start: {count} in the configuration.", *problems]))
        self.problems = problems


def _read(environ: Mapping[str, str] | None) -> tuple[dict[str, str], list[str]]:
    """The raw values of all known settings by field name, and what could not be read."""
    values: dict[str, str] = {}
    problems: list[str] = []
    if environ is None:
        environ = _environment(problems)
    for name in Config.model_fields:
        variable = name.upper()
        value, path = environ.get(variable, ""), environ.get(f"{variable}_FILE", "")
        if path and variable in SECRET_NAMES:
            if value:
                problems.append(f"{variable}_FILE: {variable} is set too; give one of them")
            try:
                value = Path(path).read_text(encoding="utf-8").strip()
            except (OSError, UnicodeDecodeError) as error:
                problems.append(f"{variable}_FILE: cannot read {path} ({type(error).__name__})")
                continue
            if not value:
                problems.append(f"{variable}_FILE: {path} is empty")
        if value.strip():
            values[name] = value
    for name in ("key_limit_usd", "quota_usd", "quota_soft_usd"):
        if values.get(name, "").strip().lower() == "none":
            values[name] = None  # type: ignore[assignment]
    return values, problems


def _environment(problems: list[str]) -> Mapping[str, str]:
    """The environment, and what stands in `.env`, or in the file that ENV_FILE names; that one has to be there."""
    named = os.environ.get("ENV_FILE")
    path = Path(named or _home() / ".env")
    if not named and not path.exists():
        return os.environ
    try:
        found, faults = env_file.read(path, os.environ)
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"ENV_FILE: cannot read {path} ({type(error).__name__})")
        return os.environ
    problems += [f"ENV_FILE: {fault}" for fault in faults]
    return found


def _home() -> Path:
    """Where `.env` is, and a relative DATA_DIR: the project's folder, or GATEWAY_HOME for who installed a package."""
    return Path(os.environ.get("GATEWAY_HOME") or ROOT)


def _check(environ: Mapping[str, str] | None, required: Collection[str]) -> tuple[Config | None, list[str]]:
    values, problems = _read(environ)
    unread = {line.split("_FILE:")[0] for line in problems}
    generates = values.get("app_env", "development") == "development"
    for name in required:
        if not values.get(name.lower()) and name not in unread and not (generates and name in GENERATED):
            problems.append(f"{name}: is missing")
    config = None
    try:
        config = Config.model_validate(values | {"app_env": values.get("app_env", "development")})
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(fault["loc"][0]).upper()
            if name not in unread:
                problems.append(f"{name}: {fault['msg'].removeprefix('Value error, ')}")
    return config, problems


def given() -> dict[str, Source]:
    """Which variables the environment, `.env` or a secret's file give a value, as things are now."""
    found = {}
    environ = _environment([])
    for name in (field.upper() for field in Config.model_fields):
        variable = f"{name}_FILE" if name in SECRET_NAMES and environ.get(f"{name}_FILE") else name
        if environ.get(variable, "").strip():
            inherited = os.environ.get(variable, "").strip()
            source = Source.SECRET_FILE if variable != name else Source.ENVIRONMENT if inherited else Source.ENV_FILE
            found[name] = source
    return found


def problems(environ: Mapping[str, str] | None = None, required: Collection[str] = ()) -> list[str]:
    """Every fault of the configuration, one line each; reads, never writes.

    environ: instead of the process environment and `.env`. required: variables that the calling program needs.
    """
    return _check(environ, required)[1]


def look(environ: Mapping[str, str] | None = None, required: Collection[str] = ()) -> Config:
    """The checked settings as they are given: nothing is generated or written. Raises ConfigError with every fault."""
    config, faults = _check(environ, required)
    if faults or config is None:
        raise ConfigError(faults)
    return config.model_copy(update={"data_dir": _home() / config.data_dir})


def load(environ: Mapping[str, str] | None = None, required: Collection[str] = ()) -> Config:
    """The checked settings. In development, missing secrets are generated and kept in DATA_DIR.

    Raises ConfigError with every fault, before anything is written.
    """
    config = look(environ, required)
    if config.production:
        return config
    missing = [name for name in sorted(GENERATED) if not _plain(getattr(config, name.lower()))]
    try:
        kept = {name: _keep(config.data_dir, name) for name in missing}
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            [f"DATA_DIR: cannot keep generated secrets in {config.data_dir} ({type(error).__name__})"]
        ) from None
    return _with_kept(config, kept)


def _with_kept(config: Config, kept: Mapping[str, str]) -> Config:
    """The settings with the values that DATA_DIR kept; a damaged file there is a fault like any other."""
    faults = [f"{name}: {config.data_dir / name.lower()} is empty" for name, text in kept.items() if not text]
    values = {name: getattr(config, name) for name in Config.model_fields}
    try:
        config = Config.model_validate(values | {name.lower(): text for name, text in kept.items()})
    except ValidationError as error:
        for fault in error.errors(include_url=False, include_input=False, include_context=False):
            name = str(fault["loc"][0])
            faults.append(f"{name.upper()}: {config.data_dir / name} {fault['msg'].removeprefix('Value error, ')}")
    if faults:
        raise ConfigError(faults)
    return config


def _plain(value: SecretStr | str) -> str:
    return value.get_secret_value() if isinstance(value, SecretStr) else value


def _keep(folder: Path, name: str) -> str:
    """The generated value of `name`, made once however many processes start together: link() has one winner."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = folder / name.lower()
    if not path.exists():
        draft = folder / f".{name.lower()}.{os.getpid()}"
        draft.unlink(missing_ok=True)
        draft.touch(mode=0o600)
        draft.write_text(GENERATED[name](), encoding="ascii")
        try:
            path.hardlink_to(draft)
        except FileExistsError:
            pass
        draft.unlink()
    return path.read_text(encoding="ascii").strip()
