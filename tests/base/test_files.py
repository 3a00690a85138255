import pytest

from npcrepro.base.errors import InputError
from npcrepro.base.files import check_writable, write_text, writing, writing_folder


def test_a_file_is_replaced_or_left_as_it_was_and_the_old_one_is_there_meanwhile(tmp_path):
    path = tmp_path / "new" / "a.txt"
    write_text(path, "old\n")

    def write_half():
        with writing(path) as temporary:
            temporary.write_text("half")
            assert path.read_text() == "old\n"
            assert (temporary.parent, temporary.suffix) == (path.parent, ".txt")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_half()
    assert path.read_text() == "old\n"
    write_text(path, "new\n")
    assert path.read_text() == "new\n"
    assert [p.name for p in path.parent.iterdir()] == ["a.txt"]


def test_a_link_as_destination_leads_to_the_folder_that_is_written(tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "link").symlink_to("disk")
    with writing_folder(tmp_path / "link") as temporary:
        write_text(temporary / "a.txt", "x")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "disk" / "a.txt").read_text() == "x"


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
