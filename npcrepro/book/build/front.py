"""The front page: one picture, three findings and one table, all from published records.

``python -m npcrepro.book.build.front`` brings the picture and the table of README.md up to date.
"""

import io
import re
from functools import cache
from pathlib import Path

import pandas as pd

from npcrepro.base.code_hash import PACKAGE
from npcrepro.base.files import write_bytes, write_text
from npcrepro.base.wording import DASH, in_words, plural
from npcrepro.book.build.evidence import COHORTS, markdown
from npcrepro.book.parts import together
from npcrepro.book.topics import lessons
from npcrepro.findings import audit
from npcrepro.protocol import registry

PICTURE, NARROW = "book/_static/what-moves.svg", "book/_static/what-moves-narrow.svg"
OURS = ("our DSC", "our images", "our highest mean")
# A phone shows the first three of them: what is reported, and ours.
COLUMNS = ("paper", "reported DSC", "our DSC", "it segments", "our images", "our highest mean")


@cache
def _moved() -> pd.DataFrame:
    return lessons.by_kind()


def pictures() -> dict[str, bytes]:
    """The picture as SVG, for a page and for a phone, by its path in the book."""
    import matplotlib
    import matplotlib.pyplot as plt

    found = {}
    for name, narrow in ((PICTURE, False), (NARROW, True)):
        # Text stays text, and nothing in the file tells when it was made.
        with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
            figure, stream = lessons.picture(_moved(), narrow), io.BytesIO()
            figure.savefig(stream, format="svg", metadata={"Date": None, "Title": lessons.alt_text(_moved())})
            plt.close(figure)
        found[name] = stream.getvalue()
    return found


def picture(root: Path) -> str:
    """The picture with what it shows in words, as HTML for the front page."""
    alt = lessons.alt_text(_moved())
    return (
        '<figure class="npc-front"><picture>'
        '<source media="(max-width: 600px)" srcset="../_static/what-moves-narrow.svg">'
        f'<img class="dark-light" src="../_static/what-moves.svg" alt="{alt}"></picture>'
        "<figcaption>What moves the mean Dice score (DSC). A dot is the difference of two methods on the same "
        "patients, as the mean over the seeds that both have. Its line is the 95 % interval over patients, without the "
        "chance of another seed. <em>Only another seed</em>: one method, its best seed minus its worst, in the "
        "records of the ideas. This is never below 0, and more seeds make it larger. Orange dots are choices on which "
        "a paper is silent or unclear, where we departed from it, or which are ours. We picked most of them with "
        "hindsight. Most of those of Luo 2020 have half the updates of its ideas."
        "</figcaption></figure>"
    )


def findings(root: Path) -> str:
    """Three findings with their numbers, as a list."""
    checks = audit.table(audit.audit())
    failed = checks[checks.verdict.isin(("inconsistent", "impossible"))]
    rows = _moved()
    ideas, split = rows[rows.kind == lessons.IDEA], rows[rows.kind == lessons.SPLIT].iloc[0]
    large = ideas[ideas["mean"] > lessons.LARGE]
    others = ~rows.kind.isin((lessons.IDEA, lessons.SPLIT, lessons.SEED))
    strong = rows[others & (rows["mean"] > lessons.LARGE) & (rows.low > 0)]
    told = []
    for row in strong.sort_values("mean", ascending=False).itertuples():
        of_all = f" on shared seeds; {row.of_all:+.2f} over all seeds" * (abs(row.of_all - row.mean) >= 0.005)
        told.append(f"*{row.what}* ({row.mean:+.2f}{of_all})")
    papers = failed.paper.nunique()
    whose = f"All {papers} papers" if papers == len(registry.KEYS) else f"{papers} of {len(registry.KEYS)} papers"
    broken = (failed.verdict == "impossible").sum()
    reach = [f"*{what}*" for what in strong[strong.all_low <= 0].what]  # intervals that include 0
    intervals, include = ("interval", "includes") if len(reach) == 1 else ("intervals", "include")
    by_seeds = f"If other seeds are allowed for, too, the {intervals} of {in_words(reach)} {include} 0. "
    return "\n".join(
        [
            f"1. **Some reported numbers cannot all be right.** In {broken} of {len(checks)} checks that need no "
            f"image, a reported number breaks an identity or a bound. In {len(failed) - broken} more, two statements "
            f"of a paper disagree or hardly fit together. {whose} have such numbers. "
            "They may be misprints; we asked no author. [The audit](../notebooks/audit.ipynb)",
            f"2. **Splitting by slice instead of by patient raised the Dice of a U-Net by {split['mean']:.2f}** (95 % "
            f"interval {split.low:.2f} to {split.high:.2f}), on the same slices of CT. The counts of one paper fit "
            "such a split. "
            "[The lessons](../notebooks/lessons.ipynb)",
            f"3. **Other choices can outweigh an idea.** Of {plural(len(ideas), 'idea')} of the papers, "
            f"{len(large)} gain{'s' * (len(large) == 1)} more than {lessons.LARGE:g}. Of other choices, "
            f"picked with hindsight, {len(strong)} do. The largest are {in_words(told[:3])}. {by_seeds * bool(reach)}"
            "[All of them](../notebooks/lessons.ipynb)",
        ]
    )


def papers(root: Path) -> str:
    """What each paper segments, what it reports and what we found, as a table. What is not known is a dash."""
    rows = []
    for key, entry in registry.PAPERS.items():
        about, reported = registry.reported(key)["paper"], reported_dsc(key)
        tested = about.get("test_patients", about.get("patients"))
        of = f", {plural(tested, 'patient')}" if tested else ""
        row = {
            "paper": f"[{together(entry.short)}](../notebooks/{key}.ipynb)",
            "it segments": f"{about['segments']}; {about['images']}",
            "reported DSC": DASH if reported is None else f"{reported:.2f}{of}",
        }
        row |= _ours(key) if "lessons" in registry.reported(key) else dict.fromkeys(OURS, DASH)
        rows.append({name: row[name] for name in COLUMNS})
    return markdown(rows)


def _ours(key: str) -> dict[str, str]:
    """The columns `OURS` of a paper, from the record that stands for it."""
    runs = lessons.results(key)
    ours, proposed = {name: runs.mean(name) for name in runs.patients.method.unique()}, runs.paper.methods[0].name
    best, cohort = max(ours, key=lambda name: ours[name].mean), runs.published.runs[0]["cohort"]
    title = runs.paper.method(best).title if best in runs.methods else runs.published.methods[best]["title"]
    seeds = runs.patients.groupby("method").seed.nunique()
    counted = {name: together(plural(int(seeds[name]), "seed")) for name in {best, proposed} & {*ours}}
    series = max((method["channels"] for method in runs.published.methods.values()), key=len)
    told = (
        f"{together(f'{ours[proposed].mean:.2f} ({ours[proposed].interval})', 40)}, {counted[proposed]}"
        if proposed in ours
        else DASH,
        f"{plural(runs.patients.patient.nunique(), 'patient')}, {COHORTS.get(cohort, (cohort,))[0]}"
        + (f" in {in_words(series)}" if len(series) > 1 else ""),
        f"{ours[best].mean:.2f}, {title}, {counted[best]}",
    )
    return dict(zip(OURS, told, strict=True))


def reported_dsc(key: str) -> float | None:
    """The mean DSC that a paper reports for its proposed method; None where its tables have none.

    Example:
        >>> reported_dsc("li2018"), reported_dsc("xue2020")
        (0.89, 0.76)
    """
    title = registry.load(key).methods[0].title.casefold()
    for table in registry.reported(key)["tables"].values():
        means = table.get("printed_mean", {}) if isinstance(table, dict) else {}
        found = [row for row in table if row.get("model", "").casefold() == title] if isinstance(table, list) else []
        for row in (means, *found):
            if "dsc" in row:
                return float(row["dsc"]["mean"] if isinstance(row["dsc"], dict) else row["dsc"])
    return None


def with_table(readme: str, root: Path) -> str:
    """The text of README.md with the table of papers between its two marks."""
    table = re.sub(r"\[(.+?)\]\(\.\./(notebooks/.+?)\)", r"[\1](\2)", papers(root))
    return re.sub(r"(<!-- results -->\n).*?(\n<!-- end -->)", rf"\1\n{table}\n\2", readme, flags=re.DOTALL)


if __name__ == "__main__":
    repository = PACKAGE.parent
    write_bytes(repository / PICTURE, pictures()[PICTURE])
    write_text(repository / "README.md", with_table((repository / "README.md").read_text("utf-8"), repository))
