"""What every chapter ends with, and what each paper gives."""

import re
from types import SimpleNamespace

import pandas as pd
import pytest

from npcrepro.book import chapter_end
from npcrepro.findings.claims import ledger
from npcrepro.protocol import registry


@pytest.mark.parametrize(
    ("verdicts", "word"),
    [
        (["confirmed", "undecided"], "holds so far"),
        (["seen here", "undecided"], "holds so far"),
        (["seen here", "mixed"], "mixed"),
        (["not seen here", "undecided"], "does not hold so far"),
        (["seen here", "not decidable here", "undecided"], "open"),
        (["weakened", "refuted"], "mixed"),
        (["weakened", "undecided"], "weaker than reported"),
        (["refuted", "undecided"], "does not hold so far"),
        ([], "open"),
    ],
)
def test_the_verdict_on_a_paper_follows_from_those_on_its_claims(verdicts, word):
    assert chapter_end.overall_verdict(verdicts) == word
    assert word in chapter_end.OVERALL_VERDICTS


@pytest.mark.parametrize("key", registry.KEYS)
def test_paper_has_what_its_chapter_and_the_ledger_ask(key):
    from docutils.nodes import make_id

    reported = registry.reported(key)
    assert list(reported["scorecard"]) == list(chapter_end.CRITERIA)
    assert all(given["met"] in chapter_end.MET and given["says"] for given in reported["scorecard"].values())
    assert set(reported["experience"]) == {"easy", "difficult"}
    assert reported["compute"]
    # Sphinx makes the anchor of the page of departures from the title of the paper.
    assert f"departures.html#{make_id(registry.PAPERS[key].title)}" in chapter_end._departures(key)


def test_chapter_end_has_every_row_and_counts_the_verdicts(monkeypatch):
    """The ledger without resampling: what it would say stands here."""
    claims = ledger.claims("xue2020")
    verdicts = ["refuted", "weakened", *["no evidence yet"] * (len(claims) - 2)]
    decided = [ledger.Line(claim, verdict, "") for claim, verdict in zip(claims, verdicts, strict=True)]
    monkeypatch.setattr(ledger, "ledger", lambda keys: decided)
    monkeypatch.setattr(chapter_end, "published_folders", lambda: [])
    told = re.sub(r"\s+", " ", re.sub("<[^>]+>", " ", chapter_end.chapter_end("xue2020").data))
    for row in ("Verdict", "Scope", "What was easy", "What was difficult", "Departures", "Arithmetic", "Compute"):
        assert f" {row} " in told
    assert f"? open {len(decided) - 1} claims: 1 weakened, 1 refuted, {len(decided) - 3} no evidence yet" in told
    assert "; 1 of this book: 1 no evidence yet" in told  # what the audit says is no claim of the paper
    assert "Tesla P40" in told
    assert "No run is published, so the seed noise is not known" in told
    assert "npcrepro run xue2020 " in told
    assert all(line.claim.text in told for line in decided)


def test_spread_over_seeds_is_the_one_of_the_means(monkeypatch):
    monkeypatch.setattr(chapter_end, "by_patient", lambda cases: cases)

    def record(*scores: tuple[int, float]):
        """Of one method with two patients, from seeds and their DSC."""
        machine = {"paper": "xue2020", "cohort": "Some<CT>", "device": "cpu", "processor": "P", "threads": 2}
        row = {"method": "deeplabv3plus", "region": "all_slices", "suspect": False}
        rows = [row | {"seed": seed, "patient": name, "dsc": dsc} for seed, dsc in scores for name in "ab"]
        return SimpleNamespace(runs=[machine | {"seconds": {"all": 5400}} for _ in scores], cases=pd.DataFrame(rows))

    told = chapter_end._chance("xue2020", [record((0, 0.70), (1, 0.72), (2, 0.74))])
    assert "On Some<CT>, for the 1 method with 3 seeds" in told
    assert "standard deviation of 0.020." in told
    assert "All published runs have one seed" in chapter_end._chance("xue2020", [record((0, 0.7))])
