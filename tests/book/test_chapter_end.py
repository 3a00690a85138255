"""What every chapter ends with, and the scorecard."""

import re
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from npcrepro.base.errors import InputError
from npcrepro.book import chapter_end
from npcrepro.findings.claims import ledger
from npcrepro.protocol import registry


def text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", html))


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        (["confirmed", "undecided"], "holds so far"),
        (["confirmed", "refuted"], "mixed"),
        (["weakened", "refuted"], "mixed"),
        (["weakened", "undecided"], "weaker than printed"),
        (["refuted", "undecided"], "does not hold so far"),
        (["refuted", "undecided", "undecided"], "open"),
        ([*["confirmed"] * 3, *["undecided"] * 4], "open"),
        (["undecided", "no evidence yet", "not testable here"], "open"),
        ([], "open"),
    ],
)
def test_standing_follows_from_the_verdicts(verdicts, word):
    assert chapter_end.overall_verdict(verdicts) == word
    assert word in chapter_end.OVERALL_VERDICTS


def test_badge_is_told_apart_without_colour():
    words = [*chapter_end.OVERALL_VERDICTS, *chapter_end.MET.values()]
    assert all(word in text(chapter_end.badge(word)) for word in words)
    assert len({chapter_end.badge(word)[-30:] for word in chapter_end.OVERALL_VERDICTS}) == len(
        chapter_end.OVERALL_VERDICTS
    )
    assert 'title="a &quot;b&quot;"' in chapter_end.badge("open", 'a "b"')


@pytest.mark.parametrize("key", registry.KEYS)
def test_paper_has_what_frame_and_scorecard_ask(key):
    reported = registry.reported(key)
    assert list(reported["scorecard"]) == list(chapter_end.CRITERIA)
    assert all(given["met"] in chapter_end.MET and given["says"] for given in reported["scorecard"].values())
    assert set(reported["experience"]) == {"easy", "difficult"}
    assert reported["compute"]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"experience": {"easy": "x"}}, r"papers/xue2020\.yaml has no experience: difficult, which a page"),
        ({"compute": ...}, r"xue2020\.yaml has no compute, which"),
        ({"gaps": ...}, r"xue2020\.yaml has no gaps, which"),
        ({"scorecard": {}}, r"xue2020\.yaml has no scorecard: data: met, which"),
        ({"scorecard": {"data": "none"}}, r"xue2020\.yaml has no scorecard: data: met, which"),
        ({"scorecard": {"data": {"met": "ful", "says": "x"}}}, r"scorecard: data in xue2020\.yaml 'ful'; did you mean"),
    ],
)
def test_an_entry_that_a_paper_lacks_is_named(change, problem, decided, monkeypatch):
    reported = {name: entry for name, entry in (registry.reported("xue2020") | change).items() if entry is not ...}
    monkeypatch.setattr(registry, "reported", lambda key: reported)
    monkeypatch.setattr(chapter_end, "_published", lambda key: [])
    with pytest.raises(InputError, match=problem):
        chapter_end.chapter_end("xue2020"), chapter_end._scores("xue2020")


@pytest.fixture
def decided(monkeypatch):
    """The ledger without resampling: what it would say stands here."""
    claims = ledger.claims("xue2020")
    verdicts = ["refuted", "weakened", *["no evidence yet"] * (len(claims) - 2)]
    lines = [ledger.Line(claim, verdict, "") for claim, verdict in zip(claims, verdicts, strict=True)]
    monkeypatch.setattr(ledger, "ledger", lambda keys: lines)
    return lines


def run(seed: int, hours: float) -> dict:
    about = {"paper": "xue2020", "cohort": "Some<CT>", "seed": seed, "device": "cpu", "processor": "P", "threads": 2}
    return about | {"seconds": {"all": 3600 * hours}}


def published(*scores: tuple[int, float]):
    """Runs of one method with a patient each, by seed and DSC."""
    rows = [
        {
            "paper": "xue2020", "method": "deeplabv3plus", "cohort": "c", "profile": "bench", "seed": seed,
            "case": name, "patient": name, "structure": "GTVp", "region": "all_slices", "suspect": False, "dsc": dsc,
        }
        for seed, dsc in scores
        for name in "ab"
    ]  # fmt: skip
    return SimpleNamespace(runs=[run(seed, 1.5) for seed, _ in scores], cases=pd.DataFrame(rows))


def test_frame_has_every_row_and_counts_the_verdicts(decided, monkeypatch):
    monkeypatch.setattr(chapter_end, "_published", lambda key: [])
    told = text(chapter_end.chapter_end("xue2020"))
    for row in ("Verdict", "Scope", "What was easy", "What was difficult", "Departures", "Arithmetic", "Compute"):
        assert f" {row} " in told
    assert f"? open {len(decided)} claims: 1 weakened, 1 refuted, {len(decided) - 2} no evidence yet" in told
    assert "Tesla P40" in told
    assert "No run is published" in told
    assert f" {len(decided)} claims that this chapter is about " in told
    assert all(line.claim.text in told for line in decided)


def test_one_seed_is_said_to_be_one_seed(monkeypatch):
    monkeypatch.setattr(chapter_end, "by_patient", lambda cases: cases)
    assert "All published runs have one seed" in chapter_end._chance("xue2020", [published((0, 0.7))])


def test_a_paper_without_published_runs_has_no_seed_either():
    told = chapter_end._chance("xue2020", [])
    assert told.startswith("No run is published, so that nobody knows")
    assert "npcrepro run xue2020 " in told


def test_one_claim_is_not_called_claims(decided):
    assert "<summary>1 claim that this chapter is about</summary>" in chapter_end._scope(decided[:1])


def test_spread_over_seeds_is_the_one_of_the_means(monkeypatch):
    monkeypatch.setattr(chapter_end, "by_patient", lambda cases: cases)
    told = chapter_end._chance("xue2020", [published((0, 0.70), (1, 0.72), (2, 0.74))])
    assert "for the 1 method with 3 seeds" in told
    assert "standard deviation of 0.020." in told
    assert "Some&lt;CT&gt;" in told


def test_one_patient_shows_no_spread_of_means(monkeypatch):
    monkeypatch.setattr(chapter_end, "by_patient", lambda cases: cases)
    found = published((0, 0.70), (1, 0.72))
    found.cases = found.cases[found.cases.patient == "a"]
    assert chapter_end._spread(found) == ""


def test_methods_with_one_seed_are_not_counted_to_the_spread(monkeypatch):
    monkeypatch.setattr(chapter_end, "by_patient", lambda cases: cases)
    found = published((0, 0.70), (1, 0.72), (2, 0.74))
    other = found.cases.assign(method="unet", dsc=np.repeat([0.5, 0.6, 0.7], 2))
    found.cases = pd.concat([found.cases, other, other[:1].assign(method="unet-32")])
    told = chapter_end._chance("xue2020", [found])
    assert "for the 2 methods with 3 seeds" in told
    assert told.endswith("of 0.020 to 0.100; the other 1 method has one seed.")


def test_compute_adds_up_the_hours_and_escapes_names():
    told = chapter_end._compute([published((0, 0.7), (1, 0.7))], None)
    assert told == "2 published runs on Some&lt;CT&gt;: 3.0 h (cpu, P, 2 threads)."
    assert chapter_end._compute([published((0, 0.7))], None).startswith("1 published run on ")
    two = published((0, 0.7), (1, 0.7))
    two.runs[1] |= {"processor": "Q"}
    assert chapter_end._compute([two], None).endswith("(cpu, P and Q, 2 threads).")


def test_compute_of_the_page():
    chapter = SimpleNamespace(every_run=[None, None], seconds=40.8, made="profile smoke")
    assert chapter_end._compute([], chapter) == "2 runs of this page: 41 s (profile smoke)."


def test_scorecard_has_a_row_for_each_paper(monkeypatch):
    monkeypatch.setattr(
        ledger, "ledger", lambda keys: [ledger.Line(c, "undecided", "") for c in ledger.claims(keys[0])]
    )
    told = chapter_end.scorecard()
    assert told.count('<tr><th scope="row">') == len(registry.KEYS)
    assert told.count("npc-badge") == len(registry.KEYS) * (len(chapter_end.CRITERIA) + 1)
    assert 'href="li2018.html"' in told
    assert len(chapter_end.reasons()) == len(registry.KEYS) * len(chapter_end.CRITERIA)


def test_scorecard_says_what_is_decided_of_a_paper_that_is_open(decided):
    assert text(chapter_end._overall(decided)).strip() == f"? open (1 weakened, 1 refuted of {len(decided)})"
    assert text(chapter_end._overall(decided[:2])).strip() == "± mixed"


def test_anchor_of_the_departures_is_the_heading_of_the_paper():
    """The page of departures has the title as its heading; Sphinx makes the anchor of it."""
    from docutils.nodes import make_id

    for key, entry in registry.PAPERS.items():
        assert f"departures.html#{make_id(entry.title)}" in chapter_end._departures(key)
