"""Where a checkpoint is found."""

import pytest
from huggingface_hub import constants

from biqa.errors import RunNotFound
from biqa.models.hub import checkpoint_folder, revision_of

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cached(tmp_path, monkeypatch):
    """The hub's cache with one file of some/model in it, no network."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub._snapshot_download.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    place = tmp_path / "models--some--model"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text(COMMIT)
    (place / "snapshots" / COMMIT).mkdir(parents=True)
    (place / "snapshots" / COMMIT / "config.json").write_text("{}")
    return place / "snapshots" / COMMIT


def test_a_folder_is_itself(tmp_path):
    assert checkpoint_folder(str(tmp_path), "model.id") == tmp_path
    assert revision_of(tmp_path) is None


@pytest.mark.parametrize("revision", [None, "main", COMMIT])
def test_a_name_in_the_cache_needs_no_network(cached, revision):
    assert checkpoint_folder("some/model", "model.id", revision=revision) == cached
    assert revision_of(cached) == COMMIT


def test_another_revision_is_not_in_the_cache(cached):
    message = (
        r"model\.id=some/model: there is no such folder, it is not in the cache .*hf download some/model --revision v9; then copy that cache here"
    )
    with pytest.raises(RunNotFound, match=message):
        checkpoint_folder("some/model", "model.id", revision="v9")


@pytest.mark.parametrize("name", ["a/b/c", "../elsewhere", "no such place", "/no/such/folder"])
def test_neither_a_folder_nor_a_name(cached, name):
    with pytest.raises(RunNotFound, match=r"model\.id=.*: there is no such folder, and it is no name on the hub, such as org/model\."):
        checkpoint_folder(name, "model.id")
