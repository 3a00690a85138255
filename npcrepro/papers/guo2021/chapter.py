"""What only the chapter on Guo et al. 2021 shows: maps of training patients, how far networks came, and a second
observer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from IPython.display import Markdown, display

from npcrepro.base.wording import in_words
from npcrepro.book import tables
from npcrepro.book.figures import slices
from npcrepro.book.figures.printed import BLUE, FORBIDDEN, VERMILION, Picture, axes
from npcrepro.book.published import PublishedResults
from npcrepro.book.volume_chapter import VolumeChapter
from npcrepro.cohorts.phantom import second_observer
from npcrepro.findings.audit.checks import Reported
from npcrepro.metrics import overlap
from npcrepro.papers.guo2021 import audit
from npcrepro.runs.run import load_data, load_network


def maps_of_training_patients(chapter: VolumeChapter, coarse: str, refined: str, count: int = 4) -> Markdown:
    """Maps that a network makes of patients it was trained on, and maps by networks that were not, of the same.

    A table over the first ``count`` training cases of the first fold, and the first of them as a picture.

    Args:
        coarse: the method that makes the maps.
        refined: the method that uses them.
    """
    second, first = chapter.more(refined, coarse)
    kept, network = load_data(second, chapter.prepared).maps, load_network(first)
    data, device = load_data(first, chapter.prepared), next(network.parameters()).device
    activation, structure = chapter.paper.method(coarse).activation, chapter.structures[0]
    rows: list[tuple] = []
    shown: dict[str, Any] = {}
    for case in chapter.prepared.cases_of(second.config["fold"]["train"], include_suspect=False)[:count]:
        own = data.predict(network, case, activation=activation, batch_size=16, device=device)[0].numpy()
        with np.load(kept[case][0]) as arrays:
            other = arrays["probability"][0] / 255
        truth = chapter.masks(case)[structure]
        means = [one[truth].mean() if truth.any() else np.nan for one in (own, other)]
        rows.append((case, *(overlap.count(one > 0.5, truth).dsc for one in (own, other)), *means))
        z = int(truth.sum(axis=(1, 2)).argmax())
        maps = {"image": chapter.image(case)[z], "trained on it": own[z], "not trained on it": other[z]}
        shown = shown or {"maps": maps, "truth": truth[z]}
    title = chapter.paper.method(coarse).title
    names = ["case", "DSC, trained on it", "DSC, not trained on it", "mean probability in it, trained", "not trained"]
    caption = f"{title} on training patients of one fold ({chapter.made})"
    display(tables.show(pd.DataFrame(rows, columns=names), caption))
    maps, drawn = shown["maps"], tuple(shown["maps"])[1:]
    slices.show_images(chapter.source, chapter.settings, slices.maps, maps, shown["truth"], drawn)
    return Markdown(f"*{rows[0][0]}, {structure} ({chapter.made}).*")


def against_two_observers(chapter: VolumeChapter, agreement: float) -> pd.DataFrame:
    """Mean DSC of each method against the reference, and against a second observer, who is simulated.

    Args:
        agreement: DSC of that observer with the reference, above 0 and below 1.

    Returns:
        Columns ``method`` (title), ``cases``, ``reference``, ``second`` and ``observers`` (the two with each other),
        for the first structure and the first seed, doubtful labels left out.
    """
    structure, rows = chapter.structures[0], []
    others: dict[str, np.ndarray] = {}
    for record in filter(chapter.first, chapter.found):
        for case in chapter.prepared.cases_of(record.config["fold"]["test"], include_suspect=False):
            truth = chapter.masks(case)[structure]
            if case not in others:
                random = np.random.default_rng(len(others))
                spacing = chapter.prepared.case(case).spacing_mm
                others[case] = second_observer(truth, spacing, random, agreement)
            mask, other = record.prediction(case)[0] == 1, others[case]
            scores = [overlap.count(*pair).dsc for pair in ((mask, truth), (mask, other), (truth, other))]
            rows.append((record.config["method"]["title"], case, *scores))
    frame = pd.DataFrame(rows, columns=["method", "case", "reference", "second", "observers"])
    means = frame.groupby("method", sort=False)[["reference", "second", "observers"]].mean()
    means.insert(0, "cases", frame.groupby("method", sort=False).size())
    return means.reset_index()


def learning_state(results: PublishedResults) -> str:
    """How far the networks of a record came in their training, in words."""
    here, printed = results.published.runs[0]["profile"], results.paper.profile("paper")
    seen = here["updates"] * here["batch_size"] / (printed.updates * printed.batch_size)
    rows = results.history.sort_values("update")
    best = [run.validation_dsc.argmax() >= len(run) - 2 for _, run in rows.groupby(["method", "fold", "seed"])]
    more = "; most had not come to the end of what they can learn" if 2 * sum(best) > len(best) else ""
    return (
        f"Each of these networks of {here['width']:g} times the width was given {seen:.1%} of the blocks that profile "
        f"`paper` gives it ({here['updates']:,} updates of {here['batch_size']} in place of {printed.updates:,} of "
        f"{printed.batch_size}). Of {len(best)} trainings {sum(best)} were best at one of the last two checks{more}."
    )


def f1_against_dsc(reported: Reported) -> Picture:
    """Guo: F1 against DSC; of the same masks they are equal."""
    rows = audit.rows(reported)
    figure, axis = axes(4.2)
    low, high = min(row["dsc"] for row in rows) - 0.02, max(row["f1"] for row in rows) + 0.02
    line = np.array([low, high])
    # The three networks in the middle are close together.
    places, words = {"CNN": (-30, -3), "ACDNet": (-46, 0)}, {"textcoords": "offset points", "fontsize": 9}
    axis.fill_between(line, low, line, label="no average lies here", **FORBIDDEN)
    axis.plot(line, line, color="black", label="the same masks: F1 = DSC")
    for row in rows:
        axis.plot([row["dsc"]] * 2, [row["dsc"], row["f1"]], color=BLUE, linewidth=1.2)
        axis.annotate(row["model"], (row["dsc"], row["f1"]), places.get(row["model"], (8, -3)), **words)
    axis.plot([r["dsc"] for r in rows], [r["f1"] for r in rows], "o", color=VERMILION, markersize=7, label="printed")
    axis.set(xlabel="DSC (no unit)", ylabel="F1 (no unit)", xlim=(low, high), ylim=(low, high))
    axis.legend(fontsize=8, frameon=False, loc="upper left")
    gaps = in_words([f"{row['model']} {row['f1'] - row['dsc']:+z.3f}" for row in rows])
    alt = (
        f"F1 against DSC. All rows lie above the diagonal on which F1 equals DSC, by {gaps}. An F1 made of the mean "
        "precision and the mean recall lies there."
    )
    return Picture(figure, alt)
