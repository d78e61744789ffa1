"""Benchmarks of the gateway: `make bench`, or `python -m bench.gateway --help`."""
