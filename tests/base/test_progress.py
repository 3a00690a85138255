import json
import math

import pytest

from npcrepro.base import progress
from npcrepro.base.errors import InputError
from npcrepro.base.progress import Log, Passing, Timetable, calm, in_one_line, shown


@pytest.fixture
def clock(monkeypatch):
    """A clock that is set by hand: ``clock[0]`` seconds."""
    now = [1000.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def test_passing_lines_come_once_a_minute_and_the_others_always(clock):
    lines = []
    report = calm(lines.append)
    for second in range(0, 181):
        clock[0] = 1000.0 + second
        report(Passing(f"update {second}", 0.5, 0.1, left_s=600.0))
        if second == 90:
            report("failed")
    assert lines == [
        "update 0, about 10 min left", "update 60, about 10 min left", "failed", "update 150, about 10 min left"
    ]  # fmt: skip


def test_lines_where_there_is_no_terminal(capsys):
    with shown(print) as report:
        report(Passing("first", 0.5))
        report(Passing("second", 0.6))
        report("failed")
    assert capsys.readouterr().out == "first\nfailed\n"


def test_the_time_left_follows_the_kind_of_run_and_else_the_updates():
    work = {"a0": ("a", 100), "a1": ("a", 100), "b0": ("b", 300), "b1": ("b", 300)}
    table = Timetable(work)
    assert math.isnan(table.left_s())
    # 10 s for half of the first: 20 s for each of its kind, 60 s for the others.
    assert table.left_s("a0", since_s=10.0, share=0.5) == pytest.approx(10 + 20 + 60 + 60)
    table.seconds |= {"a0": 20.0, "b0": 30.0}
    assert table.left_s() == pytest.approx(20 + 30)
    table.dropped.add("b1")
    assert table.left_s() == pytest.approx(20)
    table.seconds["a1"] = 20.0
    assert table.left_s() == 0


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
