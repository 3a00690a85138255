import json
from dataclasses import replace
from math import nan, sqrt

import numpy as np
import pandas as pd
import pytest
from cohort_cases import SPACING, save

from npcrepro import scoring, statistics
from npcrepro.base.errors import InputError
from npcrepro.scoring import parse_labels, score

DIAGONAL = sqrt(9**2 + 4**2 + 5**2)
EMPTY = np.zeros((3, 4, 5), np.uint8)


def box(x, value=1):
    """A square of 2 x 2 voxels in the middle slice of 3 x 4 x 5, from column ``x`` on."""
    label = EMPTY.copy()
    label[1, 1:3, x : x + 2] = value
    return label


def folder(path, ending=".nii.gz", **cases):
    for case, array in cases.items():
        save(array, path / f"{case}{ending}")
    return path


@pytest.fixture
def sides(tmp_path):
    """Three cases with DSC 1, 0.5 and 0."""
    reference = folder(tmp_path / "ref", a=box(1), b=box(1), c=box(1))
    return folder(tmp_path / "pred", a=box(1), b=box(2), c=box(3)), reference


@pytest.fixture
def refused(call, tmp_path):
    """The one line of an error; nothing was printed or written beside it."""

    def refused(*arguments):
        out = tmp_path / "out" / "cases.csv"
        code, said, err = call("score", *arguments, "--out", out)
        assert (code, said, err.count("\n")) == (1, "", 1)
        assert err.startswith("error: ")
        assert not out.parent.exists()
        return err

    return refused


def one(predicted, wanted, **options):
    return score({"A": predicted}, wanted, **options)


def means(scores, **options):
    table = scoring.summarise(scores, **options)
    return {(line.structure, line.metric): (line.mean, line.n) for line in table.itertuples()}


def test_two_files_have_literal_numbers(tmp_path):
    scores = one(save(box(2), tmp_path / "mine.nii.gz"), save(box(1), tmp_path / "theirs.nii.gz"))
    (row,) = scores.cases.to_dict("records")
    assert {key: row[key] for key in ("prediction", "case", "patient", "structure", "status", "suspect")} == {
        **{"prediction": "A", "case": "theirs", "patient": "theirs", "structure": "label_1"},
        **{"status": "ok", "suspect": False},
    }
    assert [row[name] for name in ("tp", "fp", "fn", "tn")] == [2, 2, 2, 54]
    assert (row["dsc"], row["jsc"], row["reference_ml"], row["predicted_ml"]) == (0.5, 1 / 3, 0.012, 0.012)
    # Columns 1 and 2 against 2 and 3: half of each border is met, the other half is 1 mm off.
    assert (row["voxel_hd95_mm"], row["voxel_masd_mm"], row["voxel_nsd_1mm"]) == (1, 0.5, 1)
    assert [row[f"spacing_{axis}_mm"] for axis in "zyx"] == list(SPACING)
    assert row["diagonal_mm"] == pytest.approx(DIAGONAL)
    assert scores.notes == ()
    assert not {"average_precision", "soft_dice_loss"} & set(row)
    assert (row["components"], row["axial_dsc"], row["slice_hd95_mm"]) == (1, 0.5, 1)
    # The x axis points to the left. There the prediction is 1 mm off in column 3 alone; on the right it has no point.
    assert (row["left_mm"], row["right_mm"]) == (0.25, 1)


def test_folders_go_together_by_name_whatever_the_ending(tmp_path):
    reference = folder(tmp_path / "ref", a=box(1), b=box(1))
    predicted = folder(tmp_path / "pred", ".nrrd", a=box(1).astype(np.float32), b=box(2))
    (predicted / "._a.nii.gz").write_bytes(b"left behind")
    (predicted / "plans.json").write_text("{}")
    scores = one(predicted, reference)
    assert scores.cases[["case", "dsc"]].values.tolist() == [["a", 1], ["b", 0.5]]
    assert scores.notes == ()
    (tmp_path / "dataset.json").write_text("{}")
    (note,) = one(predicted, reference).notes
    assert note == f"structures have no names: --labels {tmp_path / 'dataset.json'} would give them"


def test_missing_and_extra_cases_are_noted_and_the_missing_one_is_the_worst_under_every_rule(sides):
    predicted, reference = sides
    (predicted / "b.nii.gz").rename(predicted / "z.nii.gz")
    scores = one(predicted, reference)
    assert scores.notes == (
        "A: no prediction, which counts as the worst: case b",
        "A: no reference, so not scored: case z",
    )
    assert scores.cases[["case", "status"]].values.tolist() == [["a", "ok"], ["b", "missing"], ["c", "ok"]]
    for rule in scoring.RULES:
        found = means(scores, rule=rule, convention="voxel")
        assert found["label_1", "dsc"] == (pytest.approx(1 / 3), 3)
        assert found["label_1", "voxel_hd95_mm"] == (pytest.approx((0 + DIAGONAL + 2) / 3), 3)
        assert found["label_1", "voxel_nsd_2mm"] == (pytest.approx(2 / 3), 3)


@pytest.mark.parametrize(
    ("rule", "dsc", "hd95", "nsd"),
    [
        ("worst", (1 / 3, 3), (2 * DIAGONAL / 3, 3), (1 / 3, 3)),
        ("leave-out", (1 / 3, 3), (0, 1), (1 / 3, 3)),
        ("one", (2 / 4, 4), (2 * DIAGONAL / 3, 3), (2 / 4, 4)),
    ],
)
def test_rules_for_empty_masks(tmp_path, rule, dsc, hd95, nsd):
    reference = folder(tmp_path / "ref", a=box(1), b=EMPTY, c=box(1), d=EMPTY)
    predicted = folder(tmp_path / "pred", a=box(1), b=EMPTY, c=EMPTY, d=box(1))
    scores = one(predicted, reference)
    assert list(scores.cases.status) == ["ok", "both_empty", "pred_empty", "ref_empty"]
    found = means(scores, rule=rule)
    assert found["label_1", "dsc"] == pytest.approx(dsc)
    assert found["label_1", "surfel_hd95_mm"] == pytest.approx(hd95)
    assert found["label_1", "surfel_nsd_2mm"] == pytest.approx(nsd)
    summary = scoring.summarise(scores, rule).set_index("metric")
    counted = {"worst": (0, 2, 0), "leave-out": (0, 0, 0), "one": (1, 2, 1)}[rule]
    assert tuple(summary.counted[["dsc", "surfel_hd95_mm", "surfel_nsd_2mm"]]) == counted
    assert set(summary["empty"]) == {3}
    # The table gives n in every cell where it is not that of the row, and the rule in words.
    (row,) = scoring.summary_table(scores, rule, "surfel")[1]
    assert row[:3] == ["label_1", str(dsc[1]), "3"]
    assert row[4].endswith(f"({hd95[1]})") == (hd95[1] != dsc[1])
    assert any(line.startswith(f"rule '{rule}': where ") for line in scoring.words(scores, rule, "surfel"))


def dataset_json(tmp_path, **fields):
    header = {"labels": {"background": 0, "GTVp": 1, "CTV": [1, 2]}, "file_ending": ".nii.gz"}
    tmp_path.mkdir(exist_ok=True)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps(header | {"channel_names": {"0": "T1"}} | fields))
    return path


def test_what_dataset_json_says_of_cases_counts(tmp_path):
    names = "abcdef"
    reference = folder(tmp_path / "ref", **{name: box(1) for name in names})
    predicted = folder(tmp_path / "pred", **{name: box(x) for name, x in zip(names, (1, 3, 1, 3, 3, 1), strict=True)})
    damaged = dataset_json(tmp_path, labels={"background": 0})
    with pytest.raises(InputError, match=rf"{damaged}: 'labels' has no structure"):
        parse_labels(str(damaged))
    assert parse_labels(str(dataset_json(tmp_path / "fold=0"))).structures == {"GTVp": (1,), "CTV": (1, 2)}
    said = {"groups": {"a": "P", "b": "P"}, "wrong_labels": ["e"], "suspect_labels": ["d"]}
    path = dataset_json(tmp_path, **said, not_contoured={"f": ["CTV"]})
    scores = one(predicted, reference, labels=parse_labels(str(path)))
    assert scores.notes == (
        "wrong labels by dataset.json, so not scored: case e",
        "doubtful labels by dataset.json, so in the rows of cases but in no mean: case d",
        "not drawn in the reference, so not scored: CTV (case f)",
    )
    of = {name: group.case.tolist() for name, group in scores.cases.groupby("structure")}
    assert of == {"GTVp": ["a", "b", "c", "d", "f"], "CTV": ["a", "b", "c", "d"]}
    assert set(one(predicted / "e.nii.gz", reference / "a.nii.gz", labels=parse_labels(str(path))).cases.case) == {"a"}
    # GTVp: (1 + 0) / 2 of patient P, 1 of c, 1 of f; d is doubtful, e wrong.
    assert means(scores)["GTVp", "dsc"] == (pytest.approx(2.5 / 3), 3)
    assert means(scores)["CTV", "dsc"] == (0.75, 2)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("GTVp=x", "does not look like GTVp=1"),
        ("GTVp=1 GTVnd=2", "does not look like GTVp=1"),
        ("GTVp=0", "code 0, which is the background, to GTVp"),
        ("GTVp=1,GTVp=2", "names a structure twice"),
    ],
)
def test_labels_that_are_none(text, words):
    with pytest.raises(InputError, match=words):
        parse_labels(text)


def test_a_prediction_that_names_its_structures_is_read_by_name(tmp_path):
    """Networks count their structures in their own order; this one has no CTV."""
    reference = folder(tmp_path / "ref", a=box(0) + box(3, 2))
    predicted = folder(tmp_path / "pred", a=box(0, 2) + box(3, 1))
    own = {"labels": {"background": 0, "GTVnd": 1, "GTVp": 2}, "file_ending": ".nii.gz"}
    (predicted / "dataset.json").write_text(json.dumps(own))
    scores = one(predicted, reference, labels=parse_labels("GTVp=1,GTVnd=2,CTV=3"))
    assert scores.cases[["structure", "dsc"]].values.tolist() == [["GTVp", 1.0], ["GTVnd", 1.0]]
    assert "A: not in its own dataset.json, so not scored: CTV" in scores.notes
    # So is a single file, and one beside another prediction that has more.
    labels = parse_labels("GTVp=1,GTVnd=2,CTV=3")
    assert len(one(predicted / "a.nii.gz", reference / "a.nii.gz", labels=labels).cases) == 2
    save(box(0) + box(3, 2), tmp_path / "all" / "a.nii.gz")
    two = score({"A": predicted, "B": tmp_path / "all"}, reference, labels=labels)
    assert scoring.compare(two).structure.unique().tolist() == ["GTVp", "GTVnd"]
    assert scoring.rank(two).empty  # one patient ranks nobody
    # Names that have nothing in common say nothing of the codes, nor do labels that cannot be read.
    scores = one(predicted, reference, labels=parse_labels("tumour=2,nodes=1"))
    assert means(scores)["tumour", "dsc"][0] == 0
    assert any(note.startswith("A: its own dataset.json does not count") for note in scores.notes)
    save(box(0, 7), predicted / "a.nii.gz")
    with pytest.raises(InputError, match=r"value 7 not in its own dataset.json; likely cause: another numbering"):
        one(predicted, reference, labels=labels)
    (predicted / "dataset.json").write_text(json.dumps(own | {"labels": {"background": 0, "CTV": 1}}))
    with pytest.raises(InputError, match="pred has CTV alone, which no reference shows"):
        one(predicted, folder(tmp_path / "few", a=box(0)), labels=replace(labels, not_contoured={"a": ("CTV",)}))


def test_folders_of_masks(tmp_path):
    """Of the references, b has no Parotid."""
    drawn, predicted = tmp_path / "drawn", tmp_path / "pred"
    for case in "ab":
        save(box(1), drawn / case / "GTVp.nii.gz")
    save(box(3), drawn / "a" / "Parotid.nii.gz")
    save(box(2, value=255), predicted / "a" / "GTVp.nrrd")
    for name in ("GTVp", "Parotid", "Cord"):
        save(box(1), predicted / "b" / f"{name}.nrrd")
    scores = one(predicted, drawn)
    assert scores.cases[["structure", "case", "status", "dsc"]].values.tolist() == [
        *(["GTVp", "a", "ok", 0.5], ["GTVp", "b", "ok", 1], ["Parotid", "a", "missing", 0]),
    ]
    # What is not scored is not missed either.
    assert one(predicted, drawn, labels=parse_labels("GTVp=1")).notes == (
        "in the references and not in --labels, so not scored: Parotid",
        "A: not in the references or not in --labels, so not scored: structures Cord, Parotid",
    )
    assert scores.notes == (
        "not drawn in the reference, so not scored: Parotid (case b)",
        "A: no mask of Parotid, which counts as the worst: case a",
        "A: not in the references or not in --labels, so not scored: structure Cord",
    )
    assert means(scores)["Parotid", "surfel_hd95_mm"] == (pytest.approx(DIAGONAL), 1)
    save(box(1), predicted / "a" / "Parotis.nrrd")
    assert one(predicted, drawn).notes[1].endswith("counts as the worst: case a; is it 'Parotis' there?")
    save(np.maximum(box(0), box(3, value=2)), predicted / "a" / "GTVp.nrrd")
    with pytest.raises(InputError, match="values 1, 2 in the mask of one structure"):
        one(predicted, drawn)


@pytest.fixture
def three(tmp_path):
    """Six cases of two structures; B is like A but for one case, C finds less, and lacks a case."""
    rng = np.random.default_rng(3)
    wanted = {f"c{i}": np.maximum(box(0), box(3, value=2)) for i in range(6)}

    def spoilt(label, voxels):
        label = label.copy()
        inside = np.flatnonzero(label)
        label.flat[rng.choice(inside, voxels, replace=False)] = 0
        return label

    reference = folder(tmp_path / "ref", **wanted)
    a = folder(tmp_path / "a", **{case: spoilt(label, 1) for case, label in wanted.items()})
    b = folder(tmp_path / "b", **{case: spoilt(label, i % 3) for i, (case, label) in enumerate(wanted.items())})
    c = folder(tmp_path / "c", **{case: spoilt(label, 3) for case, label in wanted.items() if case != "c5"})
    return {"A": a, "B": b, "C": c}, reference


def test_several_predictions_are_compared_with_the_first(three):
    scores = score(*three)
    compared = scoring.compare(scores)
    assert compared[["structure", "prediction", "minus", "metric"]].values.tolist() == [
        [structure, prediction, "A", metric]
        for metric in ("dsc", "surfel_hd95_mm")
        for structure in ("label_1", "label_2")
        for prediction in "BC"
    ]
    dsc = scores.cases.pivot(index=["structure", "case"], columns="prediction", values="dsc")
    assert dsc.loc["label_1", "C"].iloc[-1] == 0  # the case that C lacks
    for line, structure in zip(compared.iloc[[0, 2]].itertuples(), ("label_1", "label_2"), strict=True):
        test = statistics.paired(dsc.loc[structure, "B"], dsc.loc[structure, "A"])
        assert (line.n, line.difference, line.p) == (6, test.difference.mean, test.p)
        assert (line.low, line.high) == (test.difference.low, test.difference.high)
    for _, group in compared.groupby("metric"):
        assert group.p_holm.tolist() == statistics.holm(group.p)
    assert (compared[compared.prediction == "C"].iloc[:2].difference < 0).all()
    ranks = scoring.rank(scores)
    assert ranks[ranks.prediction == "C"]["rank"].tolist() == [3, 3]
    assert ranks.groupby("structure")["rank"].min().tolist() == [1, 1]


def test_csv_reads_back_and_an_error_leaves_it(sides, tmp_path, call):
    out = tmp_path / "new" / "cases.csv"
    assert call("score", *sides, "--out", out)[0] == 0
    written = out.read_text()
    table = pd.read_csv(out)
    expected = one(*sides).cases.assign(prediction="pred")
    pd.testing.assert_frame_equal(table, expected, rtol=1e-5, check_dtype=False)
    (sides[0] / "c.nii.gz").write_bytes(b"no image")
    # A place that cannot be written to is told before anything is read.
    (tmp_path / "folder.csv").mkdir()
    assert "folder.csv: it is a folder" in call("score", *sides, "--out", tmp_path / "folder.csv")[2]
    assert call("score", *sides, "--out", out)[0] == 1
    assert out.read_text() == written
    assert [path.name for path in out.parent.iterdir()] == ["cases.csv"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--undefined", "worse"], "unknown rule of --undefined 'worse'; did you mean 'worst'?"),
        (["--spacing", "1,1"], "--spacing '1,1' is not three numbers along z, y and x: it looks like 3,1,1"),
        (["--nsd-tolerance", "-1"], "--nsd-tolerance '-1' is not a number of mm: it looks like 2, or GTVp=1.5"),
        (["--pred", "A=x"], "give REF alone beside --pred, not "),
    ],
)
def test_a_slip_in_an_option_is_one_line(sides, refused, options, words):
    assert words in refused(*sides, *options)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"array": np.zeros((3, 4, 6), np.uint8)}, "shape (z, y, x) differs ((3, 4, 6) and (3, 4, 5) in "),
        ({"array": box(1), "spacing_mm": (3, 1, 2)}, "spacing_mm (z, y, x) differs ((3, 1, 2) and (3, 1, 1) in "),
    ],
)
def test_another_grid_is_one_sentence_with_both(sides, refused, changed, words):
    predicted, reference = sides
    save(path=predicted / "b.nii.gz", **changed)
    line = refused(*sides)
    assert f"{predicted / 'b.nii.gz'}: another grid: {words}{reference / 'b.nii.gz'})" in line


@pytest.mark.parametrize("side", [0, 1])
def test_a_probability_map_or_an_image_of_nan_is_no_mask(sides, refused, side):
    save((0.75 * box(1)).astype(np.float32), sides[side] / "b.nii.gz")
    line = refused(*sides)
    assert f"{sides[side] / 'b.nii.gz'}: a probability map (fractions from 0 to 1): threshold it first" in line
    save(np.where(box(1), nan, 0).astype(np.float32), sides[side] / "b.nii.gz")
    assert "NaN or infinite values (4 voxels)" in refused(*sides)


def test_values_that_nobody_knows_are_named(sides, refused):
    save(np.maximum(box(0, value=255), box(3, value=9)), sides[0] / "b.nii.gz")
    line = refused(*sides)
    assert f"{sides[0] / 'b.nii.gz'}: values 9, 255 in no reference and not in --labels" in line
    assert "another numbering (255 for 1 is usual)" in line
    assert one(*sides, labels=parse_labels("GTVp=1,255,GTVnd=9")).cases.tp.sum() == 6


def test_places_that_are_no_side(sides, tmp_path, refused):
    predicted, reference = sides
    (tmp_path / "void").mkdir()
    assert "no such file or folder" in refused(tmp_path / "none", reference)
    assert "holds no image" in refused(tmp_path / "void", reference)
    assert "are a file and a folder" in refused(predicted / "a.nii.gz", reference)
    assert "is a whole cohort: give the folder of its labels" in refused(
        predicted, folder(tmp_path / "cohort" / "labelsTr", a=box(1)).parent
    )
    save(box(1), predicted / "a.nrrd")
    assert "are the same case: one was converted and not removed" in refused(predicted, reference)


def test_references_that_cannot_be_scored(tmp_path, refused):
    empty = folder(tmp_path / "empty", a=EMPTY)
    assert "every reference is empty: name the structures in --labels" in refused(empty, empty)
    full = folder(tmp_path / "full", a=box(1), b=box(1))
    for said in ({"wrong_labels": ["a"], "suspect_labels": ["b"]}, {"suspect_labels": ["a", "b"]}):
        path = dataset_json(tmp_path, **said)
        assert "calls every label wrong or suspect" in refused(full, full, "--labels", path)
    path = dataset_json(tmp_path, not_contoured={"a": ["GTVp", "CTV"], "b": ["GTVp", "CTV"]})
    assert "none of the structures GTVp, CTV was drawn" in refused(full, full, "--labels", path)
