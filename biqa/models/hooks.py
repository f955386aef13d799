"""What the files of a checkpoint may not ask for: code from elsewhere, weights from outside its folder, or JSON that ends the stack.

transformers is called with `trust_remote_code=False` and safetensors alone. This looks before it does: some hooks need no such consent (a name of a
kernel on the hub in the place of an attention implementation, CVE-2026-4372), and an `adapter_config.json` beside a model is applied unasked.
`auto_map`, which many published checkpoints have, names code for other programs, and is left unread.
"""

from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any

from biqa.config.reading import read_json
from biqa.errors import RunNotFound

LARGE = ("tokenizer.json", "vocab.json", "added_tokens.json")
"""Flat, large, and read by parsers with limits of their own."""
AN_ADAPTER = "adapter_config.json"
IMPLEMENTATIONS = ("attn_implementation", "experts_implementation")
"""Parts of names of settings whose value may be a kernel on the hub, "owner/kernel", whose code would be fetched and run."""
RUN_AS_CODE = ("custom_generate", "trust_remote_code")


def refuse_hooks(folder: Path) -> None:
    """Check the JSON files of a checkpoint before anything else reads them.

    Raises:
        RunNotFound: one cannot be read, asks for code, or names a file outside the folder; or an adapter lies beside the model.
    """
    if (folder / AN_ADAPTER).is_file():
        raise RunNotFound(
            f"{folder / AN_ADAPTER}: an adapter beside a model would be applied to it unasked. Give a folder that holds the base alone; weights that "
            f"biqa has tuned are used by stage.init_from=, perception= and run=."
        )
    for file in sorted(folder.glob("*.json")):
        if file.name in LARGE or not file.is_file():
            continue
        try:
            values = read_json(file)
        except (ValueError, OSError) as error:
            raise RunNotFound(f"{file}: no JSON object ({error}). Download the checkpoint again.") from error
        for name, value in _settings(values):
            if asked := _asks_for(name, value):
                raise RunNotFound(f"{file}: {name}={str(value)[:80]} {asked}. Take it out of the file, or choose another checkpoint.")
        if file.name.endswith(".index.json") and isinstance(values, dict):
            _refuse_elsewhere(file, values.get("weight_map"))


def _settings(values: Any) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 (whatever JSON holds)
    """Every name and value at any depth."""
    if isinstance(values, dict):
        for name, value in values.items():
            yield name, value
            yield from _settings(value)
    elif isinstance(values, list):
        for value in values:
            yield from _settings(value)


def _asks_for(name: str, value: object) -> str:
    if any(part in name for part in IMPLEMENTATIONS):
        texts = [value] if isinstance(value, str) else [*value.values()] if isinstance(value, dict) else []
        if (name.endswith("_internal") and texts) or any("/" in str(text) or ":" in str(text) for text in texts):
            return "names code to be fetched and run, which is never done"
    if name in RUN_AS_CODE and value:
        return "asks for code of its own to be run, which is never done"
    return ""


def _refuse_elsewhere(file: Path, named: object) -> None:
    for shard in named.values() if isinstance(named, dict) else ():
        if not isinstance(shard, str) or PureWindowsPath(shard).name != shard or shard in ("", ".", ".."):
            raise RunNotFound(f"{file}: its weights are to lie in {shard!r}, which is no file of that folder. Download the checkpoint again.")
