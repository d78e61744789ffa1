"""Processes of one host as one: counts go on over restarts, and without the disk each tells of itself."""

from __future__ import annotations

import shutil

from prometheus_client.parser import text_string_to_metric_families


def told(services, name):
    """The sum of this metric's samples."""
    text, content_type = services.metrics.scrape("")
    assert content_type.startswith("text/plain")
    families = text_string_to_metric_families(text.decode())
    return sum(one.value for family in families for one in family.samples if one.name == f"openrouter_proxy_{name}")


def count(services, errors):
    for _ in range(errors):
        services.counts.add("errors", "timeout")
    services.metrics.write()


def test_whichever_is_asked_tells_of_all(new):
    one, two = new(), new()
    for services in (one, two):
        services.start()
    count(one, 3)
    count(two, 4)
    assert told(one, "errors_total") == told(two, "errors_total") == 7
    assert told(one, "processes") == told(two, "processes") == 2


def test_sums_never_fall_when_processes_end_and_others_begin(new):
    one, two = new(), new()
    one.start()
    two.start()
    two.counts.add("errors", "timeout")
    two.stop()  # writes down what was counted since
    assert told(one, "errors_total") == 1
    third = new()
    third.start()
    third.counts.add("errors", "timeout")
    assert told(third, "errors_total") == 2


def test_a_process_tells_its_own_numbers_as_they_are_at_this_moment(new):
    services = new()
    services.start()
    for expected in (1, 2, 3):
        services.counts.add("errors", "timeout")
        assert told(services, "errors_total") == expected


def test_a_disk_that_is_gone_keeps_nobody_from_serving_or_telling(new, tmp_path, caplog):
    (tmp_path / "metrics").write_text("in the way")
    services = new()
    services.start()
    count(services, 2)
    assert told(services, "errors_total") == 2
    assert "metrics_unwritable" in [record.message for record in caplog.records]
    shutil.move(tmp_path / "journal", tmp_path / "gone")
    assert told(services, "errors_total") == 2
    shutil.move(tmp_path / "gone", tmp_path / "journal")


def test_without_a_token_nothing_is_written_and_no_thread_runs(new, tmp_path):
    services = new(metrics_token=None)
    services.start()
    assert "metrics" not in services.background()
    services.stop()
    assert not (tmp_path / "metrics").exists()
