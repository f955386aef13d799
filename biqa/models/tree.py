"""Several answers to one prompt as a tree: one row of the decoder's memory, whose trunk is the prompt and whose branches are the answers.

Each branch sees the prompt and its own tokens. So keys and values of a prompt are kept and read once, however many answers there are, and a step of
decoding is a pass over [rows, branches] tokens. The price: the attention also looks at the tokens of the other branches, to leave them out, which is
why a row has a limited number of branches (`BRANCHES`).

Shapes: R rows, Q branches a row, L positions of the prompt, s tokens that each branch has read, D width.
"""

from collections.abc import Sequence, Set

import torch
from torch import Tensor, nn

from biqa.models.memory import Memory, Move
from biqa.models.vlm import VLM

BRANCHES = 16
"""At most so many a row."""
WORTHWHILE = 0.75
"""Branches are arranged anew when this share of their places is enough: it copies what they have read."""
NOBODY = -1


def branches(vlm: VLM) -> int:
    """How many answers a row may hold."""
    return BRANCHES if vlm.packs else 1


def split(places: list[int], most: int) -> list[list[int]]:
    """Into as few lists as hold at most `most` each, of about the same length."""
    size = -(-len(places) // -(-len(places) // most))
    return [places[at : at + size] for at in range(0, len(places), size)]


def _places(answers: list[list[int]]) -> dict[int, tuple[int, int]]:
    return {answer: (row, place) for row, own in enumerate(answers) for place, answer in enumerate(own) if answer != NOBODY}


class Tree:
    """Answers that go on together, a token each at a step.

    Args:
        vlm: the model.
        memory: of the prompts, a row each.
        seen: [R, L], 1 on the prompts' real tokens.
        answers: [R][Q], the number of the answer at each place; NOBODY where there is none.
        prompts: [R], the number of the prompt of each row: several rows may have one.
        tokens: how many an answer may read, at most.
    """

    def __init__(self, vlm: VLM, memory: Memory, *, seen: Tensor, answers: list[list[int]], prompts: list[int], tokens: int) -> None:
        self.vlm = vlm
        self.memory = memory
        self.seen = seen
        self.counts = seen.sum(-1, keepdim=True)
        self.answers = answers
        self.prompts = prompts
        self.tokens = tokens
        self.places = _places(answers)
        """Row and branch of each answer."""
        self.read = 0
        """Tokens that each answer has read: s."""

    def feed(self, tokens: Tensor) -> Tensor:
        """Read T tokens more in each answer: ids [R, Q, T] -> hidden states [R, Q, T, D]. What an answer reads last may be padding."""
        _, wide, number = tokens.shape
        hidden = self.hidden(tokens.transpose(1, 2).flatten(1).to(self.seen.device), number, wide)
        self.read += number
        return hidden.unflatten(1, (number, wide)).transpose(1, 2)

    def hidden(self, ids: Tensor, number: int, wide: int) -> Tensor:
        """States [R, T * Q, D] of so many tokens more in each answer, ids [R, T * Q]."""
        if wide == 1:
            return self.vlm.hidden(ids, nn.functional.pad(self.seen, (0, self.read + number), value=1), memory=self.memory)
        return self.vlm.hidden(ids, self.sees(number, wide), memory=self.memory, positions=self.positions(number, wide))

    def positions(self, number: int, wide: int) -> Tensor:
        """[R, T * Q], where the next tokens stand in their texts."""
        return self.counts + (self.read + torch.arange(number, device=self.seen.device)).repeat_interleave(wide)

    def states(self, hidden: Tensor, answers: Sequence[int]) -> Tensor:
        """Those of some answers: [R, Q, D] -> [answers, D]."""
        if not answers:
            return hidden.new_empty(0, hidden.shape[-1])
        rows, places = torch.tensor([self.places[answer] for answer in answers], device=hidden.device).unbind(-1)
        return hidden[rows, places]

    def sees(self, number: int, wide: int) -> Tensor:
        """[R, T * Q, L + (s + T) * Q] bool: a token sees the prompt, and of its own answer itself and what stands before."""
        places = torch.arange((self.read + number) * wide, device=self.seen.device)
        step, branch = places // wide, places % wide
        now = -number * wide
        own = (branch == branch[now:, None]) & (step <= step[now:, None])
        rows = len(self.seen)
        return torch.cat([self.seen.bool()[:, None].expand(-1, len(own), -1), own.expand(rows, -1, -1)], -1)

    def leave(self, going_on: Set[int]) -> None:
        """Let go of the answers that do not go on, where that makes the tree enough smaller."""
        wide, most = len(self.answers[0]), branches(self.vlm)
        alive: dict[int, list[int]] = {}
        for row, (prompt, answers) in enumerate(zip(self.prompts, self.answers, strict=True)):
            alive.setdefault(prompt, []).extend(row * wide + place for place, answer in enumerate(answers) if answer in going_on)
        rows = [(prompt, texts) for prompt, places in alive.items() if places for texts in split(places, most)]
        size = len(rows) * max((len(texts) for _, texts in rows), default=0)
        if 0 < size <= WORTHWHILE * len(self.answers) * wide:
            self._move(rows)

    def _move(self, rows: list[tuple[int, list[int]]]) -> None:
        """To rows of prompts and their texts, each a place (row * Q + branch) in the present arrangement."""
        wide, prompt, device = len(self.answers[0]), self.seen.shape[1], self.seen.device
        wanted = max(len(texts) for _, texts in rows)
        before = [answer for answers in self.answers for answer in answers]
        self.answers = [[before[text] for text in texts] + [NOBODY] * (wanted - len(texts)) for _, texts in rows]
        self.prompts = [prompt for prompt, _ in rows]
        self.places = _places(self.answers)
        sources, left_out = [texts[0] // wide for _, texts in rows], 0
        if stays := sources == list(range(len(self.seen))):
            taken = None
        else:
            taken = torch.tensor(sources, device=device)
            self.seen, self.counts = self.seen[taken], self.counts[taken]
            left_out = prompt - int(self.counts.max())
            self.seen = self.seen[:, left_out:]
        texts = torch.tensor([texts + texts[:1] * (wanted - len(texts)) for _, texts in rows], device=device)
        self.memory.move(Move(taken, texts, wide, prompt, left_out), 0 if stays else (self.tokens - self.read) * wanted)
