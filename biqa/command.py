"""The command `biqa`: its first word names a door, and what follows is the door's. `biqa run stage=joint` is `python -m biqa.run stage=joint`.

The door takes the place of this process, so that signals, exit code and standard streams are its own. Nothing is imported to choose it.
"""

import os
import sys

import biqa

DOORS = {
    "run": "train and measure one run, or many (-m)",
    "predict": "description and score of pictures of yours",
    "report": "tables and figure of finished runs",
    "analyze": "look inside a finished run",
    "compare": "are two runs different, and on which images?",
    "ls": "list runs with their figures",
    "rerun": "make a run again, and say whether it is the same bit for bit",
    "prepare": "check a data set before anything is trained on it",
    "search": "search over options, judged on the validation split",
    "reproduce": "the paper's tables, with the data sets that are there",
    "demo": "a page on this machine to try a run on pictures",
    "doctor": "is everything here that a run needs?",
    "completion": "TAB completion for bash, zsh, fish",
}
"""Name -> what it is for. Each is a module of that name."""

ALSO = {
    "train": "run", "fit": "run", "score": "predict", "infer": "predict", "test": "report", "table": "report", "inspect": "analyze",
    "diff": "compare", "list": "ls", "check": "doctor", "serve": "demo",
}  # fmt: skip
"""What other programs call them."""

HELP = f"""biqa: two-stage tuning of vision-language models for blind image quality assessment.

Examples
  biqa run stage=joint model=tiny                   train and measure; nothing is downloaded
  biqa predict run=runs/NAME photos                 score pictures with a finished run
  biqa compare runs/NAME runs/OTHER                 are two runs different?

Commands
{"".join(f"  {door:<12}{purpose}{chr(10)}" for door, purpose in DOORS.items())}
biqa COMMAND --help says more. Options are written NAME=VALUE. Version: biqa --version."""


def main() -> None:
    """Go to the door that was named. Exit code 2 where there is no such door."""
    door, *arguments = sys.argv[1:] or ["--help"]
    if door == "help":
        door, arguments = (arguments[0], ["--help"]) if arguments else ("--help", [])
    if door in ("-h", "--help"):
        print(HELP)
    elif door in ("-V", "--version", "version"):
        print(f"biqa {biqa.__version__}")
    elif door in DOORS:
        enter(door, arguments)
    else:
        print(no_door(door), file=sys.stderr)
        raise SystemExit(2)


def enter(door: str, arguments: list[str]) -> None:
    """Become `python -m biqa.<door>`.

    Called as `biqa`, modules in the working directory are not imported (-P): it may be a folder of somebody's pictures and whatever lies beside them.
    Called as `python -m biqa`, Python has looked there already, and a checkout that is not installed is found there alone.
    """
    as_module = os.path.basename(sys.argv[0]) == "__main__.py"
    safely = [] if as_module and not sys.flags.safe_path else ["-P"]
    os.execv(sys.executable, [sys.executable, *safely, "-m", f"biqa.{door}", *arguments])


def no_door(word: str) -> str:
    """What to say of a word that names no door."""
    from biqa.config.checks import did_you_mean, nearest

    meant = [ALSO[word]] if word in ALSO else nearest(word, DOORS)
    if "=" in word:
        return f"There is no command {word}. An option follows its command: biqa run {word}"
    hint = did_you_mean([f"biqa {door}" for door in meant])
    return f"There is no command {word}.{hint}" + ("" if hint else f" There are {', '.join(DOORS)}.")
