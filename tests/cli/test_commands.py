import json
import math
import re
import subprocess
import sys

import pytest
from cohort_cases import edit
from core_cases import case_arrays, write_tiny

from npcrepro.cohorts.images import read_image
from npcrepro.cohorts.layout import read_cohort
from npcrepro.papers.li2018.protocol import METHODS, PAPER
from npcrepro.protocol.registry import KEYS
from npcrepro.runs.evaluation import REGIONS
from npcrepro.runs.published import read_published
from npcrepro.runs.records import find

SMOKE = PAPER.profile("smoke").methods


# What is light


@pytest.mark.parametrize("arguments", [["run", "--help"], ["list"]])
def test_help_and_list_import_nothing_slow(arguments):
    slow = ("torch", "monai", "SimpleITK", "matplotlib", "pandas", "scipy", "lightning_fabric")
    code = f"import sys; sys.argv = ['npcrepro', *{arguments!r}]\nfrom npcrepro.cli.commands import main\n"
    code += "try: main()\nexcept SystemExit as end: assert not end.code\n"
    code += f"print('loaded', *(name for name in {slow!r} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "loaded"


# list and describe


def test_list(call):
    code, out, err = call("list")
    assert (code, err) == (0, "")
    assert all(f"{method.full_name} " in out for method in METHODS)
    rows = json.loads(call("list", "--json")[1])
    assert [row["method"] for row in rows if row["paper"] == "li2018"] == [m.full_name for m in METHODS]
    assert {row["paper"] for row in rows} == set(KEYS)
    assert all(set(row) == {"paper", "method", "title", "summary"} for row in rows)
    assert rows[0]["method"] == "li2018/stepwise"


def test_describe(call):
    code, out, err = call("describe", "li2018/stepwise")
    assert (code, err) == (0, "")
    lines = [line.split() for line in out.splitlines()]
    conv3 = ["conv3", "Conv2d", *["9", "x", "9"], *["1", "x", "1"], *["4", "x", "4"], *["500", "x", "36", "x", "36"]]
    assert [*conv3, "4,860,500", "6298.56"] in lines
    assert out.endswith("li2018/stepwise: 5,524,239 parameters, 8.13 billion multiply-accumulates for a sample\n")
    described = json.loads(call("describe", "li2018/stepwise", "--json")[1])
    assert set(described) == {"paper", "method", "parameters", "macs", "layers"}
    assert (described["paper"], described["method"]) == ("li2018", "li2018/stepwise")
    assert described["parameters"] == sum(layer["parameters"] for layer in described["layers"]) == 5_524_239
    assert described["macs"] == sum(layer["macs"] for layer in described["layers"]) == 8_132_088_960
    layers = {layer["name"]: layer for layer in described["layers"]}
    assert layers["concat1"]["output"] == [121, 72, 72]
    assert layers["conv3"]["kernel"] == [9, 9]


@pytest.mark.parametrize(("name", "channels"), [("guo2021", 2), ("guo2021/bunet", 1), ("luo2020/two-windows", 2)])
def test_describe_a_network_that_takes_in_more_than_the_channels(call, name, channels):
    code, out, err = call("describe", name, "--profile", "smoke", "--json")
    assert (code, err) == (0, "")
    convolution = next(layer for layer in json.loads(out)["layers"] if layer["kind"].startswith("Conv"))
    weights = math.prod(convolution["kernel"]) * convolution["output"][0] * channels
    assert convolution["parameters"] - weights in (0, convolution["output"][0])


def test_describe_a_network_whose_layers_follow_the_image(call):
    code, out, err = call("describe", "luo2020/mask-rcnn", "--profile", "smoke")
    assert (code, err, out.count("\n")) == (0, "", 1)
    described = json.loads(call("describe", "luo2020/mask-rcnn", "--profile", "smoke", "--json")[1])
    assert f"luo2020/mask-rcnn: {described['parameters']:,} parameters; which layers run" in out
    assert described["parameters"] > 0
    assert (described["layers"], described["macs"]) == ([], None)


# run


def test_run_on_the_phantom_and_publish(tmp_path, call):
    runs, results = tmp_path / "runs", tmp_path / "results"
    where = ["--runs", runs, "--publish", results]
    code, out, err = call("run", "li2018", "--profile", "smoke", "--device", "cpu", *where)
    assert (code, err) == (0, "")
    lines, n = out.splitlines(), len(SMOKE)
    assert lines[0].startswith(f"[1/{n}] li2018/stepwise on phantom, smoke, fold 0, seed 0: ")
    assert f"{n} runs, {n} trained now, 0 read back from {runs}" in lines
    scores = lines[-2 - len(REGIONS) * n : -1]
    assert scores[0].split() == ["method", "structure", "region", "DSC", "sensitivity"]
    assert [tuple(line.split()[:3]) for line in scores[1:]] == [
        (method, "GTVp", region) for method in sorted(SMOKE) for region in sorted(REGIONS)
    ]
    # Every mean comes with the number of patients behind it.
    assert all(line.count("n = 1") == 2 for line in scores[1:])
    assert [record.config["method"]["name"] for record in find(runs)] == sorted(SMOKE)
    assert lines[-1] == f"published in {results}"
    published = read_published(results)
    assert [run["method"] for run in published.runs] == list(SMOKE)
    assert len(published.cases) == len(REGIONS) * len(SMOKE)
    tables = {f"{name}-{method}.csv" for name in ("cases", "history") for method in SMOKE}
    assert {path.name for path in results.iterdir()} == {*tables, "runs.json"}


def test_what_is_chosen_on_the_command_line_is_run(tiny_root, tmp_path, call):
    choice = ["--methods", "one-shot, li2018/unfused", "--folds", 1, "--seeds", "3,4", "--seeds", 3]
    code, _, err = call(
        "run", "li2018", "--cohort", tiny_root, "--profile", "smoke", "--runs", tmp_path, "--device", "cpu", *choice
    )
    assert (code, err) == (0, "")
    found = {(r.config["method"]["name"], r.config["fold"]["number"], r.config["seed"]) for r in find(tmp_path)}
    assert found == {(method, 1, seed) for method in ("one-shot", "unfused") for seed in (3, 4)}


# Errors


def refused(outcome):
    """The one line of an error; checks that nothing else was said."""
    code, _, err = outcome
    assert code == 1
    assert err.startswith("error: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "li2081"], "unknown paper 'li2081'; did you mean 'li2018'?"),
        (["run", "li2018", "--profile", "smok"], "unknown profile 'smok'; did you mean 'smoke'?"),
        (["run", "li2018", "--methods", "stepwize"], "unknown method of li2018 'stepwize'; did you mean 'stepwise'?"),
        (["run", "li2018", "--device", "gpu"], "unknown device 'gpu'; did you mean 'cpu'?"),
        (["run", "li2018", "--cohort", "no/where"], "no/where"),
        (["run", "li2018", "--modalities", "T2,"], "--modalities 'T2,' has an empty name, perhaps a comma too many"),
        (["run", "li2018", "--cohort", "sample-t2", "--modalities", "t2"], "has no channel 't2'; did you mean 'T2'?"),
        (["run", "li2018", "--seeds", "0,a"], "--seeds 'a' is no whole number: it looks like --seeds 0,1"),
        (["run", "li2018/stepwise"], "give its paper and --methods, as in npcrepro run li2018 --methods stepwise"),
        (["run", "li2018", "--devices", 2, "--device", "cpu"], "--devices 2 shares a batch among GPUs"),
        (["train", "lou2020"], "unknown paper 'lou2020'; did you mean 'luo2020'?"),
        (["describe", "li2018/stepwize"], "did you mean 'stepwise'?"),
        (["describe", "li2018", "--profile", "papr"], "did you mean 'paper'?"),
    ],
)
def test_a_slip_is_one_line_that_says_what_is_wrong(call, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    assert words in refused(call(*arguments))
    assert not list(tmp_path.rglob("config.json"))


@pytest.fixture
def cohort(tmp_path):
    """A cohort of its own, to be damaged."""
    root = tmp_path / "cohort"
    write_tiny(root)
    return root


def test_a_truncated_image_is_one_sentence_and_no_run(call, tmp_path, cohort):
    image, runs = cohort / "imagesTr" / "P1_0000.nii.gz", tmp_path / "runs"
    image.write_bytes(image.read_bytes()[: image.stat().st_size // 2])
    outcome = call("run", "li2018", "--cohort", cohort, "--profile", "smoke", "--runs", runs, "--device", "cpu")
    assert image.name in refused(outcome)
    assert {path.name for path in runs.rglob("*") if path.is_file()} <= {".lock", "fingerprints.json"}
    assert not (runs / "li2018").exists()


# data


def test_slices_by_patient_and_by_slice(call, tmp_path):
    write_tiny(tmp_path / "c", [case_arrays("A", 0), case_arrays("B", 1)])
    arguments = ["--runs", tmp_path / "runs"]
    for by, patients in (("patient", "2 patients"), ("slice", "4 patients")):
        code, out, _ = call("data", "slices", tmp_path / "c", tmp_path / by, "--by", by, *arguments)
        assert (code, out) == (0, f"4 slices in {tmp_path / by}; a split sees {patients}\n")
        assert read_cohort(tmp_path / by).patients[0] == ("A" if by == "patient" else "A_001")
    outcome = call("data", "slices", tmp_path / "c", tmp_path / "other", "--by", "patients", *arguments)
    assert "unknown unit of --by 'patients'; did you mean 'patient'?" in refused(outcome)
    assert "not empty" in refused(call("data", "slices", tmp_path / "c", tmp_path / "slice", *arguments))


def test_check_names_the_label_errors_that_are_known(call, tmp_path):
    root = tmp_path / "c"
    write_tiny(root, [case_arrays("A", 0), case_arrays("B", 1, suspect=True), case_arrays("C", 2)])
    edit(root, wrong_labels=["C"])
    code, out, _ = call("data", "check", root)
    assert code == 0
    assert out.splitlines()[:2] == [
        "known: C: wrong labels, never used",
        "known: B: doubtful labels, scored apart",
    ]


def test_check_of_a_damaged_cohort_names_every_defect(call, cohort):
    for case in ("P0", "P1"):
        image = cohort / "imagesTr" / f"{case}_0000.nii.gz"
        image.write_bytes(image.read_bytes()[:50])
    code, out, err = call("data", "check", cohort)
    assert (code, err) == (1, "")
    *defects, last = out.splitlines()
    assert last == f"{cohort}: 2 errors, 0 warnings"
    assert [line.split(": ")[:2] for line in defects] == [["error", f"imagesTr/P{i}_0000.nii.gz"] for i in (0, 1)]


def test_phantom_of_another_kind_with_its_options(call, tmp_path):
    root = tmp_path / "p"
    options = ["--kind", "thrive", "--matrix", "6x32x32", "--spacing", "8,4.5,4.5", "--seed", 5]
    arguments = ["data", "phantom", root, "--n", 1, *options, "--second-observer", 0.7]
    assert call(*arguments) == (0, f"1 case in {root}\n", "")
    assert call("data", "check", root)[0] == 0
    refused(call(*arguments))
    cohort = read_cohort(root)
    assert cohort.channels == ("THRIVE",)
    image, spacing_mm, _ = read_image(cohort.cases[0].images[0])
    assert image.shape == (6, 32, 32)
    assert spacing_mm == pytest.approx((8, 4.5, 4.5))
    assert [path.name for path in (root / "labels_observer2").iterdir()] == ["PHANTOM_000.nii.gz"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--matrix", "24x160"], "--matrix '24x160' is not three numbers along z, y and x: it looks like 24x160x160"),
        (["--spacing", "3x1x1"], "--spacing '3x1x1' is not three numbers along z, y and x: it looks like 3,1.25,1.25"),
        (["--kind", "mr"], "unknown kind of phantom 'mr'; did you mean 'mri'?"),
    ],
)
def test_a_phantom_that_cannot_be_made_leaves_nothing(call, tmp_path, options, words):
    assert words in refused(call("data", "phantom", tmp_path / "p", *options))
    assert not list(tmp_path.iterdir())


def test_describe_prints_medians_and_writes_the_rows(call, tiny_root, tmp_path, monkeypatch):
    """To the home of the user, whose sign stands behind an equals sign."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    code, out, _ = call("data", "describe", tiny_root, "--table=~/rows.csv", "--runs=~/runs")
    assert code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"rows.csv", "runs"}
    assert re.search(r"GTVp +CET1 +4 of 4", out)
    header, *rows = (tmp_path / "rows.csv").read_text().splitlines()
    assert header.startswith("case,patient,suspect,structure,volume_ml")
    assert [row.split(",")[0] for row in rows] == ["P0", "P1", "P2", "P3"]
