"""What is fed with mutated files: every reader of pictures and of label files, on a small valid layout in which one file is another.

A target returns what came of an input in a word: "read", or the name of biqa's error. Anything else that it raises is a fault, and so is a record
that no reader may hand on.
"""

import math
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

TESTS = Path(__file__).parents[1]
sys.path[:0] = [str(place) for place in (TESTS.parent, TESTS, TESTS / "data") if str(place) not in sys.path]

from pictures import pictures  # noqa: E402

from biqa.data.images import MAX_PIXELS, load_image  # noqa: E402
from biqa.data.record import SPLITS, Record, Reduction  # noqa: E402
from biqa.errors import UserError  # noqa: E402

LONGEST_MESSAGE = 3000
"""Letters of an error, at most: what it quotes of a file is cut."""


@dataclass(frozen=True)
class Target:
    """A file that is mutated, and who reads it."""

    kind: str
    """"pictures" or "labels"."""
    name: str
    seeds: Mapping[str, bytes]
    """Name -> valid file."""
    file: Path
    """Where the input is put; pictures keep the ending of their seed."""
    read: Callable[[Path], None]
    """Reads it. Raises AssertionError where what it hands on is wrong."""
    weight: float = 1.0
    """How often it is drawn."""
    sound: bytes | None = field(default=None, repr=False)
    """What lies in the place of the file between two inputs, where other targets read it too."""

    def __call__(self, data: bytes, seed: str) -> str:
        """What came of an input that was made of a seed."""
        file = self.file.with_suffix(Path(seed).suffix) if self.sound is None else self.file
        file.write_bytes(data)
        try:
            self.read(file)
            return "read"
        except UserError as error:
            told, outcome = str(error), type(error).__name__
        finally:
            if self.sound is not None:
                file.write_bytes(self.sound)
        assert told.strip(), f"a {outcome} that says nothing"
        assert len(told) <= LONGEST_MESSAGE, f"a message of {len(told)} letters: {told[:200]}..."
        assert "MemoryError" not in told, f"more memory than there is: {told}"
        return outcome


def picture_targets(place: Path) -> list[Target]:
    """Decoding as it is, and reduced with a copy that is kept."""
    seeds = pictures()

    def whole(file: Path) -> None:
        image = load_image(file)
        assert image.mode == "RGB", image.mode
        assert 0 < image.width * image.height <= MAX_PIXELS, image.size

    def reduced(file: Path) -> None:
        image = load_image(file, Reduction(16, place / "copies"))
        assert image.mode == "RGB", image.mode
        assert 0 < min(image.size) <= max(16, min(image.size)), image.size
        assert image.width * image.height <= MAX_PIXELS, image.size

    return [
        Target("pictures", "whole", seeds, place / "whole.png", whole, 8),
        Target("pictures", "reduced", seeds, place / "reduced.png", reduced, 2),
    ]


def check_records(records: Iterable[Record], root: Path) -> None:
    """What holds for all records of all readers."""
    found = list(records)
    names = [record.image for record in found]
    assert len(set(names)) == len(names), "an image twice"
    sides: dict[str, str] = {}
    for record in found:
        assert 0 <= record.q <= 1, record
        assert math.isfinite(record.score), record
        assert record.q_std is None or 0 <= record.q_std <= 1, record
        assert record.split in SPLITS, record
        assert record.image, record
        assert all(isinstance(level, int) and 1 <= level <= 5 for _, level in record.distortions), record
        assert record.path.is_relative_to(root), record
        record.image.encode()  # into the answers table, and onto the terminal
        assert sides.setdefault(record.group, record.split) == record.split, record


def label_targets(place: Path) -> list[Target]:
    """Every reader of label files, each on a release of its own."""
    return [*_official(place), *_own_tables(place), *_texts(place), *_of_runs(place)]


def _official(place: Path) -> list[Target]:
    import test_agiqa
    import test_biq2021
    import test_csiq
    import test_kadid
    import test_koniq
    import test_koniq_votes
    import test_live
    import test_live_info
    import test_livec
    import test_spaq
    import test_tid2013

    from biqa.data.agiqa import Agiqa
    from biqa.data.biq2021 import Biq2021
    from biqa.data.csiq import Csiq
    from biqa.data.kadid import Kadid
    from biqa.data.koniq import Koniq
    from biqa.data.live import Live
    from biqa.data.livec import LiveC
    from biqa.data.official import OfficialSet
    from biqa.data.spaq import Spaq
    from biqa.data.tid2013 import Tid2013

    for name in ("koniq", "scores", "kadid", "agiqa", "biq2021", "tid2013", "live", "livec", "spaq", "csiq"):
        (place / name).mkdir()
    koniq = test_koniq.write_release(place / "koniq")
    test_koniq_votes.write_votes(koniq)
    scores = test_koniq.write_release(place / "scores", without=(test_koniq.SETS,))
    live = test_live.write_release(place / "live")
    test_live_info.write_info(live)
    releases: list[tuple[str, Path, Callable[[], OfficialSet], float]] = [
        (test_koniq.SETS, koniq, lambda: Koniq(root=koniq, attributes="both"), 2),
        (test_koniq.INDICATORS, koniq, lambda: Koniq(root=koniq, attributes="both", on_bad_image="skip"), 1),
        (test_koniq_votes.VOTES[0], koniq, lambda: Koniq(root=koniq, attributes="both"), 1),
        (test_koniq.SCORES, scores, lambda: Koniq(root=scores, protocol="random", on_bad_image="skip"), 1),
        ("dmos.csv", folder := test_kadid.write_release(place / "kadid"), lambda root=folder: Kadid(root=root, on_bad_image="skip"), 2),
        (
            "data.csv",
            folder := test_agiqa.write_release(place / "agiqa"),
            lambda root=folder: Agiqa(root=root, protocol="prompt", on_bad_image="skip"),
            2,
        ),
        (
            "Train (Images and MOS).csv",
            folder := test_biq2021.write_release(place / "biq2021"),
            lambda root=folder: Biq2021(root=root, on_bad_image="skip"),
            2,
        ),
        (
            "mos_with_names.txt",
            folder := test_tid2013.write_release(place / "tid2013"),
            lambda root=folder: Tid2013(root=root, on_bad_image="skip"),
            1,
        ),
        ("wn/info.txt", live, lambda: Live(root=live, on_bad_image="skip"), 0.3),
        ("dmos_realigned.mat", live, lambda: Live(root=live, on_bad_image="skip"), 0.3),
        ("refnames_all.mat", live, lambda: Live(root=live, on_bad_image="skip"), 0.3),
        ("Data/AllImages_release.mat", folder := test_livec.write_release(place / "livec"), lambda root=folder: LiveC(root=root), 2),
        ("Data/AllMOS_release.mat", folder, lambda root=folder: LiveC(root=root), 2),
        (
            "Annotations/MOS and Image attribute scores.xlsx",
            folder := test_spaq.write_release(place / "spaq"),
            lambda root=folder: Spaq(root=root),
            1,
        ),
        ("csiq.DMOS.xlsx", folder := test_csiq.write_release(place / "csiq"), lambda root=folder: Csiq(root=root, on_bad_image="skip"), 0.7),
    ]

    def read(reader: Callable[[], OfficialSet], root: Path) -> Callable[[Path], None]:
        return lambda _: check_records(reader().records(), root)

    return [_in_place(f"{root.name}/{name}", root / name, read(reader, root), weight) for name, root, reader, weight in releases]


def _in_place(name: str, file: Path, read: Callable[[Path], None], weight: float = 1.0) -> Target:
    data = file.read_bytes()
    return Target("labels", name, {file.name: data}, file, read, weight, sound=data)


TABLE = "\n".join(
    [
        "image,mos,sd,split,scene,sharp",
        "a.png,1.5,0.5,train,x,1",
        '"b c.png",4.25,,val,"y, ""z""",2.5',
        "\u00e9.png,5,1,test,\u00fc,-3",
        "sub/d.png,3,0.25,training,x,4\n",
    ]
)


def _own_tables(place: Path) -> list[Target]:
    import json

    from biqa.data.labels_json import LabelsJson
    from biqa.data.table import Table
    from biqa.data.targets import AttributeTargets

    folder = place / "own"
    (folder / "sub").mkdir(parents=True)
    for name in ("a.png", "b c.png", "\u00e9.png", "sub/d.png"):
        (folder / name).touch()
    lines = [line.replace("training", "train") for line in TABLE.splitlines()]
    records = [
        {"image": "a.png", "mos": 1.5, "sd": 0.5, "split": "train", "scene": "x", "sharp": 1},
        {"image": "b c.png", "mos": "4.25", "sd": None, "split": "val", "scene": "y", "sharp": 2},
        {"image": "\u00e9.png", "mos": 5, "sd": 1, "split": "test", "scene": "z", "sharp": 3},
    ]
    tables = {
        "plain.csv": TABLE.encode(),
        "windows.csv": b"\xef\xbb\xbf" + TABLE.replace("\n", "\r\n").encode(),
        "old mac.csv": TABLE.replace("\n", "\r").encode(),
        "tabs.tsv": "\n".join(["\t".join(line.split(",")[:6]) for line in (lines[0], lines[1], lines[3])]).encode(),
        "lines.jsonl": "\n".join(map(json.dumps, records)).encode(),
        "list.json": json.dumps(records, ensure_ascii=False, indent=1).encode(),
    }

    def split_column(file: Path) -> None:
        source = Table(
            file=file, root=folder, low=1, high=5, score="mos", std="sd", split="split", group="scene", features=["sharp"], on_bad_image="skip"
        )
        found = source.records()
        check_records(found, folder)
        describe = AttributeTargets(names={"sharp": "sharpness"})
        describe.fit(found)
        for record in found:
            assert describe.describe(record).text

    def drawn(file: Path) -> None:
        check_records(Table(file=file, root=folder, low=1, high=5, direction="dmos", std="sd").records(), folder)

    entries = [
        {"id": "a.png->1.5", "image": "a.png", "conversations": _conversation("The quality of the image is poor.")},
        {"image": "b c.png", "gt_score": 4.25, "std": 0.5, "gt_score_norm": 4.25, "level_probs": [0.5, 0.5, 0, 0, 0]},
        {"img_path": "sub\\d.png", "gt_score": "2.65 ", "std": None, "gt_score_norm": 2.65},
        {"image": "\u00e9.png", "gt_score": 3, "conversations": _conversation("good")},
    ]
    test = folder / "test.json"
    test.write_text(json.dumps([{"image": "other.png", "gt_score": 3.5}]))

    def labels(file: Path) -> None:
        source = LabelsJson(train=file, test=test, root=folder, low=1, high=5, direction="mos", group="^[^.]+", on_bad_image="skip")
        check_records(source.records(), folder)
        assert all(isinstance(sentence, str) for sentence in source.report.problems)

    def declared(file: Path) -> None:
        check_records(LabelsJson(train=file, root=folder, low=0, high=5, direction="dmos", on_bad_image="skip").records(), folder)

    labelled = {"labels.json": json.dumps(entries).encode(), "labels.jsonl": "\n".join(map(json.dumps, entries)).encode()}
    worse = [{key: value for key, value in entry.items() if key in ("image", "gt_score", "std")} for entry in entries[1::2]]
    return [
        Target("labels", "table with a split column", tables, folder / "table.csv", split_column, 5),
        Target("labels", "table", tables, folder / "drawn.csv", drawn, 3),
        Target("labels", "labels of Q-Align and DeQA-Score", labelled, folder / "labels.json", labels, 3),
        Target("labels", "labels with a declared scale", {"worse.json": json.dumps(worse).encode()}, folder / "declared.json", declared, 2),
    ]


def _conversation(answer: str) -> list[dict[str, str]]:
    return [{"from": "human", "value": "<|image|>How is it?"}, {"from": "gpt", "value": answer}]


def _texts(place: Path) -> list[Target]:
    import json

    from biqa.data.conversations import ConversationTargets
    from biqa.data.defects import DefectTargets
    from biqa.data.targets import DescriptionSource, FileTargets

    folder = place / "texts"
    folder.mkdir()
    record = Record("a.png", folder / "a.png", 0.5, "train", "a.png", 3.0)
    said = "The image is dark. Details are blurred.\\nThe quality of the image is poor."
    described = {
        "texts.csv": f'image,description\na.png,"{said}"\nb.png,It is sharp.\n'.encode(),
        "texts.jsonl": f'{{"image": "a.png", "description": "{said}"}}\n{{"image": "b.png", "description": null}}'.encode(),
    }
    turns = [
        {"image": "x/a.png", "conversations": _conversation("The image is dark, with heavy noise. The quality of the image is poor.")},
        {
            "image": "b.png",
            "conversations": [{"role": "user", "content": "Describe it."}, {"role": "assistant", "content": "Details are very sharp."}],
        },
    ]
    spoken = {"turns.json": json.dumps(turns, indent=1).encode(), "turns.jsonl": "\n".join(map(json.dumps, turns)).encode()}
    words = {"defects.csv": b"image,distortion,scene\na.png,realistic blur,x\nb.png,other realistic,y\n"}

    def describe(source: Callable[[Path], DescriptionSource]) -> Callable[[Path], None]:
        def read(file: Path) -> None:
            description = source(file).describe(record)
            assert description.text
            description.text.encode()

        return read

    return [
        Target("labels", "descriptions", described, folder / "texts.csv", describe(lambda file: FileTargets(file=file)), 2),
        Target(
            "labels",
            "conversations",
            spoken,
            folder / "turns.json",
            describe(lambda file: ConversationTargets(file=file, on_leak="skip_sentence")),
            2,
        ),
        Target("labels", "defects", words, folder / "defects.csv", describe(lambda file: DefectTargets(file=file, measured=False)), 1),
    ]


def _of_runs(place: Path) -> list[Target]:
    import io

    import yaml
    from fabrication import made_up_run
    from rich.console import Console

    from biqa import ls
    from biqa.evaluation.answers import read_answers
    from biqa.evaluation.evaluate import evaluate
    from biqa.reporting.result import read_result, render_result
    from biqa.runs import RunFolder, different

    run = made_up_run(place / "runs", "one", "joint", images=6, repeats=2)
    config = {
        "stage": {"_target_": "biqa.stages.joint.Joint", "epochs": 2, "lr": 1e-4, "init_from": None},
        "data": {"_target_": "biqa.data.synthetic.Synthetic", "kinds": ["jpeg", "blur"], "low": 1.0},
        "model": {"_target_": "biqa.models.tiny.build_tiny", "hidden": 32}, "seed": 0, "runs": "runs", "name": "one", "tuning": {"kind": "full"},
    }  # fmt: skip
    folder = RunFolder(run)
    folder.config.write_text(yaml.safe_dump(config))

    def result(file: Path) -> None:
        ls.look(run)
        Console(file=io.StringIO(), width=100).print(render_result(read_result(file)))

    def settings(_: Path) -> None:
        ls.look(run)
        found = folder.read_config()
        assert isinstance(found["stage"], dict), found
        different(found, config)

    def answers(file: Path) -> None:
        for figures in evaluate(read_answers(file), resamples=5).values():
            assert not math.isinf(figures["srcc"]["value"]), figures

    return [
        _in_place("result.json", folder.result, result, 2),
        _in_place("config.yaml", folder.config, settings, 2),
        _in_place("answers", folder.answers("synthetic"), answers, 1.5),
    ]
