import json

import pytest

from npcrepro.base import progress
from npcrepro.base.errors import InputError
from npcrepro.base.progress import Log, Passing, calm, in_one_line


def test_passing_lines_come_once_a_minute_and_the_others_always(monkeypatch):
    clock, lines = [1000.0], []
    monkeypatch.setattr(progress, "monotonic", lambda: clock[0])
    report = calm(lines.append)
    for second in range(0, 181):
        clock[0] = 1000.0 + second
        report(Passing(f"update {second}", 0.5, 0.1, left_s=600.0))
        if second == 90:
            report("failed")
    assert lines == [
        "update 0, about 10 min left", "update 60, about 10 min left", "failed", "update 150, about 10 min left"
    ]  # fmt: skip


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log("started")
    log.path.write_bytes(log.path.read_bytes() + b'{"time": "2018-')
    log("started")
    whole, half, again = log.path.read_text().splitlines()
    assert [json.loads(line)["event"] for line in (whole, again)] == ["started"] * 2
    assert half == '{"time": "2018-'


def test_a_log_that_cannot_be_written_stops_nothing(tmp_path):
    Log(tmp_path / "nowhere" / "log.jsonl")("started")
    Log(tmp_path)("started")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (InputError("cannot write a.txt: the disk is full"), "cannot write a.txt: the disk is full"),
        (RuntimeError("out of\n  memory"), "RuntimeError: out of memory"),
        (OSError("\n-- Process 1\nTraceback (most recent call last):\n  x\nValueError: no\n"), "ValueError: no"),
    ],
)
def test_an_error_in_one_line(problem, line):
    assert in_one_line(problem) == line
