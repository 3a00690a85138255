"""The audit: every verdict, what would change it, and the pictures."""

import copy
import itertools

import numpy as np
import pytest

from npcrepro.base.errors import InputError
from npcrepro.findings.audit import CHECKS, Finding, audit
from npcrepro.findings.audit.checks import check, fits_f1_of_means
from npcrepro.papers.chen2020.audit import least_loss
from npcrepro.papers.li2018.audit import layers
from npcrepro.papers.luo2020.audit import largest_dsc, largest_dsc_of_mask
from npcrepro.protocol import registry

VERDICTS_OF = {
    "consistent": "L01 L02 L03 L08 L09 L13 G01 G03 G08 C01 C02 C04 C05 C09 C10 X01 X03 X07 X09",
    "rounding": "L06 U05",
    "inconsistent": "L05 L07 L10 L11 L16 L17 U06 U07 G09 G10 C07 X02 X10 X13",
    "impossible": "L04 U01 U03 X04",
    "not stated": "L12 U08 U09 U10 G04 G05 G06 G07 G12 C03 C06 C12 X11 X12",
    "cannot tell": "L14 L15 U02 U04 G02 C08 C11 X05 X06 X08 X14",
}
EXPECTED = {key: verdict for verdict, keys in VERDICTS_OF.items() for key in keys.split()}


def printed(key: str):
    """The content of the paper of a check."""
    return registry.reported(CHECKS[key].paper)


def test_every_check_has_the_expected_verdict_and_is_explained():
    assert {key: each.compute(printed(key)).verdict for key, each in CHECKS.items()} == EXPECTED
    for each in CHECKS.values():
        for text in (each.claim, each.reading, each.consequence):
            assert text.strip() == text, each.key
            assert text.endswith("."), each.key
        assert each.where, each.key


def column(name, *change):
    """A change of a column of Table 2 of Li: each value, or the one of a patient."""

    def apply(reported):
        data = reported["tables"]["table2"]
        place = data["columns"].index(name)
        for row in data["rows"]:
            if len(change) == 1 or row[0] == change[1]:
                row[place] = change[0]

    return apply


def exchanged_volumes(reported):
    for row in reported["tables"]["table2"]["rows"]:
        row[1], row[2] = row[2], row[1]


def to(path: str, value):
    """A change of the entry at a path; numbers are places in a list."""

    def apply(reported):
        *parents, last = [int(p) if p.isdigit() else p for p in path.split("/")]
        for parent in parents:
            reported = reported[parent]
        reported[last] = value

    return apply


def every(table_name: str, name: str, of):
    def apply(reported):
        for row in reported["tables"][table_name]:
            if row[name] is not None:
                row[name] = of(row)

    return apply


def new_row(**row):
    return lambda reported: reported["tables"]["table1"].append(row)


def all_of(*changes):
    def apply(reported):
        for change in changes:
            change(reported)

    return apply


def far_apart(reported):
    for row in reported["tables"]["table2"]:
        row["dsc"] = 0.9 if row["model"].endswith("+self-transfer") else 0.8


def same_order(reported):
    for row in reported["tables"]["table1"]:
        if row["model"].startswith("3D U-net"):
            row["dsc"] = {"T1": 0.60, "T2": 0.55, "CET1": 0.62}[row["model"].partition("(")[2].rstrip(")")]


P = "tables/p_values/"
RULED_OUT = {metric: to(P + metric, value) for metric, value in (("dsc", 0.2), ("jsc", 0.2), ("asd_mm", 0.5))}

# What a paper would have to print for another verdict. A check that finds numbers in order needs one that spoils them;
# any other needs one in which the paper is right.
CHANGED = [
    ("L01", column("jsc", 0.60, 12), "inconsistent"),
    ("L02", column("recall", 0.70, 22), "inconsistent"),
    ("L03", column("corresponding_ratio", 0.95, 1), "inconsistent"),
    ("L04", exchanged_volumes, "consistent"),
    ("L05", to("text/equations", {"recall": "TP/(TP+FN)", "precision": "TP/(TP+FP)"}), "consistent"),
    ("L06", to("tables/table2/printed_sd/dsc", 0.08), "inconsistent"),
    ("L06", to("tables/table2/printed_mean/jsc", 0.80), "consistent"),
    ("L07", to("text/ranges", {"percent_match": [0.83, 0.96]}), "consistent"),
    ("L08", to("tables/figure2/corresponding_ratio", 0.905), "inconsistent"),
    ("L09", to("tables/figure3/corresponding_ratio", 0.741), "inconsistent"),
    ("L10", to("text/images", 63162), "consistent"),
    ("L11", to("paper/slices", 300), "consistent"),
    ("L12", all_of(to("text/contrast_settings", "gamma"), to("text/noise_power", 1e-4)), "consistent"),
    ("L12", to("text/contrast_settings", "gamma"), "cannot tell"),
    ("L13", to("tables/table1/rows/4/4", 3), "inconsistent"),
    ("L14", to("text/initial_sd", 0.01), "consistent"),
    ("L14", to("text/learning_rate", 1e-6), "inconsistent"),
    ("L15", to("paper/training_hours", 0.01), "impossible"),
    ("L15", to("paper/training_hours", 2), "consistent"),
    ("L16", to("text/others_best/percent_match", 0.89), "cannot tell"),
    ("L16", all_of(to("text/others_best/percent_match", 0.89), to("text/studies_share_patients", True)), "consistent"),
    ("L17", to("text/blocks_in_caption/without_pooling", 4), "consistent"),
    ("U01", every("table1", "jsc", lambda row: row["dsc"] / (2 - row["dsc"])), "consistent"),
    ("U02", every("table1", "f1", lambda row: row["dsc"]), "consistent"),
    ("U03", to("tables/table1/3/jsc", 0.93), "consistent"),
    ("U04", every("table1", "auc", lambda row: 0.95), "consistent"),
    ("U05", to("paper/slices", 8885), "inconsistent"),
    ("U05", all_of(to("paper/slices", 8885), to("text/training_slices", 7108)), "consistent"),
    ("U06", to("text/test_slices", 1720), "cannot tell"),
    ("U06", all_of(to("text/test_slices", 1720), to("text/folds_are_of", "patients")), "consistent"),
    ("U07", to("text/decay_every_iterations", 4450), "consistent"),
    ("U08", to("text/factor_of_overlap", 2), "consistent"),
    ("U08", to("text/absent_structures_in_loss", False), "consistent"),
    ("U08", to("text/absent_structures_in_loss", True), "cannot tell"),
    ("U09", to("text/outputs", 15), "consistent"),
    ("U09", to("text/outputs", 1), "inconsistent"),
    ("U10", new_row(model="one stage", dsc=0.80, auc=0.85, f1=0.8, jsc=0.7), "consistent"),
    ("U10", new_row(model="one stage", dsc=0.70, auc=0.85, f1=0.8, jsc=0.6), "inconsistent"),
    ("G01", to("text/split/test", 20), "inconsistent"),
    ("G02", lambda r: [row.update(f1=row["dsc"]) for row in [*r["tables"]["table1"], r["text"]["physicians"]]],
     "consistent"),
    ("G03", every("table1", "f1", lambda row: 1 - row["dsc"]), "inconsistent"),
    ("G04", to("text/physicians/sd", 0.15), "consistent"),
    ("G04", to("text/physicians/dsc", 0.75), "inconsistent"),
    ("G05", to("text/tumour_volume_cm3", 6.5), "consistent"),
    ("G05", to("text/tumour_volume_cm3", 20), "inconsistent"),
    ("G06", to("text/block", [48, 48, 16]), "consistent"),
    ("G07", to("text/rates", [6, 12, 18]), "inconsistent"),
    ("G07", to("text/rates", [1, 2, 3]), "consistent"),
    ("G08", to("text/decay_every_iterations", 10), "inconsistent"),
    ("G09", to("text/weight_inside", {"at_edge": 1, "more_for_each_mm": -0.04}), "consistent"),
    ("G09", to("text/weight_inside", {"at_edge": 23, "more_for_each_mm": -1}), "inconsistent"),
    ("G10", to("text/figures_of_vnet", []), "consistent"),
    ("G12", new_row(model="BUNet", dsc=0.70, assd_mm=1.5, f1=0.72), "consistent"),
    ("G12", new_row(model="BUNet", dsc=0.75, assd_mm=1.5, f1=0.76), "inconsistent"),
    ("C01", to("tables/section4_gains/0/dsc_points", 11.18), "inconsistent"),
    ("C02", to("tables/table1/0/loss_dice", 0.05), "impossible"),
    ("C02", to("text/loss_is_of", "masks"), "inconsistent"),
    ("C03", to("text/factor_of_epsilon", 1), "consistent"),
    ("C03", to("text/windows_without_tumour", 0), "consistent"),
    ("C03", to("text/windows_without_tumour", 0.3), "cannot tell"),
    ("C04", to("text/updates_of_an_epoch", 5), "inconsistent"),
    ("C05", to("tables/table2/8/dsc", 0.7188), "inconsistent"),
    ("C05", to("tables/table2/8/loss_dice", 0.40), "inconsistent"),
    ("C06", to("text/sd_of_trainings", 0.001), "inconsistent"),
    ("C06", all_of(to("tables/table2/4/dsc", 0.713), to("text/sd_of_trainings", 0.0003)), "consistent"),
    ("C07", same_order, "consistent"),
    ("C08", to("text/reduction", 8), "consistent"),
    ("C09", to("paper/matrix", [12, 256, 256]), "inconsistent"),
    ("C10", to("tables/figure8", [{"patient": name, "dsc": 0.8} for name in "abcdef"]), "cannot tell"),
    ("C11", far_apart, "consistent"),
    ("C12", all_of(to("text/rate_of_random_start", 0.001), to("text/epochs_of_random_start", 400)), "consistent"),
    ("C12", all_of(to("text/rate_of_random_start", 0.001), to("text/epochs_of_random_start", 100)), "inconsistent"),
    ("X01", to("tables/table1_patients/T1", 12), "inconsistent"),
    ("X02", to("text/induction_share_of_advanced", 45.7), "consistent"),
    ("X03", to("tables/section2/0/jsc/mean", 0.80), "impossible"),
    ("X04", to("tables/section2/1/asd_mm/sd", 2.1), "cannot tell"),
    ("X04", RULED_OUT["asd_mm"], "consistent"),
    ("X05", to("tables/section2/1/dsc/sd", 0.25), "impossible"),
    ("X05", RULED_OUT["dsc"], "consistent"),
    ("X06", RULED_OUT["jsc"], "consistent"),
    ("X07", to("tables/p_values/hd_mm", 0.01), "impossible"),
    ("X08", all_of(*RULED_OUT.values(), to(P + "hd_mm", 0.9)), "consistent"),
    ("X09", to("tables/section2/1/dsc/mean", 0.70), "inconsistent"),
    ("X10", to("text/decay_is/abstract", "learning rate"), "consistent"),
    ("X11", to("text/unet_channels", 64), "consistent"),
    ("X11", to("text/unet_channels", 128), "inconsistent"),
    ("X12", to("text/slices_of_training", 2400), "consistent"),
    ("X12", to("text/slices_of_training", 12_000), "inconsistent"),
    ("X13", to("text/thickness_mm/abstract", 3.0), "consistent"),
    ("X14", to("tables/section2/1/dsc/mean", 0.60), "consistent"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "change", "verdict"), CHANGED)
def test_another_number_changes_the_verdict(key, change, verdict):
    reported = copy.deepcopy(printed(key))
    change(reported)
    assert CHECKS[key].compute(reported).verdict == verdict


def test_no_check_lacks_a_paper_that_would_turn_it():
    told = {key: {EXPECTED[key], *(verdict for other, _, verdict in CHANGED if other == key)} for key in CHECKS}
    assert [key for key, verdicts in told.items() if "consistent" not in verdicts or len(verdicts) < 2] == []


def test_no_probabilities_have_a_lower_loss_than_the_dsc_of_their_masks_allows():
    random = np.random.default_rng(0)
    truth = random.random((4000, 6)) < 0.5
    truth[:, 0] = True
    # Probabilities of 0, just below and above the threshold, and 1: where the loss is lowest.
    probability = random.choice([0.0, 0.499, 0.501, 1.0], (4000, 6))
    mask = probability > 0.5
    dsc = 2 * (mask & truth).sum(1) / (mask.sum(1) + truth.sum(1))
    loss = 1 - 2 * (probability * truth).sum(1) / (probability.sum(1) + truth.sum(1))
    assert (loss > (1 - dsc) / (3 - dsc) - 1e-3).all()
    assert (loss < (1 - dsc) / (3 - dsc) + 1e-3).sum() > 10
    assert loss.mean() >= least_loss(dsc.mean())


def test_numbers_of_the_strongest_findings():
    li = registry.reported("li2018")
    assert CHECKS["L04"].compute(li).numbers == {"defined": 4, "inverse": 29, "larger": 4}
    assert "2, 3, 9 and 17" in " ".join(CHECKS["L04"].compute(li).computed)
    assert CHECKS["L03"].compute(li).numbers == {"own": 29, "usual": 12}
    assert CHECKS["L05"].compute(li).numbers["percent_match"] == pytest.approx(0.8797, abs=1e-4)
    assert CHECKS["L13"].compute(li).numbers["parameters"] == 5_524_239
    assert sum(row["macs"] for row in layers(li)) == pytest.approx(8.13e9, rel=1e-3)
    assert "Conv6 1.36e+08" in CHECKS["L14"].compute(li).computed[1]
    xue = registry.reported("xue2020")
    found = CHECKS["X04"].compute(xue).numbers
    assert found["correlation"] == pytest.approx(1.105, abs=1e-3)
    assert found["favoured"] == pytest.approx(1.072, abs=1e-3)
    assert found["smallest_p"] == pytest.approx(0.253, abs=1e-3)
    areas = CHECKS["U04"].compute(registry.reported("luo2020"))
    assert areas.numbers == {"rows": 3, "beyond": 0}
    assert "at most 0.8457 for probabilities and 0.6351 for a hard mask" in areas.computed[0]
    assert CHECKS["U02"].compute(registry.reported("luo2020")).numbers["rows"] == 1
    assert CHECKS["U06"].compute(registry.reported("luo2020")).numbers["beside"] == pytest.approx(0.96)


def rankings(levels: int, positives: int, negatives: int):
    """Every way to give so many pixels one of some scores: counts of each score from the highest, of both kinds."""
    for pos in itertools.product(range(positives + 1), repeat=levels):
        for neg in itertools.product(range(negatives + 1), repeat=levels):
            if sum(pos) == positives and sum(neg) == negatives:
                yield np.array(pos), np.array(neg)


@pytest.mark.parametrize(("levels", "limit"), [(3, largest_dsc), (2, largest_dsc_of_mask)])
def test_an_area_limits_the_dsc(levels, limit):
    reached = []
    for pos, neg in rankings(levels, positives=3, negatives=8):
        below = neg.sum() - np.cumsum(neg)
        auc = (pos * (below + neg / 2)).sum() / (3 * 8)
        # A mask has only its own threshold; scores have any.
        found = slice(0, 1 if levels == 2 else levels)
        tp, fp = np.cumsum(pos)[found], np.cumsum(neg)[found]
        dsc = (2 * tp / (tp + fp + 3)).max()
        share = auc / (1 + auc) if limit is largest_dsc else 1 - 1 / (2 * max(auc, 0.5))
        if share >= 3 / 11:
            assert dsc <= limit(auc) + 1e-9
            reached.append(dsc == pytest.approx(limit(auc)))
    assert sum(reached) >= 2


def test_an_f1_of_means_lies_between_two_functions_of_the_mean_dsc():
    overlaps = np.random.default_rng(0).beta(0.4, 0.4, (2000, 2, 5))  # precision and recall of five masks
    precision, recall = overlaps[:, 0], overlaps[:, 1]
    p, r = precision.mean(1), recall.mean(1)
    dsc, f1 = (2 * precision * recall / (precision + recall)).mean(1), 2 * p * r / (p + r)
    assert fits_f1_of_means(dsc, f1, 0).all()
    # Two masks, found exactly and not at all, reach the limit.
    assert fits_f1_of_means([0.5, 0.49], [0.75, 0.75], 0).tolist() == [True, False]


def test_unknown_checks_and_verdicts_are_refused():
    with pytest.raises(InputError, match="unknown check 'L99'"):
        audit(["L99"])
    with pytest.raises(InputError, match="unknown verdict 'imposible'; did you mean 'impossible'"):
        Finding("imposible", ())
    with pytest.raises(ValueError, match="two checks L01"):
        check("L01")(lambda reported: None)
