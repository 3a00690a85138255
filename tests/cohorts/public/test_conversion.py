"""What all sets and conversions share."""

import json

import pytest
from public_sources import block, grid, refused, structseg

from npcrepro.base.errors import InputError
from npcrepro.cohorts import public
from npcrepro.cohorts.layout import read_cohort


@pytest.mark.parametrize("key", public.SETS)
def test_another_layout_is_refused(key, source):
    (source / "notes.txt").write_text("x")
    message = refused(source, key)
    assert public.find(key).layout in message
    assert message.endswith("it holds notes.txt")


def test_source_and_destination_are_looked_at_first(source, tmp_path):
    structseg(source, 1, block(grid(), 1))
    chosen = public.find("structseg2019")
    with pytest.raises(InputError, match="no such folder"):
        public.convert(chosen, tmp_path / "nowhere", tmp_path / "cohort")
    (tmp_path / "set.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match="unpack the archive first"):
        public.convert(chosen, tmp_path / "set.zip", tmp_path / "cohort")
    (tmp_path / "full").mkdir()
    (tmp_path / "full/mine.txt").write_text("x")
    with pytest.raises(InputError, match="exists and is not empty"):
        public.convert(chosen, source, tmp_path / "full")
    with pytest.raises(InputError, match="unknown variant of structseg2019 'target'; did you mean 'targets'"):
        public.convert(chosen, source, tmp_path / "cohort", "target")
    with pytest.raises(InputError, match=r"cannot write .*mine\.txt"):
        public.convert(chosen, source, tmp_path / "full/mine.txt/cohort")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "set.zip", "source"]


def test_what_may_be_published():
    allowed = {key for key, each in public.SETS.items() if each.publishable}
    assert allowed == {"npc-mri-277", "lnctvseg", "openkbp"}


def test_the_record_lies_beside_the_cohort(source, conversion):
    structseg(source, 1, block(grid((7, 12, 14)), 1))
    message = refused(source, "structseg2019")
    assert "no case of StructSeg 2019 that can be used; the first: structseg_01: HaN_OAR/1/label.nii.gz" in message
    structseg(source, 1, block(grid(), 1))
    done = conversion("structseg2019")
    assert read_cohort(source.parent / "cohort").licence == done.cohort.licence
    assert done.record == {"set": "structseg2019", "variant": "oars", "skipped": {}, "notes": {}}
    assert done.lines[-1] == "1 cases, none skipped, notes on 0: see conversion.json"
    names = {path.name for path in (source.parent / "cohort").iterdir()}
    assert names == {"conversion.json", "dataset.json", "imagesTr", "labelsTr"}


def test_list_names_every_set(call):
    status, out, _ = call("data", "list")
    assert status == 0
    lines = out.splitlines()
    for each in public.SETS.values():
        first = lines.index(f"{each.key}: {each.content}")
        assert ("images may appear" if each.publishable else "images may not appear") in lines[first + 1]
        assert lines[first + 2] == f"    access: {each.access}"
        name, variant = next(iter(each.variants.items()))
        assert lines[first + 3] == f"    variant {name}: {variant.meaning}"
    rows = json.loads(call("data", "list", "--json")[1])
    assert [row["key"] for row in rows] == list(public.SETS)
    assert (rows[0]["licence"], rows[0]["publishable"]) == ("CC BY 4.0", True)
    assert list(rows[0]["variants"]) == ["T1", "T2", "CET1", "CET1-alone"]
    assert rows[0]["downloads"][0]["url"].startswith("https://zenodo.org/records/13131827")
