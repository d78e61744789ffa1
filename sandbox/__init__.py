"""Programs for trying and testing the gateway: a stand-in for OpenRouter; `make run`, from its first step on."""
