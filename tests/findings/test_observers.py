"""Agreement of two people."""

import numpy as np
import pytest

from npcrepro.cohorts import public
from npcrepro.findings import observers
from npcrepro.metrics.overlap import Counts


def test_record_is_whole():
    pairs = observers.pairs()
    assert len(pairs) == 145
    assert pairs.case.nunique() == 7
    assert set(pairs.structure) == set(public.find("deepmind-tcia").variants["oncologist"].structures)
    assert not pairs.duplicated(["case", "structure"]).any()
    for row in pairs.itertuples():
        counts = Counts(row.tp, row.fp, row.fn, row.tn)
        assert row.dsc == pytest.approx(counts.dsc, abs=1e-6)
        voxel_mm3 = row.spacing_z_mm * row.spacing_y_mm * row.spacing_x_mm
        assert row.reference_ml == pytest.approx((row.tp + row.fn) * voxel_mm3 / 1000, rel=1e-3)
    # Scans with a copied structure are doubtful.
    copied = set(pairs[pairs.fp + pairs.fn == 0].case)
    assert copied == set(pairs[pairs.suspect].case) == {"0522c0014"}


def test_agreement_is_the_median_of_what_is_not_doubtful():
    table = observers.pairs()
    expected = table[(table.structure == "Parotid_L") & (table.case != "0522c0014")]
    found = observers.agreement()
    assert found.loc["Parotid_L", "n"] == len(expected) == 6
    assert found.loc["Parotid_L", "surfel_hd95_mm"] == np.median(expected.surfel_hd95_mm)
    assert found.dsc.is_monotonic_decreasing
    assert list(found.columns) == ["n", *observers.MEDIANS]
    two = table[table.structure == "Brain"].head(2).assign(suspect=[False, True], dsc=[0.5, 0.7])
    assert observers.agreement(two).dsc.to_dict() == {"Brain": 0.5}
