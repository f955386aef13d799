"""What holds for any input that Hypothesis can think of: figures against scipy and counting by hand, tables in every quoting, words of commands."""

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from scipy import stats

from biqa import config as schema
from biqa.completion import suggestions
from biqa.data.collate import IGNORED, Encoded, collate
from biqa.data.module import ShuffledBatches
from biqa.data.rows import read_rows
from biqa.data.texts import whole_sentences
from biqa.doors.arguments import read_options
from biqa.doors.opening import in_words, refuse_unknown_flags
from biqa.doors.sweeps import in_order
from biqa.errors import UserError
from biqa.evaluation.bootstrap import bootstrap_means, draw_counts
from biqa.evaluation.correlation import krcc, plcc, plcc_logistic4, rmse, srcc
from biqa.evaluation.stability import level_measures, score_std
from biqa.language.features import coverage, parse
from biqa.language.leak import find_leak
from biqa.language.levels import WEIGHTS, soft_target
from biqa.language.lexicon import read, swapped
from biqa.language.prompts import cut_verdict, parse_verdict
from biqa.models.sampling import draw, uniforms
from biqa.run import numbers_to_words

pytestmark = pytest.mark.filterwarnings("ignore:An input array is constant", "ignore:An input array is nearly constant")
BOUNDED = settings(max_examples=60, deadline=None, database=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
SECONDS = 2.0


@st.composite
def rated(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Scores and qualities with ties, and how often each image stands in a resample."""
    images = draw(st.integers(2, 12))
    values = st.sampled_from([0.0, 0.25, 0.5, 1.0]) | st.floats(0, 1)
    score, q = (np.array(draw(st.lists(values, min_size=images, max_size=images))) for _ in range(2))
    counts = np.array(draw(st.lists(st.integers(0, 3), min_size=images, max_size=images)), dtype=np.float64)
    return score, q, counts


@BOUNDED
@given(rated())
def test_correlations_are_scipys_in_every_resample(given_: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    score, q, counts = given_
    repeats = counts.astype(int)
    for x, y, weights in ((score, q, None), (np.repeat(score, repeats), np.repeat(q, repeats), counts[None])):
        same = len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0
        for ours, theirs in ((srcc, stats.spearmanr), (krcc, stats.kendalltau)):
            expected = np.nan if same else theirs(x, y)[0]
            assert np.ravel(ours(score, q, weights))[0] == pytest.approx(expected, abs=1e-9, nan_ok=True)
        found = np.ravel(plcc(score, q, weights))[0]
        if same:
            assert np.isnan(found)
        elif min(np.ptp(x), np.ptp(y)) > 1e-6:  # of a smaller spread both lose their digits
            assert found == pytest.approx(stats.pearsonr(x, y)[0], abs=1e-6)
        if len(x):
            assert np.ravel(rmse(score, q, weights))[0] == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), abs=1e-9)


@BOUNDED
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8))
def test_no_correlation_leaves_its_range(pairs: list[tuple[float, float]]) -> None:
    score, q = np.array(pairs).T
    for figure in (srcc, krcc, plcc, plcc_logistic4):
        value = float(figure(score, q))
        assert np.isnan(value) or -1 <= value <= 1


@BOUNDED
@given(st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=1, max_size=9), st.integers(0, 2**31))
def test_means_of_resamples_are_those_of_repeated_images(values: list[float], seed: int) -> None:
    figures = np.array(values)
    found = bootstrap_means({"a": figures}, resamples=20, seed=seed)["a"]
    counts = draw_counts("", [str(place) for place in range(len(figures))], 20, seed).astype(int)
    known = ~np.isnan(figures)
    assert found.value == pytest.approx(figures[known].mean() if known.any() else np.nan, nan_ok=True)
    means = [drawn[~np.isnan(drawn)].mean() for row in counts if (~np.isnan(drawn := np.repeat(figures, row))).any()]
    if known.sum() > 1 and means:
        assert (found.low, found.high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))))
    else:
        assert np.isnan(found.low)


@BOUNDED
@given(st.lists(st.lists(st.integers(-1, 4), min_size=4, max_size=4), min_size=1, max_size=5), st.data())
def test_stability_is_what_counting_gives(levels: list[list[int]], data: st.DataObject) -> None:
    found = level_measures(levels)
    for image, of in enumerate(levels):
        if set(of) == {-1}:  # of answers without a level nothing is told
            assert np.isnan(found["instability"][image])
            continue
        counts = Counter(of)
        pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
        assert found["instability"][image] == pytest.approx(100 * (1 - max(counts.values()) / 4))
        assert found["pairwise_disagreement"][image] == pytest.approx(100 * sum(of[a] != of[b] for a, b in pairs) / len(pairs))
        assert found["level_entropy"][image] == pytest.approx(stats.entropy(list(counts.values()), base=2), abs=1e-12)
    scores = data.draw(st.lists(st.floats(0, 1) | st.just(float("nan")), min_size=3, max_size=3))
    known = [score for score in scores if score == score]
    assert score_std([scores])[0] == pytest.approx(np.std(known, ddof=1) if len(known) > 1 else np.nan, nan_ok=True, abs=1e-9)


@BOUNDED
@given(q=st.floats(0, 1), std=st.floats(0, 1e308) | st.sampled_from([5e-324, 1e-9, 1e-5]))
def test_a_soft_target_of_any_deviation(q: float, std: float) -> None:
    target = soft_target(q, std)
    assert np.isfinite(target).all()
    assert target.min() >= 0
    assert target.sum() == pytest.approx(1)
    assert target @ WEIGHTS == pytest.approx(q, abs=1e-6)


@BOUNDED
@given(st.lists(st.tuples(st.integers(1, 6), st.integers(1, 6), st.none() | st.integers(0, 5)), min_size=1, max_size=9), st.booleans())
def test_every_token_is_in_a_batch_once(lengths: list[tuple[int, int, int | None]], pack: bool) -> None:
    token = iter(range(1, 10_000))
    examples = [
        Encoded([next(token) for _ in range(asked)], [next(token) for _ in range(said)], level_at=None if at is None else at % said)
        for asked, said, at in lengths
    ]
    batch = collate(examples, pad_id=0, pack=pack)
    present = batch.attention_mask > 0
    assert sorted(batch.input_ids[present].tolist()) == [token for example in examples for token in (*example.prompt, *example.answer)]
    assert (batch.input_ids[~present] == 0).all()
    to_learn = [token for example in examples for place, token in enumerate(example.answer) if place != example.level_at]
    assert sorted(batch.labels[batch.labels != IGNORED].tolist()) == to_learn
    rows, columns = (batch.labels != IGNORED).nonzero(as_tuple=True)
    assert (batch.labels[rows, columns] == batch.input_ids[rows, columns + 1]).all()
    for encoded, row, place in zip(examples, batch.level_row.tolist(), batch.level_position.tolist(), strict=True):
        if encoded.level_at is not None:
            assert batch.input_ids[row, place + 1] == encoded.answer[encoded.level_at]


@BOUNDED
@given(
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 2.5]), min_size=1, max_size=30), st.integers(1, 5), st.integers(1, 3), st.integers(0, 9), st.booleans()
)
def test_an_epoch_shows_each_item_as_often_as_it_weighs(weights: list[float], size: int, world: int, seed: int, lengths: bool) -> None:
    def batches(rank: int, start: int = 0) -> list[list[int]]:
        sampler = ShuffledBatches(weights, size, seed, rank, world, [item % 3 for item in range(len(weights))] if lengths else None)
        sampler.start = start
        return list(sampler)

    of_all = [batches(rank) for rank in range(world)]
    shown = Counter(item for of in of_all for batch in of for item in batch if item >= 0)
    assert all(int(weight) <= shown[item] <= -(-weight // 1) for item, weight in enumerate(weights))
    for weight in set(weights):
        members = [item for item, own in enumerate(weights) if own == weight]
        assert sum(shown[item] for item in members) == int(weight) * len(members) + round(len(members) * (weight % 1))
    assert len({len(of) for of in of_all}) == 1
    middle = len(of_all[0]) // 2
    assert [batches(rank, middle) for rank in range(world)] == [of[middle:] for of in of_all]


@BOUNDED
@given(st.lists(st.text(max_size=5), min_size=1, max_size=6, unique=True), st.integers(0, 2**40), st.randoms(use_true_random=False))
def test_noise_belongs_to_a_name(names: list[str], seed: int, random) -> None:
    names = [name.encode("utf-8", "replace").decode() for name in names]
    noise = uniforms(seed, names, queries=2, steps=3)
    assert ((noise >= 0) & (noise < 1)).all()
    order = list(range(len(names)))
    random.shuffle(order)
    assert torch.equal(uniforms(seed, [names[place] for place in order], queries=2, steps=3), noise[order])


@BOUNDED
@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=300), st.floats(0, 1, exclude_max=True))
def test_what_is_drawn_is_possible(weights: list[float], uniform: float) -> None:
    probabilities = torch.tensor(weights, dtype=torch.float32)
    if probabilities.sum() == 0:
        return
    drawn = int(draw(probabilities / probabilities.sum(), torch.tensor(uniform, dtype=torch.float64)))
    assert weights[drawn] > 0 or (probabilities / probabilities.sum())[drawn] > 0


LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\x00")
CELLS = st.text(LETTERS, max_size=8) | st.sampled_from(
    ['"', '""', "a,b", "a\nb", "a\r\nb", "\t", "nan", "1e999", "\ufeff", "\u2028", "\x85", "'", "=1+1"]
)


@BOUNDED
@given(
    rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=6), bom=st.booleans(), ends=st.sampled_from(["\n", "\r\n", "\r"]), quoting=st.sampled_from([0, 1]),
    kind=st.sampled_from(["csv", "tsv", "jsonl", "json"]), letters=st.booleans(),
)  # fmt: skip
def test_a_table_comes_back_whatever_its_quoting(tmp_path: Path, rows, bom: bool, ends: str, quoting: int, kind: str, letters: bool) -> None:
    columns = ["image", "said"]
    if kind in ("csv", "tsv"):
        made = io.StringIO()
        quoting = max(quoting, int(any("\r" in cell for row in rows for cell in row)))  # Python's writer leaves a lone one without quotes
        writer = csv.writer(made, delimiter="\t" if kind == "tsv" else ",", lineterminator=ends, quoting=quoting)
        writer.writerows([columns, *rows])
        text = made.getvalue()
    else:
        records = [dict(zip(columns, row, strict=True)) for row in rows]
        text = (
            ends.join(json.dumps(record, ensure_ascii=letters) for record in records)
            if kind == "jsonl"
            else json.dumps(records, ensure_ascii=letters)
        )
    file = tmp_path / f"a.{kind}"
    file.write_bytes((b"\xef\xbb\xbf" if bom else b"") + text.encode())
    there = [tuple(cell.strip() for cell in row) for row in rows]
    wanted = [row for row in there if any(row)] if kind in ("csv", "tsv") else there
    if not wanted:
        with pytest.raises(UserError, match="has no rows"):
            read_rows(file, columns)
        return
    assert [(row.cells["image"], row.cells["said"]) for row in read_rows(file, columns)] == wanted


@dataclass
class Options:
    """Of a door."""

    runs: str = "runs"
    number: int = 3
    json: bool = False
    out: str | None = None
    only: list[str] | None = None


WORDS = st.lists(
    st.sampled_from(["runs=", "number=", "json", "--json", "-", "=", "x", "null", "out", "[a,b]", "1_000", "\u0663", "9" * 5000, "\x00", " "])
    | st.text(max_size=6),
    max_size=4,
)


@BOUNDED
@given(st.lists(WORDS.map("".join), max_size=4))
def test_any_words_of_a_command(words: list[str]) -> None:
    for take in (lambda: read_options(words, Options, alone=("runs",)), lambda: refuse_unknown_flags(words)):
        with suppress(UserError, SystemExit):  # SystemExit: argparse's --help and --version
            take()
    assert len(numbers_to_words(words)) == len(words)
    assert in_order(words, Path(schema.config_directory()))


PARTS = [
    "stage",
    "=",
    "1",
    "2",
    ",",
    "{",
    "}",
    "[",
    "]",
    "'",
    '"',
    "\\",
    "$",
    "${",
    ":",
    "+",
    "++",
    "~",
    "@",
    "/",
    "..",
    "\n",
    "model",
    "null",
    "choice(",
    ")",
    "range(",
    "\u00e9",
    "glob(*)",
]


@BOUNDED
@given(st.lists(st.sampled_from(PARTS) | st.text(max_size=3), max_size=7).map("".join))
def test_any_override_is_read_or_refused_in_words(text: str) -> None:
    said = "read"
    try:
        OverridesParser.create().parse_overrides([text])
    except HydraException as error:
        said = in_words(error)
    assert said


@example("model.~x '\\ stage=")
@BOUNDED
@given(
    st.lists(
        st.sampled_from(
            [
                "biqa",
                "run",
                "report",
                "ls",
                " ",
                "  ",
                "stage=",
                "data=",
                "test=[",
                "koniq+",
                "'",
                '"',
                "\\",
                "\\ ",
                "~",
                "/",
                "--",
                "$(x)",
                "model.",
                "@",
                "search.",
                "\n",
                "*",
            ]
        )
        | st.text(max_size=3),
        max_size=7,
    ).map("".join)
)
def test_any_line_is_completed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: str) -> None:
    monkeypatch.chdir(tmp_path)
    for typed in (line, f"biqa run {line}", f"biqa {line}"):
        assert all(isinstance(word, str) for word in suggestions(typed))


SAID = [
    "quality ",
    "is ",
    "very ",
    "quality is *'",
    "\n",
    " \n",
    ". ",
    "not ",
    "no ",
    "and ",
    "or ",
    "nor ",
    "sharp, ",
    "the image is ",
    "noise ",
    "* ",
    "- ",
    "isn't ",
    "lacks ",
    "\u0130",
    "good ",
]
TAKERS: dict[str, Callable[[str], object]] = {
    "parse": parse, "coverage": coverage, "find_leak": find_leak, "parse_verdict": parse_verdict, "cut_verdict": cut_verdict, "whole_sentences": whole_sentences,
    "read": read, "swapped": lambda text: swapped(text, "sharpness", 4),
}  # fmt: skip


@pytest.mark.parametrize("taker", TAKERS)
@settings(BOUNDED, max_examples=15)
@given(
    begin=st.sampled_from(["", "quality ", "Sharp. "]),
    unit=st.lists(st.sampled_from(SAID), min_size=1, max_size=3).map("".join),
    end=st.sampled_from(["", "x", "!"]),
)
def test_a_long_text_takes_no_longer_than_its_length(taker: str, begin: str, unit: str, end: str) -> None:
    text = begin + unit * (20_000 // len(unit)) + end
    before = time.process_time()
    TAKERS[taker](text)
    assert time.process_time() - before < SECONDS
