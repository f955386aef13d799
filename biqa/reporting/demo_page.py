"""What the page of `biqa demo` shows of one picture: its description, level, score, repeated answers and the lens, as a piece of HTML.

All text in it is escaped: descriptions and tokens come from models, names of files from whoever sends them.
"""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pandas as pd
from jinja2 import Environment, StrictUndefined

from biqa.evaluation.predictions import Prediction
from biqa.reporting.figures import write_figure
from biqa.reporting.inside_lens import draw_lens_of_image
from biqa.reporting.page import PageFigure, page_figure
from biqa.reporting.predictions import encodable

LENS = "What each layer would answer"

HEAD = """
<h1>{{ title }}</h1>
<dl class="facts">
{% for name, value in facts.items() %}
<div><dt>{{ name }}</dt><dd>{{ value }}</dd></div>
{% endfor %}
</dl>
{% for note in notes %}
<p class="told">{{ note }}</p>
{% endfor %}
"""

ANSWER = """
<section class="answer" role="status" aria-label="What is said of {{ name }}">
<div class="seen"><img src="{{ picture }}" alt="The picture {{ name }}"></div>
<div class="said">
<h2>{{ name }}</h2>
<dl class="facts">
<div><dt>level</dt><dd>{{ said.level }}</dd></div>
<div><dt>score</dt><dd>{{ '%.3f' % said.score }}</dd></div>
{% if said.levels %}
<div><dt>instability</dt><dd>{{ '%.0f' % said.instability }} % of {{ said.levels | length }} answers</dd></div>
<div><dt>spread of the score</dt><dd>{{ '%.3f' % said.score_std }}</dd></div>
{% endif %}
</dl>
{% if said.description is not none %}
<blockquote>{{ said.description or '(no word)' }}</blockquote>
{% endif %}
{% if said.probabilities %}
<h3>Probability of each level</h3>
<dl class="levels">
{% for level, probability in said.probabilities.items() %}
<div><dt>{{ level }}</dt><dd class="track" aria-hidden="true"><span class="bar" style="width:{{ '%.1f' % (100 * probability) }}%"></span></dd>\
<dd>{{ '%.1f' % (100 * probability) }} %</dd></div>
{% endfor %}
</dl>
{% endif %}
{% if said.levels %}
<h3>Asked {{ said.levels | length }} times again</h3>
{% if said.instability %}
<p class="note">Dashed: not the commonest level.</p>
{% endif %}
<ol class="again">
{% for level in said.levels %}
<li{% if level != commonest %} class="other"{% endif %}>{{ level }}</li>
{% endfor %}
</ol>
{% endif %}
</div>
{% if lens %}
<figure>
<figcaption>{{ lens.caption }}</figcaption>
<div class="scroll" tabindex="0" role="region" aria-label="{{ lens.caption }}">
<img src="{{ lens.source }}" alt="{{ lens.alt }}" width="{{ lens.width }}">
</div>
</figure>
{% endif %}
</section>
"""

REFUSAL = '<p class="told" role="alert">{{ sentence }}</p>'

STYLE = """
.biqa { font-size: 1rem; line-height: 1.5; overflow-wrap: anywhere; }
.biqa h1 { font-size: 1.6rem; line-height: 1.25; margin: .25rem 0; font-weight: 600; }
.biqa h2 { font-size: 1.2rem; margin: 0 0 .25rem; font-weight: 600; }
.biqa h3 { font-size: 1rem; margin: 1rem 0 .25rem; font-weight: 600; }
.biqa .facts { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin: .25rem 0; }
.biqa .facts div { display: flex; gap: .4rem; }
.biqa dt { color: var(--body-text-color); opacity: .8; }
.biqa dd { margin: 0; font-weight: 600; }
.biqa .told { border-left: 4px solid #0072b2; background: var(--background-fill-secondary); padding: .5rem 1rem; margin: .5rem 0; }
.biqa .note { margin: 0 0 .3rem; font-size: .875rem; }
.biqa .answer { display: grid; grid-template-columns: fit-content(20rem) minmax(0, 1fr); gap: 1.25rem; margin-top: .5rem; }
.biqa .answer figure { grid-column: 1 / -1; margin: 0; min-width: 0; }
.biqa figcaption { font-weight: 600; margin-bottom: .25rem; }
.biqa .seen img { max-width: 100%; height: auto; border-radius: 4px; }
.biqa blockquote { margin: .5rem 0; padding-left: .75rem; border-left: 3px solid var(--border-color-primary); white-space: pre-line; }
.biqa .levels { display: grid; grid-template-columns: auto 1fr auto; gap: .15rem .6rem; max-width: 28rem; align-items: center; margin: 0; }
.biqa .levels div { display: contents; }
.biqa .levels dd { font-weight: 400; font-variant-numeric: tabular-nums; text-align: right; }
.biqa .track { height: .8rem; border: 1px solid var(--border-color-primary); }
.biqa .bar { display: block; height: 100%; background: #0072b2; }
.biqa .again { display: flex; flex-wrap: wrap; gap: .3rem; padding: 0; margin: 0; list-style: none; }
.biqa .again li { padding: .05rem .55rem; border: 1px solid var(--border-color-primary); border-radius: 4px; margin: 0; }
.biqa .again .other { border: 2px dashed #d55e00; }
.biqa .scroll { overflow-x: auto; background: #fff; border: 1px solid var(--border-color-primary); border-radius: 6px; padding: .5rem; }
.biqa .scroll img { display: block; max-width: none; height: auto; }
.biqa .scroll:focus-visible { outline: 3px solid #0072b2; outline-offset: 2px; }
@media (max-width: 40rem) { .biqa .answer { grid-template-columns: minmax(0, 1fr); } }
"""
"""Colours of text, lines and grounds are the page's own, light or dark."""


def head(title: str, facts: Mapping[str, str], notes: Sequence[str]) -> str:
    """What stands on top: of which run the page is.

    Args:
        title: the heading.
        facts: name -> value.
        notes: what must be known to read the scores.
    """
    return _filled(HEAD, title=title, facts=facts, notes=notes)


def answer(said: Prediction, name: str, picture: str, lens: PageFigure | None = None) -> str:
    """What is said of a picture.

    Args:
        said: of it.
        name: of its file.
        picture: `thumbnail` of it.
        lens: what each layer would answer; None: not shown.
    """
    commonest = max(said.levels, key=said.levels.count, default=None)
    return _filled(ANSWER, said=said, name=encodable(name), picture=picture, lens=lens, commonest=commonest)


def refusal(sentence: str) -> str:
    """A picture of which nothing can be said, and why."""
    return _filled(REFUSAL, sentence=encodable(sentence))


def lens_figure(rows: Sequence[Mapping[str, Any]], run: str, name: str) -> PageFigure:
    """The lens for one picture, with what is seen there in words.

    Args:
        rows: of `lens_rows`, layer 1 first.
        run: its name.
        name: of the picture's file.
    """
    levels = [row["level"] for row in rows]
    steady = 1 + max((place for place, level in enumerate(levels, 1) if level != levels[-1]), default=0)
    alt = (
        f"A row for each of {len(levels)} layers: the four likeliest tokens with their probabilities, and the probability of each level. "
        f"The likeliest level by layer: {', '.join(levels)}. From layer {steady} on it is {levels[-1]}."
    )
    with TemporaryDirectory() as folder:
        png, svg = Path(folder, "lens.png"), Path(folder, "lens.svg")
        write_figure(draw_lens_of_image({run: pd.DataFrame(rows)}, encodable(name)), png, svg)
        return page_figure(png, svg, LENS, alt)


def command(options: Sequence[str], name: str) -> str:
    """The line that says the same of a picture on a terminal.

    Args:
        options: of `biqa predict`, as NAME=VALUE.
        name: of the picture's file; one that begins with a dash or holds a = stands behind `--`.
    """
    apart = ["--"] if name.startswith("-") or "=" in name else []
    return shlex.join(["biqa", "predict", *options, *apart, encodable(name)])


def _filled(template: str, **values: Any) -> str:  # noqa: ANN401 (whatever a template shows)
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    return environment.from_string(template).render(values)
