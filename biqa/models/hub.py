"""Where a checkpoint is: a folder, or a name on the hub."""

from pathlib import Path

from biqa.errors import RunNotFound
from biqa.models.hooks import refuse_hooks

FILES = ("*.json", "*.jinja", "*.model", "*.txt", "*.safetensors")
"""What is fetched of a checkpoint on the hub: no code."""


def checkpoint_folder(path: str, option: str, files: tuple[str, ...] = FILES, revision: str | None = None) -> Path:
    """The folder of a checkpoint, whose files ask for no code; one on the hub is downloaded first, without any code that lies beside it.

    Args:
        path: a folder, or a name on the hub.
        option: what names it, for the message.
        files: patterns of the files that are needed.
        revision: branch, tag or commit on the hub; None: the newest.

    Raises:
        RunNotFound: there is neither a folder nor a name on the hub, or the hub cannot be reached; or a file asks for what it may not.
    """
    folder = _found(path, option, files, revision)
    refuse_hooks(folder)
    return folder


def _found(path: str, option: str, files: tuple[str, ...], revision: str | None) -> Path:
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(path, revision=revision, allow_patterns=list(files)))
    except HFValidationError as error:
        raise RunNotFound(f"{option}={path}: there is no such folder, and it is no name on the hub, such as org/model.") from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        at = f" --revision {revision}" if revision else ""
        raise RunNotFound(
            f"{option}={path}: there is no such folder, it is not in the cache {constants.HF_HUB_CACHE}, and the hub has it not or cannot be reached "
            f"({str(error).splitlines()[0]}). On a machine with a network: hf download {path}{at}; then copy that cache here (HF_HOME says where), "
            f"or name the downloaded folder."
        ) from error


def revision_of(folder: Path) -> str | None:
    """The commit of a checkpoint from the hub's cache, whose folders are called after it; None for any other folder."""
    return folder.name if folder.parent.name == "snapshots" else None
