import pytest
from dicom_cases import ramp, write_series

from npcrepro.base.errors import InputError
from npcrepro.cohorts.dicom import find_series
from npcrepro.cohorts.dicom.rules import default_rules, read_rules


@pytest.mark.parametrize(
    ("description", "channel"),
    [
        ("T1 tse tra", "T1"),
        ("T2 FLAIR", None),
        ("T1+C", "CET1"),
        ("t1_tse_tra_gd", "CET1"),
        ("THRIVE", "CET1"),
        ("T1 non-contrast", "T1"),
    ],
)
def test_channels_by_description(tmp_path, description, channel):
    write_series(tmp_path, ramp((1, 2, 2)), modality="MR", description=description)
    (series,) = find_series(tmp_path)
    assert default_rules().channel_of(series) == channel


@pytest.mark.parametrize(
    ("name", "structure"),
    [
        *(("GTVp", "GTVp"), ("gtv_t", "GTVp"), ("GTVnx", "GTVp"), ("GTV-Primary", "GTVp"), ("GTV", "GTVp")),
        *(("GTVnd", "GTVnd"), ("GTVn_L", "GTVnd"), ("GTVn2", "GTVnd"), ("GTV_Nodal", "GTVnd"), ("CTVn_L", "CTVnd")),
        *(("CTV1", "CTV1"), ("CTV_p2", "CTV2"), ("Brainstem", "BrainStem"), ("Brain Stem", "BrainStem")),
        *(("Brain", "Brain"), ("SpinalCord", "SpinalCord")),
        *(("Parotid_L", "Parotid_L"), ("Lt. parotid", "Parotid_L"), ("Right Parotid Gland", "Parotid_R")),
        *(("Glnd_Submand_R", "Submandibular_R"), ("OpticNrv_L", "OpticNerve_L"), ("L optic nerve", "OpticNerve_L")),
        *(("Bone_Mandible", "Mandible"), ("Lobe_Temporal_L", "TemporalLobe_L"), ("OpticChiasm", "OpticChiasm")),
        *(("Lens_R", "Lens_R"), ("Eye_L", "Eye_L"), ("Joint_TM_R", "TMjoint_R"), ("Chiasma", "OpticChiasm")),
        *(("Cochlea_R", "Cochlea_R"), ("Inner Ear L", "InnerEar_L")),
        *(("Rückenmark", "SpinalCord"), ("Ru\u0308ckenmark", "SpinalCord"), ("RUECKENMARK", "SpinalCord")),
        *(("Parotis links", "Parotid_L"), ("parotide droite", "Parotid_R"), ("Hirnstamm", "BrainStem")),
        *(("SpinalCord_PRV", None), ("GTVp_old", None), ("PTV70", None), ("Parotids", None), ("Brainstem_03", None)),
    ],
)
def test_structures_by_name(name, structure):
    assert default_rules().structure_of(name) == structure


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ("chanels: {}", "a typing slip for 'channels'"),
        ("channels: {CT: CT}", "looks like .modality"),
        ("channels: {CT: {modality: 3}}", "is not text"),
        ("structures: {GTVp: 'gtv('}", "not a regular expression"),
        ("reference: PET", "is not one of the channels CT, CET1, T1, T2"),
        ("a: [", "not a YAML file"),
        ("structures: {GTVp: a, GTVp: b}", "names 'GTVp' a second time: write one line for both"),
        ("structures:\n  [GTV]: gtv", "line 2 has a list in place of a name"),
        ("channels:\n# CT: {modality: CT}\n", "no line below channels"),
    ],
)
def test_rules_that_cannot_be_used(tmp_path, rules, words):
    path = tmp_path / "rules.yaml"
    path.write_text(rules)
    with pytest.raises(InputError, match=words) as caught:
        read_rules(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
