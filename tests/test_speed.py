"""The rows of the table of speed: both sides do the same work, and what is reported is what was measured."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from benchmarks import answers, doors, evaluation, growth, peaks, rounds, rows, speed, steps, texts
from benchmarks.shapes import SMALL, build, composed, items, words
from benchmarks.training import NO_TRL, TRL, Biqa, as_transformers
from biqa.data.collate import collate
from biqa.models.sampling import sample

needs_trl = pytest.mark.skipif(not TRL, reason=NO_TRL)
pytestmark = [
    pytest.mark.filterwarnings("ignore:Total length of `DataLoader` across ranks is zero"),  # there are no validation items
    pytest.mark.filterwarnings("ignore:The '.*_dataloader' does not have many workers"),
]
CPU = rows.Machine("a CPU", 2, float32=1e11, bfloat16=5e11, bandwidth=1e10)


@pytest.fixture(autouse=True)
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the benchmarks write."""
    monkeypatch.setattr(rounds, "RESULTS", tmp_path / "results")
    return rounds.RESULTS


def test_a_row_says_whether_it_is_met_and_what_was_tried_where_it_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    gain = rows.Row("1", "work", "peer", 4.0, rounds.Ratio(4.0, 3.0, 5.0), 0.5, rows.PEAK, medians={"biqa": 0.25, "peer": 1234.5}, note="a note")
    cost = replace(gain, name="2", at_most=True)
    assert (gain.met, cost.met, replace(cost, wanted=3.9).met, replace(gain, wanted=4.1).met) == (True, True, False, False)
    monkeypatch.setattr(rows, "TRIED", {"1": "this was tried"})
    assert (gain.notes, replace(gain, wanted=5.0).notes) == ("a note", "a note. this was tried")
    line = rows.table([gain], CPU, {"rounds": 5}).splitlines()[-1]
    assert line == "| 1 | work | peer | >= 4, met | 4.00 (3.00 to 5.00) | 50% of the bf16 matrix product | biqa 0.25 s, peer 1234 s | a note |"


def test_the_exponent_of_what_takes_four_times_as_long_for_twice_as_much_is_two() -> None:
    assert rows.Growth("images", "biqa", [1, 2, 4, 8], [3.0, 12.0, 48.0, 192.0]).exponent == pytest.approx(2)
    assert rows.Growth("images", "biqa", [1, 10, 100], [5.0, 5.0, 5.0]).exponent == pytest.approx(0)


def test_the_machine_is_measured() -> None:
    machine = rows.measured_machine(sides=(64, 128), read=2**22)
    assert min(machine.float32, machine.bfloat16, machine.bandwidth) > 1e6
    assert re.fullmatch(r"[a-z0-9-]+", machine.slug)


def test_texts_are_as_long_as_they_should_be() -> None:
    vlm = build(SMALL, vision=False)
    assert [len(vlm.opening(words(vlm, length, length))) for length in range(1, 40)] == list(range(1, 40))


def seen(vlm, work) -> tuple[int, int]:
    """Images that go through the tower, and visual tokens that the decoder reads."""
    counts = [0, 0]

    def images(_, arguments, named, __) -> None:
        counts[0] += len(named["pixel_values"] if "pixel_values" in named else arguments[0])

    def tokens(_, arguments, named) -> None:
        if named["inputs_embeds"].shape[1] > SMALL.side**2:
            counts[1] += len(named["inputs_embeds"])

    hooks = [
        vlm.model.model.vision_tower.register_forward_hook(images, with_kwargs=True),
        vlm.model.model.language_model.register_forward_pre_hook(tokens, with_kwargs=True),
    ]
    work()
    for hook in hooks:
        hook.remove()
    return counts[0], counts[1]


def test_biqa_sees_an_image_once_and_reads_its_prompt_once_where_generate_reads_it_for_each_answer() -> None:
    sides = answers.Sides(SMALL, images=3, repeats=4, tokens=5)
    assert seen(sides.vlm, lambda: sides.biqa(3)) == (3, 3)
    assert seen(sides.peer, lambda: sides.generate(3)) == (3, 12), "transformers 5.23 repeats what the tower made, older ones the pixels"
    assert seen(sides.peer, lambda: sides.loop([0, 2])) == (8, 8)


def test_both_sides_give_the_same_likeliest_answer() -> None:
    sides = answers.Sides(SMALL, images=3, repeats=2, tokens=6)
    sides.vlm.float()
    sides.peer.float()
    theirs = sides.generated(sides.prompts, 1, sampled=False)
    ours = sample(sides.vlm, sides.prompts, sides.numbers, temperature=1.0, top_p=1.0, max_new_tokens=6)
    assert [texts[0] for texts in ours.texts] == [sides.vlm.text(ids.tolist()) for ids in theirs]


def test_answers_are_compared() -> None:
    batch, loop = answers.rows(answers.GLANCE, CPU, 2)
    assert (batch.name, loop.name) == ("1", "2")
    for row in (batch, loop):
        assert row.ratio.lowest <= row.ratio.median <= row.ratio.highest
        assert 0 < row.share < 1
    assert "4 an image" in batch.note


def test_the_fewest_seconds_are_those_of_the_slower_of_product_and_memory() -> None:
    vlm = build(SMALL)
    slow = replace(CPU, bandwidth=1.0)
    given = {"prompt": 20, "images": 2, "answers": 3, "tokens": 2}
    block = sum(p.numel() for n, p in vlm.backbone.named_parameters() if "language_model.layers" in n and p.ndim == 2)
    head = SMALL.vocabulary * SMALL.width
    remembered = 2 * SMALL.layers * SMALL.width * 2 * (20 + 3)
    prompts = answers.least_seconds(vlm, SMALL, slow, **(given | {"tokens": 1}))
    assert answers.least_seconds(vlm, SMALL, slow, **given) - prompts == pytest.approx(2 * (block + head + remembered))
    without = answers.least_seconds(vlm, SMALL, CPU, **(given | {"tokens": 1}), tower=False)
    assert without == pytest.approx(2 * 2 * (20 * block + head) / CPU.bfloat16)


def test_an_evaluation_with_features_on_disk_needs_no_tower_and_gives_the_same(tmp_path: Path) -> None:
    (row,) = evaluation.rows(evaluation.GLANCE, CPU, 2)
    assert row.medians.keys() == {"features kept", "features computed"}
    pictures = evaluation.photographs(tmp_path, 3, (64, 48))
    sides = evaluation.Sides(SMALL, tmp_path, repeats=2, tokens=4)
    sides.keep(pictures)
    assert seen(sides.describes, lambda: sides.evaluated("features kept", pictures))[0] == 0
    assert seen(sides.describes, lambda: sides.evaluated("features computed", pictures))[0] == 3
    assert [(row["image"], row["query"]) for row in sides.evaluated("features kept", pictures[:1])] == [("00000.jpg", query) for query in range(3)]


def test_a_step_is_compared_and_held_against_the_limit() -> None:
    (through_lightning, wide) = steps.rows(steps.GLANCE, CPU, 1, wanted=(6, 9))
    assert (through_lightning.name, wide.name) == ("6", "9")
    assert through_lightning.share == pytest.approx(1 / through_lightning.ratio.median)
    assert wide.share == wide.ratio.median


@needs_trl
def test_trl_learns_the_same_and_is_compared_with_and_without_features_on_disk() -> None:
    found = steps.rows(steps.GLANCE, CPU, 1, wanted=(4,))
    assert [row.name for row in found] == ["4a", "4b", "4c", "4d"]
    assert [row.wanted for row in found] == [4, 2, 6, 3]
    assert all("same losses" in row.note for row in found)
    with pytest.raises(AssertionError, match="TRL: the losses differ"):
        steps.check_same("TRL", 1.0, 1.0011)


def test_the_operations_of_a_step_are_those_that_torch_counts(tmp_path: Path) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    sides = steps.Sides(replace(steps.GLANCE, shape=replace(SMALL, side=4)), tmp_path, peers=False)
    with FlopCounterMode(display=False) as counted, torch.autocast("cpu", torch.bfloat16):
        loss, _ = sides.biqa.stage.loss(sides.first)
        loss.backward()
    ours = steps.operations(sides.biqa.stage.vlm, sides.first, sides.work.shape)
    # torch counts LoRA's own products, attention's and those of the patches too, which weigh much in so narrow a model
    assert 0.5 < ours / counted.get_total_flops() < 1


def test_the_level_word_is_a_token_like_the_others_for_trl(tmp_path: Path) -> None:
    vlm = build(SMALL, vision=False, dtype=torch.float32)
    made = items(tmp_path, vlm, [3, 20, 9], SMALL)
    stage = Biqa(vlm, composed("stage=inference", "stage.target=hard", "tuning.dropout=0"), made, tmp_path / "run").stage
    encoded = [stage.encode(item) for item in made]
    with torch.no_grad():
        ours, _ = stage.loss(texts.all_tokens(encoded, vlm.pad_id, pack=True))
        theirs = vlm.backbone(**as_transformers(collate(encoded, vlm.pad_id))).loss
    assert float(ours) == pytest.approx(float(theirs), abs=1e-5)


@needs_trl
def test_an_epoch_of_texts_is_compared_with_trl_unpacked_and_packed() -> None:
    unpacked, packed = texts.rows(texts.GLANCE, CPU, 1)
    assert (unpacked.name, packed.name, unpacked.wanted, packed.wanted) == ("5a", "5b", 2.0, 1.1)
    assert re.search(r"16 texts of 3\d to 1[12]\d tokens", unpacked.work)


def test_the_peak_of_a_step_is_more_than_what_was_held_before() -> None:
    found = peaks.measure("biqa", SMALL, batch=2)
    assert 100 < found["before"] <= found["peak"]


def test_a_row_of_memory_is_of_processes_of_their_own(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def alone(module: str, side: str, size: str) -> str:
        asked.append((module, side, json.loads(size)["batch"]))
        return json.dumps({"before": 100.0, "peak": 600.0 if side == "biqa" else 1000.0})

    monkeypatch.setattr(peaks, "alone", alone)
    monkeypatch.setattr(peaks, "TRL", True)
    (row,) = peaks.rows(peaks.GLANCE, CPU, 1)
    assert asked == [("peaks", "biqa", 2), ("peaks", "trl", 2)]
    assert (row.ratio.median, row.met, row.share) == (0.6, True, pytest.approx(1 / 6))


def test_without_trl_its_rows_are_left_out_and_it_says_so(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for group in (texts, peaks):
        monkeypatch.setattr(group, "TRL", False)
        assert group.rows(group.GLANCE, CPU, 1) == []
    assert capsys.readouterr().out == f"row 5 is left out. {NO_TRL}\nrow 7 is left out. {NO_TRL}\n"


def test_a_door_is_compared_with_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(doors.COMMANDS, "imports", ("-c", "import time; time.sleep(0.5)"))
    (row,) = doors.rows(doors.GLANCE, CPU, 1)
    assert row.medians["imports"] > 0.5
    assert row.ratio.median == pytest.approx(row.medians["biqa.run --help"] / row.medians["imports"])


def test_growth_is_measured_and_drawn(results: Path) -> None:
    found = growth.growths(growth.GLANCE)
    assert [(one.side.split("(")[0], list(one.at)) for one in found] == [
        ("biqa", [1, 2]), ("generate", [1, 2]), ("biqa", [4, 9]), ("generate", [4, 9]), ("biqa", [2, 4]),
    ]  # fmt: skip
    assert all(seconds > 0 for one in found for seconds in one.seconds)
    assert growth.draw(found, "growth").stat().st_size > 1000
    assert (results / "growth.png").is_file()
    assert "| visual tokens, 1 images" in rows.table([], CPU, {}, found)


def test_some_rows_go_to_files_of_their_own(results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(speed, "measured_machine", lambda *_: CPU)
    speed.main(["--small", "--rounds", "1", "--only", "2"])
    assert sorted(file.name for file in results.iterdir()) == ["a-cpu-2-small-2.json", "a-cpu-2-small-2.md"]
    told = json.loads((results / "a-cpu-2-small-2.json").read_text())
    assert [row["name"] for row in told["rows"]] == ["2"]
    assert told["options"] == {"rounds": 1, "small": True}
    shown = capsys.readouterr().out
    assert shown.startswith(str(CPU))
    assert "row 2: 3 sampled answers" in shown
    with pytest.raises(SystemExit):
        speed.main(["--only", "10"])
