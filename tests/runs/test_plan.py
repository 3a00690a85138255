from pathlib import Path

import pytest

from npcrepro.base.errors import InputError
from npcrepro.cohorts.layout import read_cohort
from npcrepro.protocol import registry
from npcrepro.protocol.settings import Settings
from npcrepro.runs.plan import plan


def test_structures_that_overlap_are_refused_where_the_loss_has_no_lower_bound():
    """The softmax of nnU-Net's recipe has a background, whose share is below 0 where two structures overlap."""
    with pytest.raises(InputError, match="luo2020/nnunet-2d: structures of cohort sample-ct overlap"):
        plan(registry.load("luo2020"), Settings(methods=["nnunet-2d"]), read_cohort(Path("sample-ct")))
