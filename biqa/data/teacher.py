"""Description targets that a teacher writes: another vision-language model, asked about each image once (METHOD.md section 7, `teacher`)."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from PIL import Image
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from biqa.data.images import FORMATS
from biqa.data.record import Record, Reduction
from biqa.data.survey import Part, look_at
from biqa.data.targets import Description, Looks
from biqa.data.text_cache import TextCache
from biqa.data.texts import SHORTEST, OnLeak, TextReport, plain
from biqa.errors import BadRecord, TeacherUnavailable
from biqa.language.features import parse
from biqa.language.leak import check_leak
from biqa.language.prompts import cut_verdict

NAMED = 5
"""So many images without a description are named; the others are counted."""

Keep = Callable[[Path, str], None]
"""Takes in the text of an image. May be called from any thread."""


class Writer(Protocol):
    """A model that describes images."""

    @property
    def name(self) -> str:
        """All that its texts depend on: model, weights, decoding. Under another name the images are described anew."""
        ...

    def write(self, images: Sequence[Path], reduction: Reduction | None, question: str, keep: Keep) -> None:
        """Describe every image, and hand over each text as soon as it is there: what is handed over is safe when the next image fails.

        Args:
            images: files.
            reduction: how large images are made smaller first.
            question: what is asked about each.
            keep: takes in the text of an image.

        Raises:
            TeacherUnavailable: the model or its server cannot go on.
        """
        ...


class TeacherTargets:
    """Texts of another model as description targets.

    Every image is asked about once: texts are kept by the content of the file, the question and the writer, each as soon as it is there. So a run
    that was killed asks about the rest only, and a run whose texts are all there needs neither the model nor its server. They are kept as they
    came; Markdown, verdict sentences at the end and sentences that give the answer away are left out of the targets.

    Args:
        writer: the model.
        question: what it is asked about each image.
        cache: folder in which texts are kept.
        on_leak: a sentence before the end that gives the answer away: "skip_sentence" drops it, counted and listed in `report`; "stop" refuses
            the text when its image is described.

    Raises:
        TeacherUnavailable: the cache cannot be used.
    """

    parts: Collection[Part] = ()

    def __init__(self, *, writer: Writer, question: str, cache: str | Path, on_leak: OnLeak = "skip_sentence") -> None:
        self.writer = writer
        self.question = question
        self.cache = TextCache(Path(cache).expanduser())
        self.on_leak: OnLeak = on_leak
        self.report = TextReport()
        self.asks = True
        """Whether the teacher may be asked: not one that a file of somebody else's names, for it is sent images, and a key."""
        self.texts: dict[Path, str] = {}
        """Image file -> what is left of its text."""

    def fit(self, train: Sequence[Record], looks: Looks | None = None) -> None:
        """Have all images described that are not yet.

        Args:
            train: training records.
            looks: what was found in all images of the data set: the usable ones are described too; None: the training images alone.

        Raises:
            TeacherUnavailable: the teacher cannot go on, or the cache cannot be used. What was written is kept.
        """
        usable = [path for path, look in (looks or {}).items() if look.problem is None]
        self._read([*(record.path for record in train), *usable], train[0].reduction)

    def describe(self, record: Record) -> Description:
        """The target of one image; one that nobody asked about yet is asked about here.

        Raises:
            BadRecord: nothing is left of its text, or the image cannot be used.
            AnswerLeak: the text gives the answer away (on_leak="stop").
            TeacherUnavailable: as `fit`.
        """
        if record.path not in self.texts:
            if problem := look_at(record.path, reduction=record.reduction).problem:
                raise BadRecord(f"Image {record.image}: {problem}")
            self._read([record.path], record.reduction)
        text = self.texts[record.path]
        if not text:
            empty = [path.name for path, said in self.texts.items() if not said]
            raise BadRecord(
                f"Image {record.image}: nothing that describes it is left of the teacher's text: fewer than {SHORTEST} words, or all of it gives the "
                f"answer away. So it is with {len(empty)} of {len(self.texts)} images: {', '.join(empty[:NAMED])}{', ...' if empty[NAMED:] else ''}. "
                f"Ask for what is seen (descriptions.question=), choose another teacher, or take these images out of the data set."
            )
        check_leak(text, f"Image {record.image} (descriptions.on_leak=skip_sentence drops such sentences)")
        return Description(text, parse(text))

    def _read(self, paths: Iterable[Path], reduction: Reduction | None) -> None:
        """Take in the texts of image files, having those written that are not there. A file that is reduced is another image than the whole one."""
        new = list(dict.fromkeys(path for path in paths if path not in self.texts))
        images = {path: _seen_as(image, path, reduction) for path, image in self.cache.contents(new).items()}
        known = self.cache.known(self.question, self.writer.name)
        if missing := set(images.values()) - known.keys():
            if not self.asks:
                raise TeacherUnavailable(
                    f"{len(missing)} images have no text in {self.cache.file} yet, and the server that the config of the run names is not asked: it "
                    f"would be sent the images, and a key. Ask it yourself: biqa rerun, with descriptions.url= and descriptions.key_env="
                )
            with self.cache.alone(self.question, self.writer.name, self._say_that_it_waits):
                self._ask(images, reduction)
            known = self.cache.known(self.question, self.writer.name)
        for path in new:
            self.texts[path] = self._as_target(known[images[path]], str(path))

    def _ask(self, images: Mapping[Path, str], reduction: Reduction | None) -> None:
        """Have a text written for each content that has none, with a progress bar on a terminal."""
        known = self.cache.known(self.question, self.writer.name)  # another process may have been at it until now
        missing: dict[str, Path] = {}
        for path, image in images.items():
            if image not in known:
                missing.setdefault(image, path)
        console = Console(stderr=True)
        with Progress(*Progress.get_default_columns(), MofNCompleteColumn(), console=console, disable=not console.is_terminal) as bar:
            task = bar.add_task("Asking the teacher", total=len(missing))

            def keep(path: Path, text: str) -> None:
                self.cache.keep(images[path], self.question, self.writer.name, text)
                bar.advance(task)

            if missing:
                self.writer.write(list(missing.values()), reduction, self.question, keep)

    def _say_that_it_waits(self) -> None:
        Console(stderr=True).print(f"Another run is asking this teacher (its texts go into {self.cache.file}): waiting for it.", soft_wrap=True)

    def _as_target(self, text: str, where: str) -> str:
        """What is left of a text; "" for nothing."""
        self.report.entries += 1
        said, _ = cut_verdict(plain(text))
        if said and self.on_leak == "skip_sentence":
            said = self.report.without_leaks(said, where)
        return said if len(said.split()) >= SHORTEST else ""


def _seen_as(content: str, path: Path, reduction: Reduction | None) -> str:
    """What the teacher sees of a file: its content, and to which size it is reduced if it is."""
    if reduction is None:
        return content
    with Image.open(path, formats=FORMATS) as file:
        return f"{content} {reduction.shorter_side}" if min(file.size) > reduction.shorter_side else content
