import io
import json
import math
import pickle

import pytest

from npcrepro.base import progress
from npcrepro.base.errors import InputError
from npcrepro.base.progress import Log, Passing, calm, in_one_line, seconds_left, shown


def test_passing_lines_come_once_a_minute_and_the_others_always(monkeypatch):
    line = pickle.loads(pickle.dumps(Passing("here", 0.25, 0.5, 3.0)))  # it goes from process to process
    assert (line, line.share, line.of_all, line.left_s) == ("here", 0.25, 0.5, 3.0)
    now, lines = 1000.0, []
    monkeypatch.setattr(progress, "monotonic", lambda: now)
    report = calm(lines.append)
    for second in range(181):
        now = 1000.0 + second
        report(Passing(f"update {second}", 0.5, 0.1, left_s=600.0))
        if second == 90:
            report("failed")
    assert lines == [
        "update 0, about 10 min left", "update 60, about 10 min left", "failed", "update 150, about 10 min left"
    ]  # fmt: skip


def test_a_terminal_has_bars_and_anything_else_has_lines(monkeypatch, capsys):
    def show(report):
        report(Passing("[1/2] GTV [old], update 3/4", 0.75, 0.25, left_s=300.0))
        report("[1/2] failed [why]")

    with shown(print) as report:
        show(report)
    assert capsys.readouterr().out == "[1/2] GTV [old], update 3/4, about 5 min left\n[1/2] failed [why]\n"
    screen = io.StringIO()
    screen.isatty = lambda: True
    monkeypatch.setattr("sys.stdout", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    with shown(print) as report:
        show(report)
    for part in ("[1/2] GTV [old], update 3/4", " 75%", " 25%", "all runs, about 5 min left", "[1/2] failed [why]"):
        assert part in screen.getvalue()


def test_the_time_left_follows_the_kind_of_run_and_else_the_updates():
    work = {"a0": ("a", 100), "a1": ("a", 100), "b0": ("b", 300), "b1": ("b", 300), "c0": ("c", 0)}
    assert math.isnan(seconds_left(work, {}))
    # Another of its kind takes as long, the others three times as long, as they have three times as many updates.
    assert seconds_left(work, {"a0": 20.0}) == pytest.approx(20 + 60 + 60)
    assert seconds_left(work, {"a0": 20.0, "b0": 30.0}) == pytest.approx(20 + 30)
    assert seconds_left(work, dict.fromkeys(work, 1.0)) == 0


def test_a_log_is_lines_of_json_of_which_a_broken_one_spoils_no_other(tmp_path):
    log = Log(tmp_path / "log.jsonl")
    log("started", resumed=False)
    log.path.write_bytes(log.path.read_bytes() + b'{"time": "2018-')
    log("check", loss=math.nan, update=3)
    whole, half, again = log.path.read_text().splitlines()
    assert set(json.loads(whole)) == {"time", "event", "resumed"}
    assert half == '{"time": "2018-'
    assert json.loads(again) | {"time": ""} == {"time": "", "event": "check", "loss": None, "update": 3}
    # One that cannot be written stops nothing.
    Log(tmp_path / "nowhere" / "log.jsonl")("started")
    Log(tmp_path)("started")
    assert [path.name for path in tmp_path.iterdir()] == ["log.jsonl"]


@pytest.mark.parametrize(
    ("problem", "line"),
    [
        (InputError("cannot write a.txt: the disk is full"), "cannot write a.txt: the disk is full"),
        (RuntimeError("out of\n  memory"), "RuntimeError: out of memory"),
        (KeyError(), "KeyError"),
        (OSError("\n-- Process 1\nTraceback (most recent call last):\n  x\nValueError: no\n"), "ValueError: no"),
        (OSError("Traceback (most recent call last):\n  x\nnpcrepro.base.errors.InputError: no case"), "no case"),
        (InputError("x" * 10_000), "x" * 500 + "..."),
    ],
)
def test_an_error_in_one_line(problem, line):
    assert in_one_line(problem) == line
