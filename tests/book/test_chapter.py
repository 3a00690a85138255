"""What the chapters say of their own runs."""

import numpy as np
import pytest


def test_slices_that_show_the_structure_have_a_dsc_each(two_methods):
    slices = two_methods.by_slice("stepwise")
    tested = two_methods.found[0].config["fold"]["test"]
    masks = {patient: two_methods.masks(patient)["GTVp"] for patient in tested}
    shown = {f"{patient} {z}" for patient in tested for z in np.flatnonzero(masks[patient].any(axis=(1, 2)))}
    assert (set(slices.slice), set(slices.patient)) == (shown, set(tested))
    case, z = slices.slice[0].split()
    mine, truth = two_methods.found[0].prediction(case)[0][int(z)] == 1, masks[case][int(z)]
    assert slices.dsc[0] == pytest.approx(2 * (mine & truth).sum() / (mine.sum() + truth.sum()))
    assert two_methods.by_slice("unet").empty
