import numpy as np
import pytest

from npcrepro.sampling import store as store_module
from npcrepro.sampling.store import Store

CODE = "npcrepro.sampling.slices:SliceData"


def made(*names):
    return lambda: {name: np.arange(6).reshape(2, 3) + number for number, name in enumerate(names)}


def test_arrays_that_are_made_together_are_made_once_and_memory_mapped(tmp_path):
    first = Store(tmp_path, CODE, [1]).get("A", "image", made("image", "label"))
    again = Store(tmp_path, CODE, [1])
    assert np.array_equal(again.get("A", "image", pytest.fail), first)
    assert np.array_equal(again.get("A", "label", pytest.fail), np.arange(6).reshape(2, 3) + 1)
    assert isinstance(first, np.memmap)
    assert not first.flags.writeable
    assert sorted(path.name for path in again.folder.iterdir()) == ["A.image.npy", "A.label.npy"]


def test_arrays_of_other_code_or_other_options_are_never_read(tmp_path, monkeypatch):
    folder = Store(tmp_path, CODE, {"matrix": (8, 8)}).folder
    assert Store(tmp_path, CODE, {"matrix": [8, 8]}).folder == folder
    assert Store(tmp_path, CODE, {"matrix": (8, 9)}).folder != folder
    monkeypatch.setattr(store_module, "code_sha256", lambda roots: "0" * 64)
    assert Store(tmp_path, CODE, {"matrix": (8, 8)}).folder != folder


def test_what_was_interrupted_is_made_again(tmp_path, monkeypatch):
    save = np.save

    def interrupted(path, array):
        save(path, array)
        if ".label." in path.name:
            raise KeyboardInterrupt

    store = Store(tmp_path, CODE, [])
    monkeypatch.setattr(store_module.np, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        store.get("A", "label", made("image", "label"))
    monkeypatch.undo()
    assert [path.name for path in store.folder.iterdir()] == ["A.image.npy"]
    assert store.get("A", "label", made("image", "label")).sum() == 15 + 6
