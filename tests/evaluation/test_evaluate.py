import json

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from biqa.errors import BadRecord, IncompatibleChoice
from biqa.evaluation.answers import PROBABILITIES, read_answers, write_answers
from biqa.evaluation.evaluate import COMPARED, compare, evaluate
from biqa.language.levels import LEVELS

pytest_plugins = ["fabrication"]


def test_figures_are_those_of_scipy(answers):
    table = answers()
    found = evaluate(table, resamples=20)["synthetic"]
    greedy = table[table["query"] == 0]
    mean_score = table[table["query"] > 0].groupby("image")["score"].mean()
    assert found["srcc"]["value"] == pytest.approx(stats.spearmanr(greedy["score"], greedy["q"])[0])
    assert found["krcc"]["value"] == pytest.approx(stats.kendalltau(greedy["score"], greedy["q"])[0])
    assert found["plcc"]["value"] == pytest.approx(stats.pearsonr(greedy["score"], greedy["q"])[0])
    assert found["rmse"]["value"] == pytest.approx(np.sqrt(((greedy["score"] - greedy["q"]) ** 2).mean()))
    assert found["srcc_mean"]["value"] == pytest.approx(stats.spearmanr(mean_score, greedy["q"])[0])
    assert found["plcc_mean"]["value"] == pytest.approx(stats.pearsonr(mean_score, greedy["q"])[0])


def test_accuracy_within_subsets_is_what_is_left_without_the_source(answers):
    table = answers(images=90)
    names = sorted(set(table["image"]))
    table["subset"] = table["image"].map({name: "abc"[min(rank // 20, 2)] for rank, name in enumerate(names)})
    greedy = table[table["query"] == 0]
    within = {name: (stats.spearmanr(part["score"], part["q"])[0], len(part)) for name, part in greedy.groupby("subset")}
    assert [size for _, size in within.values()] == [20, 20, 50]
    figure = evaluate(table, resamples=200)["synthetic"]["srcc_within"]
    assert figure["value"] == pytest.approx(sum(value * size for value, size in within.values()) / 90)
    assert figure["low"] < figure["value"] < figure["high"]
    told = table.assign(score=table["subset"].map({"a": 0.1, "b": 0.5, "c": 0.9}))  # a model that knows the source and nothing else
    assert np.isnan(evaluate(told, resamples=20)["synthetic"]["srcc_within"]["value"])
    assert "srcc_within" not in evaluate(answers(), resamples=20)["synthetic"]


def test_instability_of_both_decisions(answers):
    table = answers()
    sampled = table[table["query"] > 0]
    likeliest = sampled[list(PROBABILITIES)].to_numpy().argmax(axis=1)
    found = evaluate(table, resamples=20)["synthetic"]
    for decision, levels in {"sampled": sampled["level"], "argmax": pd.Series(likeliest, index=sampled.index)}.items():
        shares = levels.groupby(sampled["image"]).agg(lambda words: words.value_counts(normalize=True).max())
        assert found[f"instability_{decision}"]["value"] == pytest.approx(100 * (1 - shares).mean())
        assert found[f"flip_rate_{decision}"]["value"] == pytest.approx(100 * (shares < 1).mean())
    assert found["score_std"]["value"] == pytest.approx(sampled.groupby("image")["score"].std().mean())
    assert found["instability_sampled"]["value"] > found["instability_argmax"]["value"]


def test_every_value_lies_in_its_interval(answers):
    for name, figure in evaluate(answers(), resamples=300)["synthetic"].items():
        assert figure["low"] <= figure["value"] <= figure["high"], name


def test_the_order_of_the_rows_and_the_way_through_a_file_change_no_digit(answers, tmp_path):
    table = pd.concat([answers("synthetic"), answers("koniq", images=30)])
    found = json.dumps(evaluate(table, resamples=50))
    assert json.dumps(evaluate(table.sample(frac=1, random_state=1), resamples=50)) == found
    write_answers(table, tmp_path / "answers.parquet")
    assert json.dumps(evaluate(read_answers(tmp_path / "answers.parquet"), resamples=50)) == found
    assert json.dumps(evaluate(table, resamples=50, seed=1)) != found


def test_data_sets_do_not_touch_each_other(answers):
    koniq = answers("koniq", images=30)
    assert evaluate(pd.concat([answers("synthetic"), koniq]), resamples=20)["koniq"] == evaluate(koniq, resamples=20)["koniq"]


def test_without_sampled_queries_there_is_no_instability(answers):
    found = evaluate(answers(repeats=0), resamples=20)["synthetic"]
    assert set(found) == {"srcc", "krcc", "plcc", "plcc_logistic4", "rmse", "unparsed", "unscored"}


def test_one_sampled_query_is_refused(answers):
    with pytest.raises(IncompatibleChoice, match="at least 2 sampled queries an image, found 1"):
        evaluate(answers(repeats=1), resamples=20)


def unparse(table: pd.DataFrame, rows: pd.Series) -> pd.DataFrame:
    """The table with answers that the word scorer could not read."""
    return table.assign(**{column: table[column].mask(rows) for column in ("level", "score", *PROBABILITIES)})


def test_unparsed_answers_are_counted_and_left_out_of_the_correlations(answers):
    table = answers(images=10, repeats=4)
    lost = (table["image"] == "image003.png") & (table["query"] == 0)
    found = evaluate(unparse(table, lost), resamples=20)["synthetic"]
    greedy = table.query("query == 0 and image != 'image003.png'")
    assert found["srcc"]["value"] == pytest.approx(stats.spearmanr(greedy["score"], greedy["q"])[0])
    assert found["unscored"]["value"] == pytest.approx(10)
    assert found["unparsed"]["value"] == pytest.approx(100 / 50)
    assert found["instability_sampled"] == evaluate(table, resamples=20)["synthetic"]["instability_sampled"]


def test_unparsed_sampled_answers_differ_from_parsed_ones(answers):
    table = answers(images=1, repeats=4).assign(level="good", p_good=1.0, p_bad=0.0, p_poor=0.0, p_fair=0.0, p_excellent=0.0)
    found = evaluate(unparse(table, table["query"] == 4), resamples=20)["synthetic"]
    assert found["instability_sampled"]["value"] == found["instability_argmax"]["value"] == pytest.approx(25)
    assert np.isnan(found["srcc"]["value"])


def test_nothing_parsed_gives_undefined_figures_and_no_warning(answers):
    table = answers(images=5, repeats=2)
    found = evaluate(unparse(table, pd.Series(True, index=table.index)), resamples=20)["synthetic"]
    assert all(np.isnan(found[name]["value"]) for name in ("srcc", "krcc", "plcc", "plcc_logistic4", "rmse", "srcc_mean", "score_std"))
    assert found["unparsed"]["value"] == found["unscored"]["value"] == 100
    assert np.isnan(found["instability_sampled"]["value"])  # 0 would look like a steady model


def test_a_level_word_without_a_distribution_still_counts_as_sampled(answers):
    table = answers(images=6, repeats=3)
    without = table.assign(**dict.fromkeys(PROBABILITIES, np.nan))
    found = evaluate(without, resamples=20)["synthetic"]
    assert found["instability_sampled"] == evaluate(table, resamples=20)["synthetic"]["instability_sampled"]
    assert np.isnan(found["instability_argmax"]["value"])


def spoiled(table: pd.DataFrame, how: str) -> pd.DataFrame:
    row = table.query("image == 'image001.png' and query == 2").index[0]
    changes = {"level": "splendid", "q": 0.123456, "score": np.nan, "p_good": np.nan, "p_fair": 0.9, "score ": np.inf, " score": 1.2}
    if how in changes:
        return table.assign(**{how.strip(): table[how.strip()].where(table.index != row, changes[how])})
    if how == "no q":
        return table.assign(q=table["q"].mask(table["image"] == "image001.png"))
    return table.drop(row) if how == "missing" else pd.concat([table, table.loc[[row]]])


@pytest.mark.parametrize(
    ("how", "message"),
    [
        (
            "missing",
            r"Answers of synthetic: image image001\.png needs the queries 0\.\.4, one row each.*\(1 in all are wrong\).*Answer these images again",
        ),
        ("twice", r"image image001\.png needs the queries 0\.\.4, one row each"),
        ("level", r"image image001\.png has a level that is not one of bad, poor, fair, good, excellent"),
        ("q", r"image image001\.png needs one quality q in 0\.\.1, the same in all its rows"),
        ("score", r"image image001\.png has a level and no score, as of a model whose numbers are no numbers"),
        ("score ", r"image image001\.png has a score outside 0\.\.1"),
        (" score", r"image image001\.png has a score outside 0\.\.1"),
        ("p_good", r"image image001\.png has a level distribution that does not sum to 1"),
        ("p_fair", r"image image001\.png has a level distribution that does not sum to 1"),
        ("no q", r"image image001\.png needs one quality q in 0\.\.1"),
    ],
)
def test_bad_tables_are_refused_by_image(answers, how, message):
    with pytest.raises(BadRecord, match=message):
        evaluate(spoiled(answers(images=4), how), resamples=20)


def test_compare_takes_differences_over_the_common_images(answers):
    good, bad = answers(noise=0.1), answers(noise=0.6)
    found = compare(good, bad[bad["image"] < "image050.png"], resamples=200)["synthetic"]
    common = good[good["image"] < "image050.png"]
    ours, theirs = evaluate(common, resamples=20)["synthetic"], evaluate(bad[bad["image"] < "image050.png"], resamples=20)["synthetic"]
    assert tuple(found) == COMPARED
    for metric, figure in found.items():
        assert figure["value"] == pytest.approx(ours[metric]["value"] - theirs[metric]["value"])
    assert found["srcc"]["low"] > 0
    assert found["srcc"]["p"] < 0.05


def test_compare_without_sampled_queries_compares_accuracy(answers):
    assert tuple(compare(answers(repeats=0), answers(repeats=4), resamples=20)["synthetic"]) == ("srcc", "plcc")


def test_compare_refuses_tables_without_a_common_image(answers):
    table = answers()
    with pytest.raises(IncompatibleChoice, match="no image in common: one holds 60 images of synthetic, the other 60 images of koniq"):
        compare(table, answers("koniq"))
    with pytest.raises(IncompatibleChoice, match="no image in common"):
        compare(table, table.assign(image="x" + table["image"]))


def test_compare_refuses_different_labels(answers):
    table = answers()
    with pytest.raises(IncompatibleChoice, match=r"Image image000\.png of synthetic has quality .* in one table and 0\.5 in the other"):
        compare(table, table.assign(q=0.5))


def test_levels_are_read_in_their_order(answers):
    """Guards the order of the probability columns against the order of the words."""
    assert tuple(column.removeprefix("p_") for column in PROBABILITIES) == LEVELS
    table = answers(images=3, repeats=2)
    agree = evaluate(table.assign(level=[LEVELS[position] for position in table[list(PROBABILITIES)].to_numpy().argmax(axis=1)]), resamples=5)
    assert agree["synthetic"]["instability_sampled"] == agree["synthetic"]["instability_argmax"]
