"""A prepared cohort with every slice as a case of its own, to measure what splitting by slice does to the numbers.

Slices of one patient resemble each other. Where some of them train a network and others test it, the test is easier
than a new patient is. The same slices come with their patient as the unit of a split, or each as a patient.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays, Cohort
from npcrepro.cohorts.layout import write_cohort
from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.cohorts.structures import mask_of


def write_slices(cohort: PreparedCohort, root: str | Path, *, by_patient: bool, patients: int | None = None) -> Cohort:
    """Write the slices that show a structure as cases of one slice, and return the cohort.

    With ``by_patient`` the slices of a patient stay together in a split; otherwise each is a patient of its own.
    ``patients`` takes only the first so many, in sorted order, whose labels are not doubtful. Raises InputError where
    ``root`` is not empty, or no slice shows a structure, or for fewer than one patient.
    """
    if patients is not None and patients < 1:
        raise InputError(f"slices of {patients} patients are asked for: give 1 or more")
    names = cohort.case_names
    if patients is not None:
        certain = [patient for patient in cohort.patients if cohort.cases_of([patient], include_suspect=False)]
        names = cohort.cases_of(certain[:patients], include_suspect=False)

    def slices() -> Iterator[CaseArrays]:
        for name in names:
            case = cohort.case(name)
            label = np.asarray(case.label)
            for z in np.flatnonzero(label.any(axis=(1, 2))):
                title = f"{name}_{z:03d}"
                yield CaseArrays(
                    name=title,
                    patient=case.patient if by_patient else title,
                    image=np.asarray(case.image[:, z : z + 1]),
                    label={s: mask_of(label[z : z + 1], cohort.structures, s) for s in cohort.structures},
                    spacing_mm=case.spacing_mm,
                    suspect=case.suspect,
                    not_contoured=case.not_contoured,
                )

    return write_cohort(
        root,
        slices(),
        name=f"{cohort.name}-{'patients' if by_patient else 'slices'}",
        channels=cohort.channels,
        structures=list(cohort.structures),
        reference=cohort.reference,
        licence=cohort.licence,
        publishable=cohort.publishable,
        spacing_known=cohort.spacing_known,
    )
