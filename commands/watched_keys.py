"""Operator commands for the OpenRouter keys that people watch here: `flask --app app personal-keys status`."""

from __future__ import annotations

from commands.printing import Commands, services, show

watched_key_commands = Commands("personal-keys", help="OpenRouter keys of people's own, which are watched here.")


@watched_key_commands.command("status")
def status() -> None:
    """Show how many keys there are in each state, how many wait to be synchronised, and how many failed last time."""
    show(services().watched_key_sync.keys.status(), "Watched keys")
