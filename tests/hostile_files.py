"""Hostile files: writers of each, by name."""

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from hostile import SECRET, Runs, command, pickles
from omegaconf import OmegaConf
from PIL import Image
from scipy.io import savemat

Plant = Callable[[Path], object]
"""Makes something hostile of a folder; payloads leave their canary in the folder above its parent."""

SCRIPT = '<script>alert(1)</script><img src=x onerror="alert(2)">'


def options(**changes: Any) -> Plant:
    """Options of a run's config.yaml that are replaced: `model__id` is model.id."""

    def plant(run: Path) -> None:
        config = OmegaConf.to_container(OmegaConf.load(run / "config.yaml"))
        assert isinstance(config, dict)
        for name, value in changes.items():
            *groups, last = name.split("__") if not name.endswith("_target_") else [*name.removesuffix("_target_").split("__")[:1], "_target_"]
            place: Any = config
            for group in groups:
                place = place[group]
            place[last] = _made(value, run)
        (run / "config.yaml").write_text(json.dumps(config))

    return plant


def _made(value: Any, run: Path) -> Any:
    if callable(value):
        return value(run)
    return {name: _made(inner, run) for name, inner in value.items()} if isinstance(value, dict) else value


def text(name: str, content: str | Callable[[Path], str]) -> Plant:
    """A file of a run that is replaced."""
    return lambda run: (run / name).write_text(content if isinstance(content, str) else content(run))


def figures(change: Callable[[dict[str, Any]], Any]) -> Plant:
    """A result.json that is changed."""

    def plant(run: Path) -> None:
        result = json.loads((run / "result.json").read_text())
        change(result)
        (run / "result.json").write_text(json.dumps(result))

    return plant


def leave(run: Path) -> str:
    """The command of the canary of a planted run."""
    return command(run.parents[1])


ALIASES = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
STAGE = "stage: {_target_: biqa.stages.joint.Joint}\n"


def _renamed(result: dict[str, Any], name: str) -> None:
    for part in ("metrics", "data"):
        result[part] = {name: result[part].pop("synthetic")}


RUNS: dict[str, Plant] = {
    "a target of the system": options(model_target_="os.system"),
    "an alias of the system": options(stage_target_="biqa.running.building.os.system"),
    "an alias within lightning": options(data_target_="lightning.pytorch.loggers.csv_logs.os.system"),
    "an alias of a logger": options(descriptions_target_="logging.os.system"),
    "a door as a target": options(data={"_target_": "biqa.predict.main", "arguments": ["out=x"]}),
    "a writer as a target": options(model={"_target_": "biqa.reporting.result.write_json", "values": {}, "path": "canary"}),
    "a target in a target": options(model__hidden={"_target_": "os.system", "command": leave}),
    "partial": options(model={"_target_": "os.system", "_partial_": True, "command": leave}),
    "recursive": options(stage={"_target_": "biqa.stages.joint.Joint", "_recursive_": True, "target": {"_target_": "os.system", "command": leave}}),
    "args": options(data={"_target_": "subprocess.run", "_args_": [["touch", "canary"]]}),
    "the environment in a name": options(name="${oc.env:BIQA_SECRET}"),
    "the environment in a model": options(model__grid="${oc.env:BIQA_SECRET}"),
    "the environment in a folder": options(data__root="/${oc.env:BIQA_SECRET}"),
    "the environment decoded": options(descriptions__seed="${oc.decode:${oc.env:BIQA_SECRET}}"),
    "a resolver that makes": options(stage__epochs="${oc.create:{_target_: os.system}}"),
    "a resolver of Hydra": options(runs="${hydra:runtime.cwd}"),
    "a Python object": text("config.yaml", lambda run: f"{STAGE}x: !!python/object/apply:os.system ['{leave(run)}']\n"),
    "a Python name": text("config.yaml", f"{STAGE}x: !!python/name:os.system\n"),
    "an object of its own": text("config.yaml", f"{STAGE}x: !evil {{}}\n"),
    "aliases of aliases": text("config.yaml", ALIASES + STAGE),
    "a hundred thousand brackets in YAML": text("config.yaml", "[" * 100_000),
    "a million brackets in YAML": text("config.yaml", "[" * 1_000_000),
    "a hundred thousand brackets in JSON": text("result.json", "[" * 100_000),
    "nine hundred mappings": text("result.json", '{"a":' * 900 + "1" + "}" * 900),
    "a number of ten thousand digits": text("result.json", '{"schema":' + "9" * 10_000 + "}"),
    "no text at all": lambda run: (run / "config.yaml").write_bytes(b"\xff\xfe\x00\x01" * 50),
    "a result of other types": figures(lambda result: result.update(metrics=[1], run=[])),
    "figures that are none": figures(lambda result: result.update(metrics={"synthetic": {"srcc": 3}})),
    "choices that are none": figures(lambda result: result.update(run={name: {"a": 1} for name in result["run"]})),
    "a data set outside": figures(lambda result: _renamed(result, "../../../../../../etc/passwd")),
    "a script as a name": figures(lambda result: result["run"].update(name=SCRIPT, model=SCRIPT)),
    "a script as a data set": figures(lambda result: _renamed(result, "<script>alert(1)<script>")),
    "a link as the config": lambda run: ((run / "config.yaml").unlink(), (run / "config.yaml").symlink_to("/etc/passwd")),
    "a link as the answers": lambda run: _link(run / "answers" / "synthetic.parquet", Path("/etc/passwd")),
    "a device as the answers": lambda run: _link(run / "answers" / "synthetic.parquet", Path("/dev/zero")),
    "answers of a pickle": lambda run: (run / "answers" / "synthetic.parquet").write_bytes(pickles(run.parents[1])["os.system"]),
    "answers that unpack": lambda run: _repeated(run / "answers" / "synthetic.parquet"),
    "answers of a pickled type": lambda run: _pickled_type(run / "answers" / "synthetic.parquet", run.parents[1]),
    "a script as an answer": lambda run: _said(run / "answers" / "synthetic.parquet", SCRIPT),
    "weights of a pickle": lambda run: (run / "model" / "model.safetensors").write_bytes(pickles(run.parents[1])["os.system"]),
    "weights of torch": lambda run: torch.save({"w": Runs(eval, f"__import__('os').system('{leave(run)}')")}, run / "model" / "model.safetensors"),
    "weights with a huge header": lambda run: (run / "model" / "model.safetensors").write_bytes(struct.pack("<Q", 2**62) + b"{}"),
    "weights that lead outside": lambda run: _link(run / "model" / "model.safetensors", Path("/etc/passwd")),
}  # fmt: skip
"""Of a finished run, over every door that opens one."""


def _link(place: Path, to: Path) -> None:
    place.unlink()
    place.symlink_to(to)


def _repeated(file: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    row = pa.Table.from_pandas(pd.read_parquet(file).iloc[:1]).replace_schema_metadata(None)
    rows = row.take(pa.array(np.zeros(40_000, np.int64)))
    place = rows.schema.get_field_index("description")
    long = pa.DictionaryArray.from_arrays(pa.array(np.zeros(40_000, np.int32)), pa.array(["x" * 100_000]))
    pq.write_table(rows.set_column(place, "description", long), file, store_schema=False)


def _pickled_type(file: Path, folder: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    metadata = {b"ARROW:extension:name": b"arrow.py_extension_type", b"ARROW:extension:metadata": pickles(folder)["os.system"]}
    table = pa.Table.from_pandas(pd.read_parquet(file))
    place = table.schema.get_field_index("score")
    pq.write_table(table.set_column(place, table.schema.field(place).with_metadata(metadata), table.column(place)), file)


def _said(file: Path, words: str) -> None:
    pd.read_parquet(file).assign(description=words).to_parquet(file, index=False)


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(extra: bytes = b"", *, header: bytes | None = None, pixels: bytes = b"\0\0") -> bytes:
    """A PNG of one pixel, with further chunks or another header."""
    header = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0) if header is None else header
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + extra + _chunk(b"IDAT", zlib.compress(pixels)) + _chunk(b"IEND", b"")


def pictures(folder: Path) -> dict[str, Plant]:
    """Name -> writer of a file of that name; payloads leave their canary in `folder`."""
    zeros = zlib.compress(b"\0" * 200_000_000, 9)
    wide = struct.pack(">IIBBBBB", 2**31 - 1, 2**31 - 1, 8, 2, 0, 0, 0)
    script = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%{command(folder)}) (w) file\n".encode()
    tags = struct.pack("<HHII", 256, 4, 1, 2**31) + struct.pack("<HHII", 257, 4, 1, 2**31) + struct.pack("<HHII", 273, 4, 1, 8)
    return {
        "zTXt bomb.png": lambda file: file.write_bytes(png(_chunk(b"zTXt", b"k\0\0" + zeros))),
        "iCCP bomb.png": lambda file: file.write_bytes(png(_chunk(b"iCCP", b"k\0\0" + zeros))),
        "iTXt bomb.png": lambda file: file.write_bytes(png(_chunk(b"iTXt", b"k\0\1\0\0\0" + zeros))),
        "2e9 x 2e9.png": lambda file: file.write_bytes(png(header=wide)),
        "too many rows.png": lambda file: file.write_bytes(png(pixels=b"\0" * 50_000_000)),
        "2e9 x 2e9.tif": lambda file: file.write_bytes(b"II*\0\x08\0\0\0" + struct.pack("<H", 3) + tags + b"\0\0\0\0"),
        "a directory that is its own next.tif": lambda file: file.write_bytes(b"II*\0\x08\0\0\0\0\0\x08\0\0\0"),
        "65500 x 65500.jpg": lambda file: file.write_bytes(b"\xff\xd8\xff\xc0\0\x11\x08\xff\xdc\xff\xdc\3\1\x11\0\2\x11\1\3\x11\1\xff\xd9"),
        "EPS.png": lambda file: file.write_bytes(script),
        "EPS.jpg": lambda file: file.write_bytes(script),
        "PDF.png": lambda file: file.write_bytes(b"%PDF-1.4\n1 0 obj<</Type/Catalog/OpenAction<</S/JavaScript/JS(app.alert(1))>>>>endobj"),
        "SVG.png": lambda file: file.write_text("<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>"),
        "FITS.png": lambda file: file.write_bytes(b"SIMPLE  =                    T".ljust(2880)),
        "a pickle.png": lambda file: file.write_bytes(pickles(folder)["os.system"]),
        "gzip.png": lambda file: file.write_bytes(gzip.compress(b"\0" * 50_000_000)),
        "a device.png": lambda file: file.symlink_to("/dev/zero"),
        "a password.png": lambda file: file.symlink_to("/etc/passwd"),
        "itself.png": lambda file: file.symlink_to(file.name),
        '"><script>alert(1)<script>.png': lambda file: Image.new("RGB", (40, 40)).save(file, "png"),
        '" onerror="alert(1).png': lambda file: Image.new("RGB", (40, 40)).save(file, "png"),
        "=cmd|' calc'!A0.png": lambda file: Image.new("RGB", (40, 40)).save(file, "png"),
        "javascript:alert(1).png": lambda file: Image.new("RGB", (40, 40)).save(file, "png"),
        "\x1b]0;title\x07\x1b[2J.png": lambda file: Image.new("RGB", (40, 40)).save(file, "png"),
    }  # fmt: skip


def _workbook(file: Path, part: str, content: bytes) -> None:
    import openpyxl

    book, plain = openpyxl.Workbook(), io.BytesIO()
    book.active.append(["image", "mos"])
    book.save(plain)
    with zipfile.ZipFile(plain) as source, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, content if name == part else source.read(name))


_XML = b'<?xml version="1.0"?>'
_SHEET = b'<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>%b</sheetData></worksheet>'
_LAUGHS = b"<!DOCTYPE a [<!ENTITY x0 'lol'>%b]>" % b"".join(b"<!ENTITY x%d '%b'>" % (i, b"&x%d;" % (i - 1) * 10) for i in range(1, 10))
_CELL = b"<row><c t='inlineStr'><is><t>%b</t></is></c></row>"


def tables(folder: Path) -> dict[str, Plant]:
    """Name of a label file -> its writer."""
    return {
        "deep.json": lambda file: file.write_text("[" * 100_000),
        "deep.jsonl": lambda file: file.write_text('{"image":' * 100_000),
        "digits.json": lambda file: file.write_text('[{"image":' + "9" * 10_000 + "}]"),
        "pickle.csv": lambda file: file.write_bytes(pickles(folder)["protocol 0"]),
        "outside.csv": lambda file: file.write_text("image,mos\n../../../../../../etc/passwd,3\n"),
        "absolute.csv": lambda file: file.write_text("image,mos\n/etc/passwd,3\n"),
        "device.csv": lambda file: file.write_text("image,mos\n/dev/zero,3\n"),
        "formula.csv": lambda file: file.write_text("image,mos\n\"=cmd|' /C calc'!A0\",3\n"),
        "nul.csv": lambda file: file.write_bytes(b"image,mos\n\0\0\0,3\n"),
        "one line.csv": lambda file: file.write_text("image,mos\n" + "a" * 20_000_000),
        "pickle.mat": lambda file: file.write_bytes(pickles(folder)["os.system"]),
        "object.mat": lambda file: savemat(file, {"mos": np.array([{"a": 1}], dtype=object)}),
        "bomb.mat": lambda file: savemat(file, {"mos": np.zeros(20_000_000)}, do_compression=True),
        "laughs.xlsx": lambda file: _workbook(file, "xl/worksheets/sheet1.xml", _XML + _LAUGHS + _SHEET % (_CELL % b"&x9;")),
        "entity.xlsx": lambda file: _workbook(
            file, "xl/worksheets/sheet1.xml", _XML + b"<!DOCTYPE a [<!ENTITY x SYSTEM 'file:///proc/self/environ'>]>" + _SHEET % (_CELL % b"&x;")
        ),
        "bomb.xlsx": lambda file: _workbook(file, "xl/worksheets/sheet1.xml", _XML + _SHEET % (_CELL % b"x" * 2_000_000)),
        "pickle.xlsx": lambda file: file.write_bytes(pickles(folder)["os.system"]),
    }


def _json(name: str, **changes: Any) -> Plant:
    def plant(folder: Path) -> None:
        file = folder / name
        values = json.loads(file.read_text()) if file.is_file() else {}
        for option, value in changes.items():
            values[option] = {**values.get(option, {}), **value} if isinstance(value, dict) and option.endswith("_config") else value
        file.write_text(json.dumps(values))

    return plant


def _code(folder: Path) -> None:
    """Code beside a checkpoint, and all that may name it."""
    for name in ("modeling_evil.py", "configuration_evil.py", "custom_generate/generate.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"import os\nos.system({command(folder.parents[1])!r})\nclass Evil: ...\n")
    named = {kind: f"{module}.Evil" for kind, module in (("AutoConfig", "configuration_evil"), ("AutoModelForImageTextToText", "modeling_evil"))}
    _json("config.json", auto_map=named)(folder)
    _json("tokenizer_config.json", auto_map={"AutoTokenizer": ["modeling_evil.Evil", None]}, tokenizer_class="Evil")(folder)
    _json("preprocessor_config.json", auto_map={"AutoImageProcessor": "modeling_evil.Evil"})(folder)


def _template(code: str) -> Plant:
    return lambda folder: (folder / "chat_template.jinja").write_text(code.replace("COMMAND", command(folder.parents[1])))


def _pickled_weights(name: str) -> Plant:
    def plant(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickles(folder.parents[1])["nested"])

    return plant


CHECKPOINTS: dict[str, Plant] = {
    "auto_map": _code,
    "attention that is a kernel": _json("config.json", _attn_implementation_internal="evil/kernel"),
    "attention of the decoder that is a kernel": _json("config.json", text_config={"_attn_implementation": "evil/kernel"}),
    "attention by its public name": _json("config.json", attn_implementation="evil/kernel:attn"),
    "experts that are a kernel": _json("config.json", experts_implementation="evil/kernel"),
    "custom_generate": _json("generation_config.json", custom_generate="evil/generate"),
    "trust_remote_code": _json("tokenizer_config.json", trust_remote_code=True),
    "quantized by who knows": _json("config.json", quantization_config={"quant_method": "evil", "modules_to_not_convert": ["__import__('os')"]}),
    "quantized by gptq": _json("config.json", quantization_config={"quant_method": "gptq", "bits": 4}),
    "another model_type": _json("config.json", model_type="../../evil"),
    "a number as model_type": _json("config.json", model_type=3),
    "a deep config": lambda folder: (folder / "config.json").write_text('{"model_type":' * 100_000),
    "an adapter beside it": _json("adapter_config.json", peft_type="LORA", base_model_name_or_path="evil/model", auto_mapping={"parent_library": "os"}),
    "weights elsewhere": lambda folder: (
        (folder / "model.safetensors").unlink(),
        _json("model.safetensors.index.json", metadata={}, weight_map={"w": "../../../../etc/passwd"})(folder),
    ),
    "weights as a pickle": _pickled_weights("pytorch_model.bin"),
    "a pickle by the name of safetensors": _pickled_weights("model.safetensors"),
    "a template that asks for the system": _template("{{ ''.__class__.__mro__[1].__subclasses__() }}<image>"),
    "a template that reads globals": _template("{{ cycler.__init__.__globals__.os.system('COMMAND') }}<image>"),
    "a template that reads the namespace": _template("{{ namespace.__init__.__globals__['__builtins__']['eval']('1') }}<image>"),
    "a template that imports": _template("{% import '/etc/passwd' as x %}{% include '/etc/passwd' %}<image>"),
    "a template by format": _template("{{ '{0.__class__.__init__.__globals__}'.format(messages) }}<image>"),
    "a tokenizer that is deep": lambda folder: (folder / "tokenizer.json").write_text('{"a":' * 100_000),
    "a tokenizer that is a pickle": lambda folder: (folder / "tokenizer.json").write_bytes(pickles(folder.parents[1])["os.system"]),
    "links that lead outside": lambda folder: _link(folder / "preprocessor_config.json", Path("/etc/passwd")),
}  # fmt: skip
"""Of a checkpoint of a known family."""


def resumable(folder: Path, step: Path) -> dict[str, Plant]:
    """Name -> writer of a checkpoint of Lightning's in the place of the one that a run would go on from, made of its real one."""

    def changed(**more: Any) -> Plant:
        return lambda file: torch.save({**torch.load(step, weights_only=True), **more}, file)

    leave = command(folder)
    hooks = {"_instantiator": "biqa.running.building.os.system", "_class_path": "os.system", "command": leave}
    return {
        **{f"a pickle: {name}": (lambda file, content=content: file.write_bytes(content)) for name, content in pickles(folder).items()},
        "a tensor that runs": lambda file: torch.save({"state_dict": {"w": Runs(eval, f"__import__('os').system({leave!r})")}}, file),
        "an old tensor that runs": lambda file: torch.save({"w": Runs(eval, "1")}, file, _use_new_zipfile_serialization=False),
        "_instantiator": changed(hyper_parameters=hooks, hparams_name="kwargs"),
        "_class_path": changed(hyper_parameters={"_class_path": "os.system", "init_args": {"command": leave}}, datamodule_hyper_parameters=hooks),
        "callbacks": changed(callbacks={"os.system": {"command": leave}}, loops={"fit_loop": {"state_dict": {"_target_": "os.system"}}}),
    }


__all__ = ["CHECKPOINTS", "RUNS", "SECRET", "Plant", "pictures", "resumable", "tables"]
