from dataclasses import replace
from pathlib import Path

import pytest

from npcrepro.base.errors import InputError
from npcrepro.cohorts.layout import read_cohort
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs.plan import plan


def test_structures_that_overlap_are_refused_where_the_loss_has_no_lower_bound():
    """The softmax of nnU-Net's recipe has a background, whose share is below 0 where two structures overlap."""
    cohort, luo = read_cohort(Path("sample-ct")), registry.load("luo2020")
    overlap = "luo2020/nnunet-2d cannot learn cohort sample-ct: its structures overlap"
    with pytest.raises(InputError, match=overlap):
        plan(luo, Settings(methods=["nnunet-2d"]), cohort)
    # Of the methods of a profile, the others are made.
    few = replace(luo, split=luo.split | {"folds": 3, "validation": 0.4})
    with pytest.warns(UserWarning, match=overlap):
        made = plan(few, Settings(profile="bench"), cohort)
    assert {run.method.name for run in made} == set(luo.profile("bench").methods) - {"nnunet-2d"}
