"""``npcrepro data list``, ``fetch`` and ``convert``."""

import json
import subprocess
import sys

import pytest
from public_sources import block, ct, grid, save

from npcrepro.cohorts import public
from npcrepro.cohorts.layout import read_cohort

pytest_plugins = ["core_fixtures"]


@pytest.fixture
def source(tmp_path):
    folder = tmp_path / "HNTSMRG24_train/2/preRT"
    save(ct(grid()), folder / "2_preRT_T2.nii.gz")
    save(block(grid(), 2), folder / "2_preRT_mask.nii.gz")
    return tmp_path / "HNTSMRG24_train"


def test_list_names_every_set(call):
    status, out, _ = call("data", "list")
    assert status == 0
    lines = out.splitlines()
    for each in public.SETS.values():
        first = lines.index(f"{each.key}: {each.content}")
        assert ("images may appear" if each.publishable else "images may not appear") in lines[first + 1]
        assert lines[first + 2] == f"    access: {each.access}"
        assert lines[first + 3] == "    variant {}: {}".format(*next(iter(each.variants.items())))


def test_list_as_json_holds_all_that_is_known(call):
    rows = json.loads(call("data", "list", "--json")[1])
    assert [row["key"] for row in rows] == list(public.SETS)
    npc = rows[0]
    assert npc["licence"] == "CC BY 4.0"
    assert npc["publishable"] is True
    assert list(npc["variants"]) == ["T1", "T2", "CET1"]
    assert npc["downloads"][0]["url"].startswith("https://zenodo.org/records/13131827")


def test_list_loads_nothing_slow():
    code = "from npcrepro.cohorts import public; import sys; print('SimpleITK' in sys.modules, 'pandas' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_convert_writes_a_cohort(call, source, tmp_path):
    status, out, err = call("data", "convert", "hnts-mrg-2024", source, tmp_path / "cohort")
    assert (status, err) == (0, "")
    assert out.splitlines()[-1] == f"1 case in {tmp_path / 'cohort'}; licence: CC BY-NC 4.0"
    assert not read_cohort(tmp_path / "cohort").publishable
    assert call("data", "check", tmp_path / "cohort")[0] == 0


def test_convert_takes_a_variant(call, source, tmp_path):
    status, _, err = call("data", "convert", "hnts-mrg-2024", source, tmp_path / "cohort", "--variant", "mid")
    assert status == 1
    assert "does not hold HNTSMRG24_train/<id>" in err
    status, _, err = call("data", "convert", "hnts-mrg-2024", source, tmp_path / "cohort", "--variant", "post")
    assert (status, err.count("\n")) == (1, 1)
    assert "choices: pre, mid" in err


def test_fetch_says_where_to_ask(call, tmp_path):
    status, _, err = call("data", "fetch", "segrap2023", tmp_path / "new")
    assert (status, err.count("\n")) == (1, 1)
    assert "segrap2023.grand-challenge.org" in err


def test_unknown_set_names_the_near_miss(call, tmp_path):
    status, _, err = call("data", "fetch", "hanseg", tmp_path / "new")
    assert status == 1
    assert "did you mean 'han-seg'?" in err
