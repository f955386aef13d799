"""The page of `biqa demo`, in Gradio: one picture at a time, no connection to any other machine, nothing kept on the disk."""

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from biqa.data.images import load_image
from biqa.data.pictures import ENDINGS
from biqa.data.record import Reduction
from biqa.errors import IncompatibleChoice, MachineLimit, UserError
from biqa.evaluation.predictions import Unreadable
from biqa.finished.predicting import Scorer
from biqa.reporting import demo_page
from biqa.reporting.page import THUMBNAIL, PageFigure, thumbnail
from biqa.stages.limits import limits_in_words

SWEEP, OLDEST = 60, 3600
"""Seconds: how often what was sent and never asked about is looked for, and how old it may be."""
HEADERS = {
    # scripts and styles of the page itself; nothing may be asked for elsewhere
    "Content-Security-Policy": "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; worker-src 'self' blob:; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
HERE = ["127.0.0.1", "localhost"]
RESTORE = "(kept, command) => kept && kept.length ? kept : ['', command]"
"""In the browser: what it has kept, if anything."""


@dataclass(frozen=True)
class Limits:
    """What the page takes."""

    max_mb: int
    """Largest file, in MB (2^20 bytes)."""
    waiting: int
    """Pictures that may wait for their turn."""
    open: bool = False
    """Whether it may be called by other names than this machine's own, as from other machines it is."""


@contextmanager
def served(answering: "Answering", notes: Sequence[str], limits: Limits, *, host: str, port: int) -> Iterator[str]:
    """The page, served in a thread of its own as long as the context lasts.

    Args:
        answering: what it asks.
        notes: what must be known to read the scores.
        limits: what it takes.
        host: address to bind to.
        port: a free one.

    Yields:
        Its address.
    """
    with TemporaryDirectory(prefix="biqa-demo-") as folder, _settings(folder):
        page, theme = _page(answering, notes, limits)
        try:
            page.launch(
                server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False, show_error=False,
                allowed_paths=[], max_file_size=limits.max_mb * 2**20, footer_links=[], run_history=False, enable_monitoring=False,
                ssr_mode=False, pwa=False, mcp_server=False, css=demo_page.STYLE, theme=theme, app_kwargs={"middleware": _middleware(limits)},
            )  # fmt: skip
            yield f"http://{host}:{port}/"
        finally:
            page.close(verbose=False)


@contextmanager
def _settings(folder: str) -> Iterator[None]:
    """Gradio's settings in the environment: none but ours, for others would undo what this page promises."""
    before = dict(os.environ)
    for name in [name for name in os.environ if name.startswith("GRADIO_")]:
        del os.environ[name]
    local = ",".join(filter(None, (before.get("NO_PROXY") or before.get("no_proxy"), *HERE)))
    os.environ.update(GRADIO_TEMP_DIR=folder, GRADIO_ANALYTICS_ENABLED="False", NO_PROXY=local, no_proxy=local)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


class Answering:
    """Says of a picture what the page shows.

    Args:
        scorer: the run.
        repeats: how often it is asked again.
        options: of `biqa predict`, which say the same.
    """

    def __init__(self, scorer: Scorer, repeats: int, options: Sequence[str]) -> None:
        self.scorer = scorer
        self.repeats = repeats
        self.options = options

    def __call__(self, file: str | None) -> tuple[None, str, str, list[str]]:
        """Of a file that was sent, which is deleted: an empty place for the next one, the answer, the command, and both for the browser to keep."""
        if file is None:
            return None, "", self.command("FILE"), []
        try:
            said = self.answer(Path(file))
        finally:
            shutil.rmtree(Path(file).parent, ignore_errors=True)  # a folder for each file
        command = self.command(Path(file).name)
        return None, said, command, [said, command]

    def command(self, name: str) -> str:
        """The same on a terminal."""
        return demo_page.command(self.options, name)

    def answer(self, file: Path) -> str:
        """A piece of HTML: what is said of the picture, or why nothing is."""
        try:
            with limits_in_words(file.parent, then="try again"):
                (result,) = self.scorer.each([file], repeats=self.repeats)
                if isinstance(result, Unreadable):
                    return demo_page.refusal(f"{file.name}: {result.reason}")
                picture = thumbnail(load_image(file, Reduction(THUMBNAIL, None)))
                return demo_page.answer(result, file.name, picture, self.lens(file, result.description))
        except (UserError, MachineLimit) as error:
            return demo_page.refusal(str(error).replace(f"{file.parent}{os.sep}", ""))

    def lens(self, file: Path, description: str | None) -> PageFigure | None:
        """The lens; None where the run has no words, or its layers cannot be read."""
        if description is None:
            return None
        try:
            return demo_page.lens_figure(self.scorer.lens(file, description), self.scorer.name, file.name)
        except IncompatibleChoice:
            return None


def _page(answering: Answering, notes: Sequence[str], limits: Limits) -> tuple[Any, Any]:
    """The page and its looks, which are on this machine: no font is fetched."""
    import gradio as gr  # pyright: ignore[reportMissingImports]

    title = f"What {answering.scorer.name} says of a picture"
    with gr.Blocks(analytics_enabled=False, title=title, delete_cache=(SWEEP, OLDEST)) as page:
        _piece(gr, demo_page.head(title, _facts(answering.scorer), notes))
        picture = gr.File(label=f"A picture, up to {limits.max_mb} MB", file_types=["image", *ENDINGS], height=140)
        picture.async_move_resource_to_block_cache = _only_files_sent(gr, picture.async_move_resource_to_block_cache)
        said = _piece(gr, "")
        command = gr.Textbox(answering.command("FILE"), label="The same as a command", interactive=False, lines=1, buttons=["copy"])
        kept = gr.BrowserState([], storage_key=f"biqa-{answering.scorer.name}")
        forget = gr.Button("Forget what was said", size="sm")
        picture.upload(answering, picture, [picture, said, command, kept], api_name="answer", concurrency_limit=1)
        forget.click(lambda: answering(None), None, [picture, said, command, kept], api_visibility="private", queue=False)
        # what was said of the last picture is there again after a reload
        page.load(None, [kept, command], [said, command], js=RESTORE, api_visibility="private")
    page.queue(max_size=limits.waiting, default_concurrency_limit=1)
    return page, gr.themes.Default(font=("system-ui", "sans-serif"), font_mono=("ui-monospace", "monospace"))


def _piece(gr: Any, text: str) -> Any:  # noqa: ANN401 (Gradio's module and component)
    return gr.HTML(text, elem_classes="biqa", js_on_load=None, apply_default_css=False)


def _facts(scorer: Scorer) -> dict[str, str]:
    run = scorer.result["run"]
    return {"model": run["model"], "stage": run["stage"], "has learnt from": scorer.learnt_from}


def _only_files_sent(gr: Any, keep: Callable[..., Any]) -> Callable[..., Any]:  # noqa: ANN401 (Gradio's module)
    """Gradio would fetch an address that is named in place of a file."""

    async def kept(path: Any) -> Any:  # noqa: ANN401 (Gradio's)
        if "://" in str(path):
            raise gr.Error("An address is not fetched: send the file.", print_exception=False)
        return await keep(path)

    return kept


def _middleware(limits: Limits) -> list[Any]:
    """Around every answer of the server."""
    from starlette.middleware import Middleware  # pyright: ignore[reportMissingImports]
    from starlette.middleware.trustedhost import TrustedHostMiddleware  # pyright: ignore[reportMissingImports]

    # a page elsewhere whose name is made to lead here (DNS rebinding) comes with its own name
    own = [] if limits.open else [Middleware(TrustedHostMiddleware, allowed_hosts=HERE, www_redirect=False)]
    return [*own, Middleware(Guard)]


class Guard:
    """Refuses to fetch addresses for whoever asks, which Gradio would do, and forbids the browser to ask elsewhere.

    Args:
        app: what answers otherwise (ASGI).
    """

    def __init__(self, app: Callable[..., Any]) -> None:
        self.app = app

    async def __call__(self, scope: dict[str, Any], receive: Callable[..., Any], send: Callable[..., Any]) -> None:
        """One request."""
        from starlette.datastructures import MutableHeaders  # pyright: ignore[reportMissingImports]
        from starlette.responses import PlainTextResponse  # pyright: ignore[reportMissingImports]

        async def guarded(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answering = PlainTextResponse("No address is fetched here.", 404) if "//" in scope.get("path", "") else self.app
        await answering(scope, receive, guarded)
