"""Which pictures a command line names."""

import os

import pytest

from biqa.data.pictures import ENDINGS, pictures_named
from biqa.errors import IncompatibleChoice


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with pictures (as far as names go) and what is none."""
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", "sub/deeper/a.JPG", ".cache/d.png", "none/readme.md", "odd[1].png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(
    ("given", "found"),
    [
        (["b.png"], ["b.png"]),
        (["notes.txt", ".hidden.png"], ["notes.txt", ".hidden.png"]),  # named one by one: whoever names it means it
        (["."], ["./a.JPG", "./b.png", "./odd[1].png", "./sub/c.webp", "./sub/deeper/a.JPG"]),
        (["sub/"], ["sub/c.webp", "sub/deeper/a.JPG"]),
        (["*"], ["a.JPG", "b.png", "odd[1].png", "sub/c.webp", "sub/deeper/a.JPG"]),
        (["su?"], ["sub/c.webp", "sub/deeper/a.JPG"]),
        (["*.png"], ["b.png", "odd[1].png"]),
        (["odd[1].png"], ["odd[1].png"]),
        (["[ab].*"], ["a.JPG", "b.png"]),
        (["**/a.JPG"], ["a.JPG", "sub/deeper/a.JPG"]),
        (["sub/c.webp", "sub", "./sub/c.webp", "b.png"], ["sub/c.webp", "sub/deeper/a.JPG", "b.png"]),
    ],
)
def test_files_folders_and_patterns(here, given, found):
    pictures = pictures_named(given)
    assert (pictures.paths, pictures.closed) == (found, {})


def test_the_same_name_in_two_folders_is_two_pictures(here):
    assert pictures_named(["a.JPG", "sub/deeper/a.JPG"]).paths == ["a.JPG", "sub/deeper/a.JPG"]


def test_folders_come_in_the_order_of_their_names(tmp_path):
    for number in (5, 2, 7, 0, 3, 6, 1, 4):
        (tmp_path / str(number)).mkdir()
        (tmp_path / str(number) / "a.png").touch()
    assert pictures_named([str(tmp_path)]).paths == [f"{tmp_path}/{number}/a.png" for number in range(8)]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], r"^No picture is named\. Name files, folders or patterns: python -m biqa\.predict run=FOLDER photo\.jpg"),
        (["gone.jpg"], r"^gone\.jpg: there is no such file or folder\. An option is written NAME=VALUE\.$"),
        (["b.png", "none"], r"^none: no picture lies in this folder or below it \(looked for \.bmp .*\.webp\)\.$"),
        (["*.gif"], r"^\*\.gif: no picture fits this pattern"),
        ([f"{number}.png" for number in range(9)], r"^0\.png: .*\n1\.png: .*\n2\.png: .*\n3\.png: .*\nand 5 more$"),
    ],
)
def test_what_leads_nowhere_is_told(here, given, said):
    with pytest.raises(IncompatibleChoice, match=said):
        pictures_named(given)


def test_what_cannot_be_opened_is_handed_on(here, monkeypatch):
    os.mkfifo("pipe.png")
    os.symlink("gone", "broken.png")
    assert pictures_named(["pipe.png", "broken.png"]).closed == dict.fromkeys(
        ("pipe.png", "broken.png"), "no file that holds a picture (a broken link, a device or a pipe)"
    )
    assert "./pipe.png" not in pictures_named(["."]).paths
    walk = os.walk

    def refusing(top, onerror):
        for path, folders, files in walk(top):
            if path.endswith("sub"):
                onerror(PermissionError(13, "Permission denied", path))
                folders[:] = []
            else:
                yield path, folders, files

    monkeypatch.setattr(os, "walk", refusing)
    found = pictures_named(["."])
    assert found.paths == ["./a.JPG", "./b.png", "./odd[1].png"]
    assert found.closed == {"./sub": "the folder cannot be read (Permission denied)"}


def test_endings_are_of_formats_that_are_read():
    from PIL import Image

    from biqa.data.images import FORMATS

    Image.init()
    assert {Image.EXTENSION[ending] for ending in ENDINGS} == set(FORMATS)
