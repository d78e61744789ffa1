"""The five measures. Each returns its figures by name; `wrong` counts wrong answers, which alone fail a benchmark."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass

from bench.load import Client, Results, all_at_once, closed_loop, fixed_rate, post, question, run
from bench.meter import Meter
from bench.set_up import Bench, Target
from bench.streams import Shape, judge_of, open_streams

Figures = dict[str, float | str]
CONNECTIONS = 32
WARM_UP_SECONDS = 1.0
LOGIN_CLIENTS = 8
LOGIN_BURST = 100
STARTS = 3
EXAMPLES = 3


@dataclass(frozen=True)
class Scale:
    """How long and how much."""

    seconds: float = 4.0
    streams: int = 1000
    rate: float = 500.0


def plain(target: Target, bench: Bench, scale: Scale) -> Figures:
    """Non-streaming chat completions over 32 keep-alive connections, each as fast as answers come."""
    requests = [question(target.way, number) for number in range(CONNECTIONS)]
    run(closed_loop(target.port, requests, WARM_UP_SECONDS))
    with Meter(target, bench) as meter:
        results = run(closed_loop(target.port, requests, scale.seconds))
    count = len(results.seconds) or 1
    return {
        "requests_per_second": count / meter.wall,
        "cpu_us_per_request": 1e6 * meter.target / count,
        "core_busy_percent": 100 * meter.target / meter.wall,
        "stand_in_us_per_request": 1e6 * meter.stand_in / count,
        "load_us_per_request": 1e6 * meter.load / count,
        "answer_bytes": results.answer_bytes,
        **percentiles("latency", results.seconds),
        **verdict(results.wrong, meter),
    }


def streams(target: Target, bench: Bench, scale: Scale) -> Figures:
    """A thousand streams at a time, 50 chunks each, ten a second."""
    shape = Shape(scale.streams)
    message = shape.request(target.way)
    judge = judge_of(shape, target.way)
    before, during = target.program.memory_mb(), dict[str, float]()
    with Meter(target, bench) as meter:
        opening = open_streams(target.port, message, shape, judge, lambda: during.update(target.program.memory_mb()))
        results = run(opening)
    chunks = (len(results.durations) or 1) * shape.chunks
    return {
        "streams_whole": len(results.durations),
        "cpu_us_per_chunk": 1e6 * meter.target / chunks,
        **during,
        "kb_per_stream": 1000 * (during["rss_mb"] - before["rss_mb"]) / shape.streams,
        **percentiles("first_token", results.first_token),
        "gap_p99_ms": percentile(results.gaps, 99),
        "slowest_over_nominal": max(results.durations, default=0.0) / shape.nominal_seconds,
        **verdict(results.wrong, meter),
    }


def latency(target: Target, bench: Bench, scale: Scale) -> Figures:
    """Non-streaming calls at a fixed, moderate rate: what one caller waits when the gateway is not busy."""
    request = question(target.way, 0)
    run(fixed_rate(target.port, request, scale.rate, WARM_UP_SECONDS))
    with Meter(target, bench) as meter:
        results = run(fixed_rate(target.port, request, scale.rate, scale.seconds))
    count = len(results.seconds) or 1
    return {
        "rate": scale.rate,
        "cpu_us_per_request": 1e6 * meter.target / count,
        **percentiles("latency", results.seconds),
        **verdict(results.wrong, meter),
    }


def startup(bench: Bench, server: str) -> Figures:
    """From `python app.py` to the first 200 of /api/health, on a database that exists; the median of some starts."""
    seconds = []
    for _ in range(STARTS):
        program, _port, took = bench.start_gateway(server)
        program.stop()
        seconds.append(took)
    return {"seconds": statistics.median(seconds), "slowest_seconds": max(seconds), "wrong": 0}


def login(target: Target, bench: Bench, scale: Scale) -> Figures:
    """Eight clients logging in over and over, then a hundred at the same instant: how fast the excess is refused."""
    message = post("/login", target.account)
    attempts = [(message, is_login)] * LOGIN_CLIENTS
    with Meter(target, bench) as meter:
        results = run(closed_loop(target.port, attempts, scale.seconds))
    burst = run(all_at_once(target.port, message, LOGIN_BURST))
    served, refused, others = sort_burst(burst)
    count = len(results.seconds) or 1
    return {
        "logins_per_second": count / meter.wall,
        "cpu_ms_per_login": 1e3 * meter.target / count,
        **percentiles("login", results.seconds),
        "burst_served": len(served.seconds),
        "burst_refused": len(refused.seconds),
        **percentiles("refusal", refused.seconds),
        **verdict(results.wrong + others.wrong, meter),
    }


def sort_burst(clients: list[Client]) -> tuple[Results, Results, Results]:
    """The answers of a burst of log-ins: tokens, refusals to try again, and what is neither."""
    served, refused, others = Results(), Results(), Results()
    for client in clients:
        if is_login(client.status, client.body):
            served.add(client, True)
        elif client.status in {429, 503} and b'"error"' in client.body:
            refused.add(client, True)
        else:
            others.add(client, False)
    return served, refused, others


def is_login(status: int, body: bytes) -> bool:
    """True for an answer that holds a token."""
    return status == 200 and b'"token":"eyJ' in body


def verdict(wrong: list[str], meter: Meter) -> Figures:
    """How many answers were wrong, what the first of them looked like, and how much strangers disturbed."""
    figures: Figures = {"wrong": len(wrong), "others_percent": meter.others_percent}
    return figures | ({"examples": " | ".join(wrong[:EXAMPLES])} if wrong else {})


def percentiles(name: str, seconds: list[float]) -> Figures:
    """The middle and the slow end, in milliseconds."""
    return {f"{name}_p50_ms": percentile(seconds, 50), f"{name}_p99_ms": percentile(seconds, 99)}


def percentile(seconds: list[float], percent: int) -> float:
    """A percentile in milliseconds; 0 of nothing."""
    ordered = sorted(seconds)
    return 1000 * ordered[min(len(ordered) - 1, len(ordered) * percent // 100)] if ordered else 0.0


Measure = Callable[[Target, Bench, Scale], Figures]
WITH_DIRECT: dict[str, Measure] = {"plain": plain, "streams": streams, "latency": latency}
NAMES = [*WITH_DIRECT, "startup", "login"]
