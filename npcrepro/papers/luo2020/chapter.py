"""What only the chapter on Luo et al. 2020 shows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from npcrepro.base.wording import in_words
from npcrepro.book.figures.printed import FORBIDDEN, GREEN, VERMILION, Picture, axes
from npcrepro.findings.audit.checks import Reported, jsc_of
from npcrepro.papers.luo2020.audit import printed_dice
from npcrepro.protocol import registry

if TYPE_CHECKING:
    from npcrepro.runs.published import Published
    from npcrepro.runs.records import Record
    from npcrepro.sampling.slices import SliceData


def jsc_above_dsc(reported: Reported) -> Picture:
    """Luo: JSC against DSC with the region that no set of masks reaches."""
    table = reported["tables"]["table1"]
    dsc, jsc = (np.array([row[name] for row in table]) for name in ("dsc", "jsc"))
    figure, axis = axes(4.6)
    line = np.linspace(0.55, 0.95, 100)
    axis.fill_between(line, line, 1, label="no average of masks lies here", **FORBIDDEN)
    axis.fill_between(line, jsc_of(line), line, color=GREEN, alpha=0.35, linewidth=0, label="where averages can lie")
    axis.plot(line, jsc_of(line), color=GREEN, label="a single mask: J = D / (2 - D)")
    axis.plot(dsc, jsc, "o", color=VERMILION, markersize=7, label="Table 1")
    for row in table:
        axis.annotate(row["model"], (row["dsc"], row["jsc"]), (6, 4), textcoords="offset points", fontsize=9)
    axis.set(xlabel="DSC (no unit)", ylabel="JSC (no unit)", xlim=(0.62, 0.9), ylim=(0.45, 0.95))
    axis.legend(fontsize=8, frameon=False, loc="lower right")
    points = in_words([f"{row['model']} DSC {row['dsc']:.4f} and JSC {row['jsc']:.4f}" for row in table])
    alt = (
        f"JSC against DSC of the four networks of Table 1: {points}. All lie above the diagonal, in the hatched region "
        "that no average of masks can reach."
    )
    return Picture(figure, alt)


def window_share(side: int, reach: int = 3) -> float:
    """Share of a map of ``side`` x ``side`` pixels that a window covers, mean over the pixels that it is centred on.

    Args:
        reach: pixels on each side of the middle; what lies beyond the border of the map does not count.

    Example:
        >>> window_share(2), window_share(1)
        (1.0, 1.0)
    """
    places = np.arange(side)
    covered = np.minimum(places + reach, side - 1) - np.maximum(places - reach, 0) + 1
    return float((covered.mean() / side) ** 2)


def two_maps(record: Record, data: SliceData, case: str, z: int) -> dict[str, np.ndarray]:
    """A slice as a two-stage network sees it: the image, and the probability of any structure by each of its stages.

    Args:
        record: of a run of the proposed method.
        data: the slices of its cohort at the matrix of the run.

    Returns:
        Title to map ``(y, x)``, of the size of the matrix.
    """
    import torch

    from npcrepro.runs.run import load_network

    network = load_network(record)
    image = data.finish(data.inputs([(case, z)]))
    with torch.no_grad():
        coarse, fine = network(image, output="both")
    found = {"stage 1: any structure": coarse.sigmoid()[0, 0], "stage 2: any structure": 1 - fine.softmax(dim=1)[0, 0]}
    return {"CT": image[0, 0].numpy()} | {title: one.numpy() for title, one in found.items()}


def loss_without_structure(side: int, epsilons: tuple[float, ...]) -> pd.DataFrame:
    """The loss of equation 1 in a slice without the structure, where each pixel has the same probability.

    Args:
        side: of the square slice, in pixels.

    Returns:
        A row for each probability, from 1e-2 down; a column for each epsilon.

    Example:
        >>> loss_without_structure(80, (1.0,))["epsilon 1"].round(2).tolist()
        [0.49, -0.11, -0.49, -0.5, -0.5]
    """
    pixels = side**2
    rows = [
        {"probability of each pixel": f"{probability:.0e}"}
        | {f"epsilon {e:g}": printed_dice(0, probability * pixels, 0, pixels, epsilon=e) for e in epsilons}
        for probability in (1e-2, 1e-4, 1e-6, 1e-8, 1e-10)
    ]
    return pd.DataFrame(rows)


# What was wrong with baselines before they were mended, by the name of the method.
MENDED = {
    "fcn8": "*FCN-8* has no batch normalisation in these runs and learnt nothing with the loss of the others, so that "
    "its Dice loss leaves absent structures out. By now it has both; what it was is the method `fcn8-plain`.",
    "mask-rcnn": "*Mask R-CNN* was set up for slices of 512 x 512 in these runs and saw smaller ones: pieces under "
    "nine pixels were background, and its smallest anchor had eight pixels. By now both shrink with the slice.",
}


def older_baselines(published: Published) -> dict[str, str]:
    """Baselines that a record has as they were before they were mended, each with what was wrong."""
    outdated = published.outdated(registry.load("luo2020"))
    return {name: why for name, why in MENDED.items() if name in outdated}


def share_without_instance(data: SliceData, cases: list[str]) -> pd.DataFrame:
    """Share of the slices with a structure in which Mask R-CNN has no instance of it to learn from.

    Returns:
        A row for each structure: name, slices that show it, and the share without an instance where the smallest has
        nine pixels whatever the slice, and where it has nine pixels of a slice of 512 x 512.
    """
    import torch

    from npcrepro.models.baselines.mask_rcnn import find_instances

    label = torch.cat([torch.from_numpy(np.array(data.arrays(case)[1])) for case in cases])
    shown, shares = (label == 1).flatten(2).any(dim=2), {}
    for title, scale in (("nine pixels", 1.0), ("nine pixels of 512 x 512", max(data.matrix) / 512)):
        instances = find_instances(label, 9 * scale**2)
        real = instances.boxes.any(dim=2)
        has = torch.stack([((instances.structure == s) & real).any(dim=1) for s in range(label.shape[1])], dim=1)
        shares[title] = ((shown & ~has).sum(dim=0) / shown.sum(dim=0)).tolist()
    return pd.DataFrame({"structure": data.structures, "slices": shown.sum(dim=0).tolist(), **shares})
