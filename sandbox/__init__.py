"""Programs for trying and testing the gateway: a stand-in for OpenRouter, and the launcher of `make run`."""
