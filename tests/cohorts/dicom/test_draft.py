"""What an import says and writes where the tables of the package do not fit."""

import shlex

import pytest
from dicom_cases import ramp, square, write_patient, write_rtstruct, write_series
from typer.testing import CliRunner

from npcrepro.base.errors import InputError
from npcrepro.cli import commands
from npcrepro.cohorts.dicom import import_dicom
from npcrepro.cohorts.dicom.names import near_miss

BOXES = [square(1.5, 2.5, 6.5, 9.5, number) for number in (1, 2, 3)]


@pytest.fixture(autouse=True)
def inside(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def patient(root, *names, patient="A", **fields):
    write_patient(root / "dicom" / patient, dict.fromkeys(names, BOXES), patient=patient, **fields)


def refused(root):
    """The error of an import without rules that leaves nothing but a draft; and the lines of the draft."""
    with pytest.raises(InputError) as caught:
        import_dicom("dicom", "cohort", report=lambda line: None)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in root.iterdir()) == ["dicom", "rules-draft.yaml"]
    return str(caught.value), (root / "rules-draft.yaml").read_text(encoding="utf-8").splitlines()


def uncomment(root, start):
    """Take the "#" from the line that begins like this, as a user would."""
    draft = root / "rules-draft.yaml"
    text = draft.read_text(encoding="utf-8")
    assert text.count(f"  # {start}") == 1
    draft.write_text(text.replace(f"  # {start}", f"  {start}"), encoding="utf-8")


@pytest.mark.parametrize(
    ("name", "structure"),
    [
        *(("Hirnstam", "BrainStem"), ("spinalkord", "SpinalCord"), ("Parotix Rt", "Parotid_R"), ("Lense li", "Lens_L")),
        *(("Brainstem1", "BrainStem"), ("GTVnx_MR", "GTVp"), ("Parotid", "Parotid_L")),
        # Another organ, number, kind of target or none at all; a margin; an aid of planning.
        *(("Carotid_L", None), ("Pharynx", None), ("CTV3", None), ("PTVp", None), ("Couch", None), ("", None)),
        *(("SpinalCord_PRV", None), ("Parotid_L-PTV", None), ("zBrainstem1", None), ("Ring Brainstem", None)),
    ],
)
def test_near_misses(name, structure):
    found = near_miss(name)
    assert (found and found.structure) == structure


def test_two_series_and_a_foreign_name(inside):
    patient(inside, "GTVp", "Hirnstam", "Couch", "PTV 70 (Gy)")
    write_series(inside / "dicom" / "A" / "late", ramp(), series="late", description="HEAD late", patient="A")
    message, draft = refused(inside)
    assert "several series of one patient fit channel CT ('HEAD', 'HEAD late')" in message
    assert "structures that nearly fit a rule ('Hirnstam' may be BrainStem)" in message
    command = "npcrepro data import dicom cohort --rules rules-draft.yaml"
    assert message.endswith(
        f"rules-draft.yaml has a line for each of them; take away the # of those that are right, then: {command}"
    )
    assert [line for line in draft if line.startswith("  ")] == [
        "  # CT: {modality: CT, description: ^HEAD$}"
        "  # 1 of 1 patient; choose one of them; contours are drawn on it in 1",
        "  # CT: {modality: CT, description: ^HEAD late$}  # 1 of 1 patient; choose one of them",
        "  GTVp: ^GTVp$  # 1 of 1 patient",
        "  # BrainStem: ^Hirnstam$  # 1 of 1 patient; near miss: 94 % like 'hirn stamm'",
        "  # Couch: ^Couch$  # 1 of 1 patient; like no name of the field: keeps its own",
        "  # PTV 70 (Gy): ^PTV 70 \\(Gy\\)$"
        "  # 1 of 1 patient; by its first letters a planning target volume: keeps its own name",
    ]
    for start in ("CT: {modality: CT, description: ^HEAD$", "BrainStem", "PTV 70"):
        uncomment(inside, start)
    done = CliRunner().invoke(commands.app, shlex.split(command)[1:])
    assert done.exception is None
    assert done.output.endswith("1 case in cohort; channels CT; structures GTVp, BrainStem, PTV 70 (Gy)\n")


def test_the_draft_of_what_fits_goes_on_at_once(inside):
    for name in ("A", "B"):
        patient(inside, "GTV_nx" if name == "A" else "GTVp", "Hirnstam", patient=name)
    _, draft = refused(inside)
    assert "  GTVp: ^(GTV_nx|GTVp)$  # 2 of 2 patients" in draft
    assert [line for line in draft if line.startswith(("  CT", "reference"))] == [
        "  CT: {modality: CT, description: ^HEAD$}  # 2 of 2 patients; contours are drawn on it in 2",
        "reference: CT  # the channel whose grid all others take",
    ]
    cohort = import_dicom("dicom", "cohort", rules="rules-draft.yaml", report=lambda line: None)
    assert (cohort.channels, list(cohort.structures), len(cohort.cases)) == (("CT",), ["GTVp"], 2)


def test_a_near_miss_beside_its_structure_asks_nothing(inside):
    patient(inside, "GTVp", "Brainstem", "Brainstem1")
    said = []
    assert list(import_dicom("dicom", "cohort", report=said.append).structures) == ["GTVp", "BrainStem"]
    assert "structures that fit no rule and are left out: 'Brainstem1'" in said
    assert not (inside / "rules-draft.yaml").exists()


def test_one_structure_and_one_series_need_no_rules(inside):
    patient(inside, "Tumor bed", modality="MR", description="ax")
    said = []
    cohort = import_dicom("dicom", "cohort", report=said.append)
    assert (cohort.channels, list(cohort.structures)) == (("MR",), ["Tumor bed"])
    assert said[:2] == [
        "the only series of each patient is channel MR",
        "the only structure keeps its name, 'Tumor bed'",
    ]


def test_no_channel_that_all_patients_have(inside):
    patient(inside, "GTVp", modality="MR", description="T1", patient="A")
    patient(inside, "GTVp", modality="MR", description="sag MPRGE", patient="B")
    message, draft = refused(inside)
    assert "no channel that all 2 patients have (MR 'T1', MR 'sag MPRGE')" in message
    assert [line.split("  # contours")[0] for line in draft if "modality" in line and line.startswith("  #")] == [
        "  # T1: {modality: MR, description: ^T1$}"
        "  # 1 of 2 patients; the others would be skipped; contours are drawn on it in 1",
        "  # T1: {modality: MR, description: ^sag MPRGE$}"
        "  # 1 of 2 patients; MPRAGE is mostly T1; contours are drawn on it in 1",
    ]


def test_an_edited_draft_is_kept(inside):
    patient(inside, "Liver", "Spleen")
    message, draft = refused(inside)
    assert "patients whose structures all have names that are not known ('Liver', 'Spleen')" in message
    assert refused(inside)[0] == message
    uncomment(inside, "Liver")
    message, kept = refused(inside)
    assert "rules-draft.yaml is there from before and was kept; remove it for a new draft, or go on with it" in message
    assert kept != draft


def test_a_cohort_that_is_there_is_refused_before_anything_is_drafted(inside):
    patient(inside, "Liver", "Spleen")
    (inside / "cohort").mkdir()
    (inside / "cohort" / "mine").touch()
    with pytest.raises(InputError, match="cohort exists and is not empty"):
        import_dicom("dicom", "cohort")
    assert not (inside / "rules-draft.yaml").exists()


def test_contours_on_two_series_are_told_apart(inside):
    patient(inside, "Tumor")
    about = {"series": "mr", "patient": "A"}
    write_series(inside / "dicom" / "A" / "mr", ramp(), modality="MR", description="T1", **about)
    other = write_rtstruct(inside / "dicom" / "A" / "MR.dcm", {"Tumor T1": BOXES}, **about)
    _, draft = refused(inside)
    assert "reference: CT  # the channel whose grid all others take; the RTSTRUCT drawn on it is imported" in draft
    assert [line.split("; ")[-1] for line in draft if "Tumor" in line] == ["drawn on CT 'HEAD'", "drawn on MR 'T1'"]
    for name in ("Tumor:", "Tumor T1:"):
        uncomment(inside, name)
    said = []
    cohort = import_dicom("dicom", "cohort", rules="rules-draft.yaml", report=said.append)
    assert list(cohort.structures) == ["Tumor"]
    taken = "one RTSTRUCT of each patient is taken, here dicom/A/RS.dcm; 'reference' in the rules decides which"
    assert f"{other.relative_to(inside)}: left out: {taken}" in said
