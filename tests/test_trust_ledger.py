"""What campaigns count: a failing test is no survivor, and kinds that were not tried keep their figures."""

import json

import pytest
from trust_ledger import counted, write_ledger

pytest_plugins = ["pytester"]


@pytest.fixture
def reports(pytester):
    """What a campaign of two tests has told, one of which fails."""
    pytester.makeconftest("from trust_ledger import tally")
    pytester.makepyfile(
        """
        def test_survives(tally):
            tally("kills", 3, seconds=2)
            tally("other")

        def test_does_not(tally):
            tally("kills", 4, survived=1, seconds=1)
            tally("other", 2)
            assert False
        """
    )
    done = pytester.inline_run("-p", "no:cacheprovider")
    return [report for report in done.getreports("pytest_runtest_logreport") if report.when == "call"]


def test_tries_and_survivors_are_counted(reports):
    counts = counted(reports)
    kills, other = counts["kills"], counts["other"]
    assert (kills.tried, kills.survived, kills.figures) == (7, 4, {"seconds": 2.0})
    assert [name.partition("::")[2] for name in kills.lost] == ["test_does_not"]
    assert (other.tried, other.survived) == (3, 1)


def test_other_kinds_stay(reports, tmp_path):
    file = tmp_path / "trust.json"
    file.write_text(json.dumps({"kept": {"tried": 1, "survived": 1}, "kills": {"tried": 900, "survived": 900}}))
    write_ledger(counted(reports), file)
    found = json.loads(file.read_text())
    assert found["kept"] == {"tried": 1, "survived": 1}
    assert (found["kills"]["tried"], found["kills"]["survived"], len(found["kills"]["lost"])) == (7, 4, 1)
    assert set(found["other"]) == {"tried", "survived", "lost"}
