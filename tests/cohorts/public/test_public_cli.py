"""``npcrepro data list``, ``fetch`` and ``convert``."""

import json

from public_sources import block, ct, grid, save

from npcrepro.cohorts import public
from npcrepro.cohorts.layout import read_cohort

pytest_plugins = ["core_fixtures"]


def test_list_names_every_set(call):
    status, out, _ = call("data", "list")
    assert status == 0
    lines = out.splitlines()
    for each in public.SETS.values():
        first = lines.index(f"{each.key}: {each.content}")
        assert ("images may appear" if each.publishable else "images may not appear") in lines[first + 1]
        assert lines[first + 2] == f"    access: {each.access}"
        assert lines[first + 3] == "    variant {}: {}".format(*next(iter(each.variants.items())))
    rows = json.loads(call("data", "list", "--json")[1])
    assert [row["key"] for row in rows] == list(public.SETS)
    assert (rows[0]["licence"], rows[0]["publishable"]) == ("CC BY 4.0", True)
    assert list(rows[0]["variants"]) == ["T1", "T2", "CET1", "CET1-alone"]
    assert rows[0]["downloads"][0]["url"].startswith("https://zenodo.org/records/13131827")


def test_convert_writes_a_cohort_of_a_variant(call, tmp_path):
    source, cohort = tmp_path / "HNTSMRG24_train", tmp_path / "cohort"
    save(ct(grid()), source / "2/preRT/2_preRT_T2.nii.gz")
    save(block(grid(), 2), source / "2/preRT/2_preRT_mask.nii.gz")
    status, out, err = call("data", "convert", "hnts-mrg-2024", source, cohort)
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"1 case in {cohort}; licence: CC BY-NC 4.0"
    assert not read_cohort(cohort).publishable
    assert call("data", "check", cohort)[0] == 0
    for variant, words in (("mid", "does not hold HNTSMRG24_train/<id>"), ("post", "choices: pre, mid")):
        status, _, err = call("data", "convert", "hnts-mrg-2024", source, tmp_path / "new", "--variant", variant)
        assert (status, err.count("\n")) == (1, 1)
        assert words in err
