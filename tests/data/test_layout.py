"""Names of label files to files on disk: any case, any form of accents, never outside; and the folder of a release."""

import unicodedata
from pathlib import Path

import pytest

from biqa.data.layout import Folder, find_folder
from biqa.errors import BadRecord, DatasetNotFound


def lay(root: Path, *names: str) -> Path:
    """Empty files under a folder."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.mark.parametrize("asked", ["images/I01.BMP", "IMAGES/i01.bmp", "Images/I01.bmp", "images\\i01.bmp", "images/./i01.bmp", "images//i01.bmp"])
def test_files_and_folders_are_found_in_any_case_and_with_either_slash(tmp_path: Path, asked: str) -> None:
    lay(tmp_path, "Images/i01.BMP", "Images/i02.BMP")
    assert Folder(tmp_path).find(asked) == tmp_path / "Images" / "i01.BMP"


def test_the_exact_name_wins(tmp_path: Path) -> None:
    folder = Folder(lay(tmp_path, "A.bmp", "a.bmp", "a.BMP"))
    assert [folder.find(name) for name in ("A.bmp", "a.bmp", "a.BMP")] == [tmp_path / "A.bmp", tmp_path / "a.bmp", tmp_path / "a.BMP"]


@pytest.mark.parametrize(
    "name", ["Köln.jpg", "é à ü.jpg", "한국.jpg", "ss01 (1).jpg", " two  spaces .jpg", "日本 語.jpg", "100%#&;'.jpg", "12:30.jpg"]
)
@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("asked", ["NFC", "NFD"])
def test_accents_spaces_and_scripts(tmp_path: Path, name: str, on_disk: str, asked: str) -> None:
    file = tmp_path / unicodedata.normalize(on_disk, name)
    lay(tmp_path, file.name)
    assert Folder(tmp_path).find(unicodedata.normalize(asked, name)) == file
    assert Folder(tmp_path).find(unicodedata.normalize(asked, name).upper()) == file


def test_what_is_not_there_is_none_or_the_place_where_it_should_be(tmp_path: Path) -> None:
    folder = Folder(lay(tmp_path, "a/b.png"))
    assert folder.find("a/c.png") is None
    assert folder.find("c/b.png") is None
    assert folder.find("a/b.png/c.png") is None  # a file is not a folder
    assert folder.expect("a/c.png") == tmp_path / "a" / "c.png"
    assert folder.expect("A/B.PNG") == tmp_path / "a" / "b.png"


@pytest.mark.parametrize(
    "name",
    [
        "/etc/passwd",
        "//etc/passwd",
        "..",
        "../x.png",
        "a/../../x.png",
        "a/..",
        "..\\x.png",
        "\\x.png",
        "\\\\host\\share\\x.png",
        "C:\\x.png",
        "c:/x.png",
        "C:x.png",
    ],
)
def test_names_that_lead_out_are_refused(tmp_path: Path, name: str) -> None:
    folder = Folder(lay(tmp_path / "root", "a/x.png"))
    lay(tmp_path, "x.png")
    with pytest.raises(BadRecord) as error:
        folder.find(name, "labels.csv, row 7")
    assert str(error.value) == (
        f'labels.csv, row 7: "{name}" leads out of {tmp_path / "root"}. Names must be relative to that folder. Correct the row.'
    )


@pytest.mark.parametrize("name", ["", ".", "./"])
def test_an_empty_name_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadRecord, match=r"^labels\.csv, row 7: there is an empty name\. Correct the row, or take it out\.$"):
        Folder(tmp_path).find(name, "labels.csv, row 7")


def test_links_out_of_the_folder_are_refused(tmp_path: Path) -> None:
    root = lay(tmp_path / "root", "images/a.png")
    lay(tmp_path, "outside/b.png", "root2/b.png")  # root2 begins like root, and is another folder
    (root / "images" / "b.png").symlink_to("../../outside/b.png")
    (root / "more").symlink_to(tmp_path / "outside")
    (root / "alike").symlink_to("../root2")
    (root / "gone.png").symlink_to(tmp_path / "nowhere.png")
    folder = Folder(root)
    for name, link, target in (
        ("images/b.png", "images/b.png", "outside/b.png"),
        ("more/b.png", "more", "outside"),
        ("more", "more", "outside"),
        ("alike/b.png", "alike", "root2"),
        ("gone.png", "gone.png", "nowhere.png"),
    ):
        with pytest.raises(BadRecord) as error:
            folder.find(name)
        assert str(error.value) == (
            f"{root / link}: this link leads out of {root}, to {tmp_path / target}. Put the files there themselves, or, where the whole data set "
            f"is linked, set data.root= to {tmp_path / target}."
        )
    assert folder.find("images/a.png") == root / "images" / "a.png"


def test_a_link_to_a_link_out_is_refused(tmp_path: Path) -> None:
    root = lay(tmp_path / "root", "a.png")
    lay(tmp_path, "b.png")
    (root / "second").symlink_to(tmp_path / "b.png")
    (root / "first").symlink_to(root / "second")
    with pytest.raises(BadRecord, match="first: this link leads out"):
        Folder(root).find("first")


def test_links_within_the_folder_and_a_root_that_is_a_link_are_fine(tmp_path: Path) -> None:
    root = lay(tmp_path / "real", "images/a.png")
    (root / "same").symlink_to("images")
    (root / "images" / "b.png").symlink_to("a.png")
    (root / "broken").symlink_to("nothing")
    (root / "circle").symlink_to("circle")
    (tmp_path / "link").symlink_to("real")
    folder = Folder(tmp_path / "link")
    assert folder.find("Same/B.png") == tmp_path / "link" / "same" / "b.png"
    assert folder.find("images/a.png") == tmp_path / "link" / "images" / "a.png"
    for name in ("broken", "circle"):
        assert not folder.expect(name).is_file()
    assert folder.find("circle/a.png") is None


RELEASE = {"title": "Some Set", "layout": "SomeSet/\n  Images/*.bmp\n  labels.txt", "source": "https://example.org/some"}


def find(root: Path) -> Folder:
    return find_folder(root, ["SomeSet", "some/Dataset"], ["Images", "labels.txt"], **RELEASE)


@pytest.mark.parametrize("within", ["", "SomeSet", "someset", "Some/dataset"])
def test_the_folder_itself_or_the_one_that_holds_it(tmp_path: Path, within: str) -> None:
    lay(tmp_path / within, "images/1.bmp", "Labels.TXT")
    assert find(tmp_path).path.samefile(tmp_path / within)
    assert find(tmp_path).find("IMAGES/1.bmp") is not None


def test_the_folder_itself_comes_first(tmp_path: Path) -> None:
    lay(tmp_path, "Images/1.bmp", "labels.txt", "SomeSet/Images/1.bmp", "SomeSet/labels.txt")
    assert find(tmp_path).path == tmp_path


def test_a_release_may_be_reached_through_a_link(tmp_path: Path) -> None:
    lay(tmp_path / "disk", "Images/1.bmp", "labels.txt")
    (tmp_path / "link").symlink_to("disk")
    assert find(tmp_path / "link").path == tmp_path / "link"
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "SomeSet").symlink_to(tmp_path / "disk")
    with pytest.raises(
        BadRecord,
        match=rf"SomeSet: this link leads out of .*sets, to .*disk.*, where the whole data set is linked, set data\.root= to {tmp_path}/disk\.$",
    ):
        find(tmp_path / "sets")


def message(root: Path) -> str:
    with pytest.raises(DatasetNotFound) as error:
        find(root)
    return str(error.value)


ADVICE = "Set data.root= to the unpacked folder, or datasets= to the one that holds it. It looks like this:\nSomeSet/\n  Images/*.bmp\n  labels.txt\nSource: https://example.org/some"


def test_no_such_folder(tmp_path: Path) -> None:
    assert message(tmp_path / "nowhere") == f"{tmp_path}/nowhere: Some Set is not there (there is no such folder). {ADVICE}"
    (tmp_path / "dangling").symlink_to("nowhere")
    assert message(tmp_path / "dangling") == f"{tmp_path}/dangling: Some Set is not there (there is no such folder). {ADVICE}"


def test_what_is_missing_is_named_and_where(tmp_path: Path) -> None:
    assert message(tmp_path) == f"{tmp_path}: Some Set is not there (Images, labels.txt is missing). {ADVICE}"
    (tmp_path / "SomeSet").mkdir()
    assert message(tmp_path) == f"{tmp_path}: Some Set is not there (Images, labels.txt is missing in {tmp_path}/SomeSet). {ADVICE}"
    lay(tmp_path, "labels.txt")
    assert message(tmp_path) == f"{tmp_path}: Some Set is not there (Images is missing). {ADVICE}"
    lay(tmp_path, "SomeSet/Images/1.bmp")
    assert message(tmp_path) == f"{tmp_path}: Some Set is not there (labels.txt is missing in {tmp_path}/SomeSet). {ADVICE}"


@pytest.mark.parametrize(
    ("name", "command"),
    [("some.zip", "unzip"), ("Some.ZIP", "unzip"), ("tid2013.rar", "unrar x"), ("a.7z", "7z x"), ("a.tar.gz", "tar xf"), ("a.tgz", "tar xf")],
)
def test_an_archive_is_answered_with_how_to_unpack_it(tmp_path: Path, name: str, command: str) -> None:
    lay(tmp_path, name)
    assert message(tmp_path / name) == (
        f"{tmp_path / name}: this is a file. Some Set is read from its unpacked folder. Unpack it ({command} {name}) and set data.root= to the folder."
    )


def test_another_file_is_no_release(tmp_path: Path) -> None:
    lay(tmp_path, "labels.txt")
    assert message(tmp_path / "labels.txt") == (
        f"{tmp_path}/labels.txt: this is a file. Some Set is read from its unpacked folder. Set data.root= to the folder of the release."
    )
