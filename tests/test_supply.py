"""The lock holds the tested set, and an audit that could not ask says so."""

import re
import sys
from pathlib import Path

import pytest

from docs.audit import UNKNOWN, audit
from docs.lock import LEFT_OUT, lock

ROOT = Path(__file__).parents[1]
PINNED = re.compile(r"^([\w.-]+)==(\S+)", re.MULTILINE)


def names(text: str) -> dict[str, str]:
    return {re.sub("[-_.]+", "-", name).lower(): version for name, version in PINNED.findall(text)}


def test_the_lock_is_the_tested_set_with_a_hash_each():
    text, tested = (ROOT / "requirements.lock").read_text(), names((ROOT / "constraints.txt").read_text())
    assert names(text) == {name: version for name, version in tested.items() if name not in LEFT_OUT}, "constraints.txt has changed: make lock"
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[\w.-]+==\S+ --hash=sha256:[0-9a-f]{64}", line) for line in lines)


def test_a_lock_names_no_place():
    package = {
        "metadata": {"name": "A", "version": "1"},
        "download_info": {"url": "https://somewhere/A-1.whl", "archive_info": {"hashes": {"sha256": "0" * 64}}},
    }
    assert lock([package, package | {"metadata": {"name": "torch", "version": "2"}}]).splitlines()[2:] == [f"A==1 --hash=sha256:{'0' * 64}"]


@pytest.mark.parametrize(
    ("told", "code", "said"),
    [
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": []}]}', 0, "1 packages asked about, 0 known holes."),
        ('{"dependencies": [{"name": "a", "version": "1", "vulns": [{"id": "CVE-1", "fix_versions": ["2"]}]}]}', 1, "a 1: CVE-1, mended in 2"),
        ('{"dependencies": [{"name": "a", "skip_reason": "no route"}]}', UNKNOWN, "Of 1 packages nothing is known, first a: no route"),
        ("", UNKNOWN, "cannot be reached, so nothing is known: no route"),
    ],
)
def test_the_exit_code_of_an_audit_is_its_outcome(told, code, said, capfd):
    program = f"import sys; print({told!r}); print('no route', file=sys.stderr)"
    assert audit([sys.executable, "-c", program]) == code
    out, err = capfd.readouterr()
    assert said in out + err
