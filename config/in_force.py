"""Which value each setting has in this process, and where it comes from; of secrets only whether they are set."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from config.settings import SECRET_NAMES, Config
from config.sources import GENERATED, Source, given

SECRET = "set, secret"


@dataclass(frozen=True)
class InForce:
    """One setting. value, default: as one would write them; empty for none. source: where the value comes from."""

    name: str
    value: str
    source: str
    default: str
    description: str


def in_force(config: Config) -> list[InForce]:
    """All settings: those that somebody has set come first, each in the order of docs/settings.md."""
    sources = given()
    rows = []
    for field, info in Config.model_fields.items():
        name, value = field.upper(), getattr(config, field)
        source = sources.get(name, Source.DEFAULT)
        if source is Source.DEFAULT and name in GENERATED and not config.production:
            source = Source.GENERATED
        default = _text(name, info.default)
        rows.append(InForce(name, _text(name, value), source, default, info.description or ""))
    return sorted(rows, key=lambda row: row.source in {Source.DEFAULT, Source.GENERATED})


def _text(name: str, value: object) -> str:
    if name in SECRET_NAMES:
        return SECRET if value else ""
    if value is None:
        return "none" if name.endswith("_USD") else ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Collection) and not isinstance(value, str):
        return ", ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.15g}"
    return str(value.as_posix() if isinstance(value, Path) else value)
