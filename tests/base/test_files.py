import pytest

from npcrepro.base.errors import InputError
from npcrepro.base.files import check_writable, write_text, writing


def test_a_file_is_replaced_or_left_as_it_was(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old\n")

    def fail_half_way():
        with writing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old\n"
    write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_file_that_cannot_be_written_is_an_error_in_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match=r"cannot write .*a.txt: ") as error:
        write_text(tmp_path / "file" / "a.txt", "x")
    assert "\n" not in str(error.value)


def test_a_folder_that_may_not_be_written_to_is_told_before_the_work(tmp_path, monkeypatch):
    check_writable(tmp_path / "new" / "folder")
    assert not (tmp_path / "new").exists()
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    with pytest.raises(InputError, match=f"^cannot write .*folder: {tmp_path} may not be written to$"):
        check_writable(tmp_path / "new" / "folder")
