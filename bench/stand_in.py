"""The stand-in for OpenRouter under uvloop, where it costs half: the gateway has to be the bottleneck."""

import uvloop

from sandbox.openrouter import options_from, run

if __name__ == "__main__":
    uvloop.run(run(options_from()))
