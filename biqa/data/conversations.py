"""Files of conversations about images: how an entry is read, and their answers as description targets (METHOD.md section 7, `file`)."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from biqa.data.record import Record
from biqa.data.rows import is_there, parse_json
from biqa.data.targets import TextTargets
from biqa.data.texts import SHORTEST, OnLeak, TextReport
from biqa.errors import BadRecord, DatasetNotFound
from biqa.language.prompts import cut_verdict

SPEAKERS = {"human": "question", "user": "question", "gpt": "answer", "assistant": "answer", "system": "system"}
"""Who speaks a turn: LLaVA's words (key "from") and those of chat templates (key "role")."""


@dataclass(frozen=True)
class Entry:
    """One object of a JSON label file."""

    where: str
    """File and entry, counted from 1."""
    fields: Mapping[str, Any]
    """As JSON has it: texts, numbers, lists, objects, null."""

    @property
    def image(self) -> str:
        """Name of the image with "/" between folders. Q-Align's files call it `image` or `img_path`.

        Raises:
            BadRecord: neither is a text.
        """
        name = self.fields.get("image", self.fields.get("img_path"))
        if not isinstance(name, str) or not name.strip():
            raise BadRecord(
                f"{self.where}: there is no image name under image or img_path; found {', '.join(self.fields) or 'nothing'}. "
                f"Name the image file, or take the entry out."
            )
        return str(PurePosixPath(name.strip().replace("\\", "/")))

    @property
    def exchanges(self) -> list[tuple[str, str]]:
        """Each answer with the question before it ("" where none stands there), in their order.

        Raises:
            BadRecord: `conversations` is no list of turns such as {"from": "human", "value": "..."} or {"role": "user", "content": "..."}.
        """
        conversation = self.fields.get("conversations")
        if not isinstance(conversation, list):
            raise BadRecord(
                f"{self.where}: there is no list under conversations; found {', '.join(self.fields) or 'nothing'}. "
                f"Use the training file, whose entries have one, or take the entry out."
            )
        found: list[tuple[str, str]] = []
        question = ""
        for number, turn in enumerate(conversation, start=1):
            speaker, text = _turn(turn, f"{self.where}, turn {number}")
            if speaker == "question":
                question = text
            elif speaker == "answer":
                found.append((question, text))
        return found


def _turn(turn: object, where: str) -> tuple[str, str]:
    if isinstance(turn, dict):
        speaker, text = turn.get("from", turn.get("role")), turn.get("value", turn.get("content"))
        if isinstance(speaker, str) and speaker in SPEAKERS and isinstance(text, str):
            return SPEAKERS[speaker], text
    raise BadRecord(
        f'{where}: not a turn such as {{"from": "human", "value": "..."}} or {{"role": "user", "content": "..."}} '
        f"(speakers: {', '.join(SPEAKERS)}). Correct it, or take the entry out."
    )


def read_entries(file: Path) -> list[Entry]:
    """All entries of a UTF-8 file: one JSON list of objects, or an object a line. What it holds decides, as M3-AGIQA has lists in .jsonl files.

    Raises:
        DatasetNotFound: no such file.
        BadRecord: not UTF-8, not JSON (as a download that broke off), no list of objects, or an empty one.
    """
    if not is_there(file):
        raise DatasetNotFound(f"{file}: there is no such file. Give the path of a .json or .jsonl file.")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRecord(f"{file}: the text is not UTF-8 ({error.reason} at byte {error.start}). Save it as UTF-8.") from error
    if file.suffix.lower() == ".jsonl" and not text.lstrip().startswith("["):
        lines = enumerate(text.split("\n"), start=1)
        found = [(f"{file}, row {number}", parse_json(line, f"{file}, row {number}")) for number, line in lines if line.strip()]
    else:
        whole = parse_json(text, str(file))
        if not isinstance(whole, list):
            raise BadRecord(
                f"{file}: this is no list of objects, one an image. Choose a file that is; "
                f"of DeQA-Score the train and test metas, not split.json or mos.json."
            )
        found = [(f"{file}, entry {number}", entry) for number, entry in enumerate(whole, start=1)]
    if not found:
        raise BadRecord(f"{file}: the file has no entries. Give one object an image.")
    for where, entry in found:
        if not isinstance(entry, dict):
            raise BadRecord(f'{where}: not an object with keys. Write one object an image, such as {{"image": "a.png", "gt_score": 3.5}}.')
    return [Entry(where, entry) for where, entry in found]


@dataclass
class ConversationReport(TextReport):
    """What `ConversationTargets` left out of the entries of a file."""

    without_description: list[str] = field(default_factory=list)
    """File and entry of each that only names a level, gives a verdict or (with `question`) answers other questions."""

    @property
    def problems(self) -> list[str]:
        """A sentence for each kind of thing left out, with its count and where the first one stands."""
        said = super().problems
        if self.without_description:
            said.insert(
                0,
                f"{len(self.without_description)} of {self.entries} conversations hold no description, only a level word, a verdict or other "
                f"questions, and were left out. First: {self.without_description[0]}.",
            )
        return said


class ConversationTargets(TextTargets):
    """Answers of Q-Instruct, Q-Pathway, LLaVA or M3-AGIQA files as description targets.

    Of each conversation the first answer counts that is more than a level word or a verdict: `cut_verdict` must leave three words or more. What
    it cuts off the end is kept in `verdicts`. An image is found by its full relative name; where the file has other folders (Q-Instruct's
    `spaq_koniq/00003.jpg`), by the file name alone, if only one image of the file and one of the data set bear it.

    Q-Instruct (arXiv 2311.06783) mixes descriptions with short answers about one thing; `question="(?i)describe"` takes the former.

    Args:
        file: .json (a list of objects) or .jsonl, entries {image, conversations: [{from, value}]} or turns of {role, content}.
        seed: draws one text where an image has several.
        question: regular expression of the questions that ask for a description, searched in each; None: any question does.
        on_leak: a sentence before the end that gives the answer away: "stop" refuses the text when its image is described, as descriptions=file
            does; "skip_sentence" drops such sentences when the file is read, counted and listed in `report`. M3-AGIQA's texts need that: most
            begin with their verdict.

    Raises:
        DatasetNotFound, BadRecord: no such file, or not such a file (`read_entries`, `Entry`); or no conversation in it holds a description.
    """

    def __init__(self, *, file: str | Path, seed: int = 0, question: str | None = None, on_leak: OnLeak = "stop") -> None:
        super().__init__(file=file, seed=seed, noun="answer")
        self.question = re.compile(question or "")
        self.on_leak = on_leak
        self.report = ConversationReport()
        self._matched: dict[str, str] = {}
        for entry in read_entries(self.file):
            self._read(entry)
        if not self.texts:
            raise BadRecord(
                f"{self.file}: none of its {self.report.entries} conversations holds a description: {self.report.problems[0]} "
                f"Choose a file of descriptions, or descriptions=measured, which describes any image."
            )
        self._same_file_name: dict[str, list[str]] = {}
        for name in self.texts:
            self._same_file_name.setdefault(PurePosixPath(name).name, []).append(name)

    def name_of(self, record: Record) -> str:
        """The name under which the file has an image; its own where there is none.

        Raises:
            BadRecord: several images of the file, or of the data set, have its file name, so that the text may be another's.
        """
        own = str(PurePosixPath(record.image.replace("\\", "/")))
        alike = [own] if own in self.texts else self._same_file_name.get(PurePosixPath(own).name, [])
        if len(alike) > 1:
            raise BadRecord(
                f"Image {record.image}: {self.file} has {len(alike)} images of that file name ({', '.join(alike[:3])}). "
                f"Name the folders alike in both."
            )
        name = alike[0] if alike else own
        taken_by = self._matched.setdefault(name, record.image)
        if taken_by != record.image:
            raise BadRecord(
                f"Image {record.image}: its file name leads to {name} in {self.file}, which is taken for image {taken_by}. "
                f"Name the folders alike in both."
            )
        return name

    def _read(self, entry: Entry) -> None:
        """Take in the describing answer of one conversation, or count it as without one."""
        self.report.entries += 1
        asked = (cut_verdict(answer) for question, answer in entry.exchanges if self.question.search(question))
        text, verdict = next(((text, verdict) for text, verdict in asked if len(text.split()) >= SHORTEST), ("", ""))
        if not text:
            self.report.without_description.append(entry.where)
            return
        if self.on_leak == "skip_sentence":
            text = self.report.without_leaks(text, entry.where)
            if not text:
                return
        self.add(entry.where, entry.image, text, verdict)
