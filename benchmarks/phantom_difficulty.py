"""How hard the phantom is: a plain 2-D U-Net on each MRI series by itself and on all three together.

    OMP_NUM_THREADS=2 python benchmarks/phantom_difficulty.py --publish book/results/phantom-difficulty

trains four networks for as many updates as take about two minutes each on two CPU cores, and publishes their records.
The tumour's DSC should lie between 0.60 and 0.85, and no single series should reach the three together.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage
from npcrepro.protocol.settings import Settings
from npcrepro.runs import per_patient, published, records
from npcrepro.runs.queue import run_paper

SERIES = ("T1", "T2", "CET1")
PATIENTS = 40
MATRIX = (24, 128, 128)


def method(name: str, channels: tuple[str, ...]) -> Method:
    """A plain U-Net on these channels."""
    return Method(
        paper="phantom",
        name=name,
        title=" + ".join(channels),
        summary=f"Plain 2-D U-Net on {', '.join(channels)}",
        channels=channels,
        structures=("GTVp",),
        network=Component(
            "npcrepro.models.baselines.nnunet:plain_unet", {"in_channels": len(channels), "out_channels": 1}
        ),
        data=Component("npcrepro.sampling.slices:SliceData", {"normalisation": "zscore"}),
        stages=(
            Stage(
                "all",
                Component("monai.losses:DiceCELoss", {"sigmoid": True}),
                Component("torch.optim:Adam", {"lr": 1e-3}),
            ),
        ),
    )


STUDY = Paper(
    key="phantom",
    title="Difficulty of the phantom",
    methods=(method("all-series", SERIES), *(method(name.lower(), (name,)) for name in SERIES)),
    profiles=(
        Profile(
            name="two-minutes",
            matrix=MATRIX[1:],
            width=0.25,
            batch_size=8,
            updates=700,
            check_every=100,
            folds=1,
            methods=("all-series", *(name.lower() for name in SERIES)),
            phantom={"kind": "mri", "patients": PATIENTS, "matrix": MATRIX},
        ),
    ),
    split={"kind": "k-fold", "folds": 4, "validation": 2},
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="runs")
    parser.add_argument("--publish", type=Path, help="folder for the published records")
    arguments = parser.parse_args()
    found = run_paper(STUDY, Settings(profile="two-minutes", runs=arguments.runs, device="cpu"))
    patients = per_patient.select(
        per_patient.by_patient(records.concatenate(each.cases for each in found)), "GTVp", "all_slices"
    )
    for name, rows in patients.groupby("method", sort=False):
        print(f"{name:12s} DSC {rows.dsc.mean():.3f} (sd {rows.dsc.std():.3f}, n = {len(rows)})")
    for record in found:
        print(record.config["method"]["name"], record.provenance["seconds"])
    if arguments.publish:
        published.publish(found, arguments.publish)


if __name__ == "__main__":
    main()
