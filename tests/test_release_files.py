"""CITATION.cff, Dockerfile and .dockerignore: what can be said of them without the services that read them."""

import fnmatch
import re
import shlex
from pathlib import Path

import pytest
import yaml

import biqa

ROOT = Path(__file__).parents[1]

REQUIRED = ("cff-version", "message", "title", "authors")
PERSON, ENTITY = {"family-names", "given-names"}, {"name"}
"""Of the Citation File Format 1.2.0."""


@pytest.fixture(scope="module")
def citation() -> dict:
    return yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))


def test_the_citation_is_of_this_version_and_of_the_paper(citation):
    assert citation["version"] == biqa.__version__
    assert citation["license"] == "MIT"
    assert "2512.09555" in str(citation["preferred-citation"]["identifiers"])
    assert [author["family-names"] for author in citation["preferred-citation"]["authors"]] == ["Li", "Sun", "Chen", "Nishida"]


def test_the_citation_has_what_its_format_asks_for(citation):
    assert citation["cff-version"] == "1.2.0"
    assert citation["type"] in ("software", "dataset")
    assert all(citation[key] for key in REQUIRED)
    paper = citation["preferred-citation"]
    assert all(paper[key] for key in ("authors", "title", "type"))
    for author in (*citation["authors"], *paper["authors"]):
        assert set(author) in (PERSON, ENTITY)
    assert isinstance(paper["year"], int)
    assert all(isinstance(value, str) for value in (citation["message"], citation["title"], str(citation["version"]), *citation["keywords"]))


@pytest.fixture(scope="module")
def steps() -> list[tuple[str, str]]:
    """Instructions of the Dockerfile and what follows them; continued lines are one."""
    text = re.sub(r"\\\n\s*", " ", (ROOT / "Dockerfile").read_text(encoding="utf-8"))
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in lines)]


def copied(steps: list[tuple[str, str]]) -> list[str]:
    """What the image takes out of the checkout."""
    return [name for word, rest in steps if word == "COPY" and "--from" not in rest for name in shlex.split(rest)[:-1]]


def test_the_image_is_built_from_what_is_there_and_is_sent(steps):
    sent = [line.removeprefix("!") for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(sent) == sorted(copied(steps))
    for name in copied(steps):
        assert (ROOT / name).exists(), f"{name} is copied and is not there"
    for needed in ("pyproject.toml", "README.md", "LICENSE", "biqa", "conf"):  # what the wheel is made of
        assert needed in copied(steps)
    assert not [name for name in (".venv", "runs", "data", ".git") if any(fnmatch.fnmatch(name, pattern) for pattern in sent)]


def test_the_image_has_the_tested_versions_and_a_cpu_build_if_nothing_is_said(steps):
    [install] = [rest for word, rest in steps if word == "RUN" and "pip install" in rest]
    assert "-c constraints.txt" in install
    assert '--extra-index-url "${TORCH_INDEX}"' in install
    [index] = [rest.partition("=")[2] for word, rest in steps if word == "ARG" and rest.startswith("TORCH_INDEX=")]
    assert index.endswith("/cpu")
    [python] = {rest.partition("=")[2] for word, rest in steps if word == "ARG" and rest.startswith("PYTHON=")}
    assert f"Python {python}" in (ROOT / "constraints.txt").read_text().splitlines()[0]
    extras = next(rest.partition("=")[2] for word, rest in steps if word == "ARG" and rest.startswith("EXTRAS="))
    assert f"\n{extras} = [" in (ROOT / "pyproject.toml").read_text()


def test_who_runs_in_the_image_is_not_root_and_keeps_what_is_fetched(steps):
    last = max(number for number, (word, _) in enumerate(steps) if word == "FROM")
    final = steps[last:]
    assert [rest for word, rest in final if word == "USER"] == ["biqa"]
    order = [word for word, _ in final]
    assert order.index("USER") < order.index("ENTRYPOINT")
    [volume] = [rest for word, rest in final if word == "VOLUME"]
    environment = dict(pair.split("=", 1) for word, rest in final if word == "ENV" for pair in shlex.split(rest))
    assert environment["HF_HOME"].startswith(f"{volume}/")
    assert environment["BIQA_CACHE"].startswith(f"{volume}/")
    [health] = [rest for word, rest in final if word == "HEALTHCHECK"]
    assert health.endswith('CMD ["biqa", "doctor"]')
    assert ("ENTRYPOINT", '["biqa"]') in final
