"""Many answers from one prefill: a greedy one and N sampled ones for every prompt.

Each image is encoded once and its prompt read once; its N + 1 answers then go on from there (`biqa.models.tree`). The random numbers of an image come
from a generator of its own, seeded by (seed, image): an answer does not depend on which other images share its batch, nor on their order.
Shapes: B prompts, R rows of several answers each, V vocabulary, D width.
"""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn

from biqa.errors import NoNumbers
from biqa.models.compiled import MULTIPLE, CompiledSteps, CompiledTree
from biqa.models.memory import Memory, joined
from biqa.models.tree import NOBODY, Tree, branches, split
from biqa.models.vlm import VLM, Prompt

BLOCK = 256
"""Probabilities that are summed together while one is drawn."""
NO_TOKEN = -1
"""What no model writes."""
ALIKE, NEAR = 1.2, 32
"""Prompts are read together where the longest has at most so many times, or so many more, tokens than the shortest."""


@dataclass(frozen=True)
class SampledTexts:
    """What `sample` returns; query 0 is greedy."""

    texts: list[list[str]]
    """[B][N + 1] answers."""
    level_probabilities: Tensor | None
    """[B, N + 1, 5] the level distribution after each answer and the stem (temperature 1), or None when no stem was given."""


def uniforms(seed: int, names: Sequence[str], queries: int, steps: int) -> Tensor:
    """Random numbers in [0, 1) for each image by its name: [images, queries, steps], float64."""
    drawn = []
    for name in names:
        digest = hashlib.sha256(f"{seed}:{name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        drawn.append(torch.rand(queries, steps, generator=generator, dtype=torch.float64))
    return torch.stack(drawn)


def draw(probabilities: Tensor, uniform: Tensor) -> Tensor:
    """Index drawn from each distribution by inverting its cumulative sum: [..., K] and [...] in [0, 1) -> [...].

    Sums are float64. Of many probabilities only those of one block are summed one by one: the blocks' sums tell which.
    """
    size = probabilities.shape[-1]
    if size <= BLOCK:
        return _inverted(probabilities.double().cumsum(-1), uniform.double())
    padded = nn.functional.pad(probabilities, (0, -size % BLOCK)) if size % BLOCK else probabilities
    blocks = padded.unflatten(-1, (-1, BLOCK))
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    block = _inverted(ends, uniform.double())
    begin = nn.functional.pad(ends, (1, 0)).gather(-1, block[..., None])[..., 0]
    inside = blocks.gather(-2, block[..., None, None].expand(*block.shape, 1, BLOCK))[..., 0, :].double().cumsum(-1)
    rest = (uniform.double() * ends[..., -1] - begin) / inside[..., -1]
    return (block * BLOCK + _inverted(inside, rest)).clamp(max=size - 1)


def _inverted(cumulative: Tensor, uniform: Tensor) -> Tensor:
    """The first index whose cumulative sum is above that share of the whole: of positive probability, also where rounding makes the share 1.

    Where nothing can be known of them (NaN), the last one.
    """
    total = cumulative[..., -1]
    wanted = torch.minimum(uniform.to(cumulative) * total, torch.nextafter(total, torch.zeros_like(total)))
    return torch.searchsorted(cumulative, wanted[..., None].contiguous(), right=True)[..., 0].clamp(max=cumulative.shape[-1] - 1)


def next_tokens(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """One sampled token a row: logits [R, V], uniform [R] -> [R]. `top_p` keeps the likeliest tokens that reach that mass."""
    probabilities = (logits.float() if temperature == 1 else logits.float() / temperature).softmax(-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return draw(probabilities, uniform)


def left_padded(prompts: Sequence[Prompt], pad_id: int, device: torch.device, multiple: int = 1) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Prompts as a batch whose last position is real in every row: input_ids [B, L], attention_mask [B, L], the tower's inputs. L is a multiple."""
    length = -(-max(len(prompt.ids) for prompt in prompts) // multiple) * multiple
    ids = torch.full((len(prompts), length), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, length - len(prompt.ids) :] = 1
    seen = {name: torch.cat([_widened(prompt.image[name]) for prompt in prompts]).to(device) for name in prompts[0].image}
    return ids.to(device), mask.to(device), seen


def _widened(value: Tensor) -> Tensor:
    """Prepared images are kept as float16, which autocast to bfloat16 does not take."""
    return value.float() if value.dtype == torch.half else value


@torch.no_grad()
def level_probabilities(vlm: VLM, prompts: Sequence[Prompt], stem: Sequence[int]) -> Tensor:
    """Level distribution after each prompt and the token ids of the stem, in one forward pass: [B, 5], rows sum to 1 (METHOD.md section 4)."""
    ids, mask, image = left_padded([Prompt((*prompt.ids, *stem), prompt.image) for prompt in prompts], vlm.pad_id, vlm.device)
    probabilities = vlm.level_logits(vlm.hidden(ids, mask, image=image)[:, -1]).softmax(-1)
    refuse_no_numbers(probabilities)
    return probabilities


def refuse_no_numbers(computed: Tensor) -> None:
    """Check what a model has made of some prompts, [B, ...]: of NaN the likeliest word is some word, and the answer would look like one.

    Raises:
        NoNumbers: it is not finite.
    """
    sound = computed.isfinite().flatten(1).all(1)
    if not bool(sound.all()):
        raise NoNumbers(
            f"The model computes what is no number (NaN or infinity) for {int((~sound).sum())} of {len(sound)} questions, so that no answer means "
            f"anything. Its weights have diverged, or do not fit into its type: learn with a smaller tuning.lr, answer with "
            f"trainer.precision=32-true, or choose model.dtype=bfloat16 in place of float16."
        )


class Answers:
    """What the answers consist of, by their numbers: prompt * (N + 1) + query.

    Args:
        number: of answers.
        tokens: an answer is cut there; or of each answer, where it is cut.
        stem: token ids, or none. An answer that does not end by writing it is given it, and so reads it like words of its own.
        eos_id: what ends an answer; it is never read.
    """

    def __init__(self, number: int, tokens: int | Sequence[int], stem: Sequence[int], eos_id: int) -> None:
        self.cuts = [tokens] * number if isinstance(tokens, int) else list(tokens)
        self.stem = list(stem)
        self.eos_id = eos_id
        self.tokens: list[list[int]] = [[] for _ in range(number)]
        """What each reads: what it wrote and, once it has ended, the stem."""
        self.writing = set(range(number))
        """Those that have not ended."""

    def write(self, numbers: Sequence[int], tokens: Sequence[int]) -> None:
        """Add the token that each of some answers wrote."""
        for number, token in zip(numbers, tokens, strict=True):
            own = self.tokens[number]
            if token != self.eos_id:
                own.append(token)
            said = token != self.eos_id and bool(self.stem) and own[-len(self.stem) :] == self.stem
            if token == self.eos_id or said or len(own) == self.cuts[number]:
                self.writing.remove(number)
                own.extend([] if said else self.stem)

    def text(self, number: int) -> list[int]:
        """Token ids of an answer that has ended, without the stem."""
        own = self.tokens[number]
        return own[: len(own) - len(self.stem)]

    def unread(self, read: int) -> set[int]:
        """Those that have more to read than `read` tokens."""
        return {number for number, own in enumerate(self.tokens) if len(own) > read or number in self.writing}

    def following(self, places: list[list[int]], read: int, tokens: int, padding: int) -> Tensor:
        """The next tokens to read, for the answers at some places: [R][Q] numbers -> [R, Q, tokens]."""
        nothing = [padding] * tokens
        found = [[(self.tokens[number][read : read + tokens] if number != NOBODY else []) for number in row] for row in places]
        return torch.tensor([[own + nothing[len(own) :] for own in row] for row in found])


class Choice:
    """The next token of each answer: the likeliest one for query 0, drawn for the others.

    Args:
        uniform: [B, N, steps] random numbers in [0, 1).
        temperature: > 0; `top_p` in (0, 1].
    """

    def __init__(self, uniform: Tensor, temperature: float, top_p: float) -> None:
        self.uniform = uniform
        self.temperature = temperature
        self.top_p = top_p

    def order(self, numbers: Iterable[int]) -> list[int]:
        """Greedy ones first, so that each kind is a part of the logits and no copy."""
        queries = self.uniform.shape[1] + 1
        return sorted(numbers, key=lambda number: (number % queries > 0, number))

    def __call__(self, logits: Tensor, numbers: Sequence[int], step: int) -> list[int]:
        """Tokens for the answers of these numbers, in `order`, by their logits [answers, V]."""
        places = [divmod(number, self.uniform.shape[1] + 1) for number in numbers]
        greedy = sum(query == 0 for _, query in places)
        chosen = logits[:greedy].argmax(-1)
        if greedy < len(numbers):
            prompt, query = torch.tensor(places[greedy:], device=self.uniform.device).unbind(-1)
            drawn = next_tokens(logits[greedy:], self.uniform[prompt, query - 1, step], self.temperature, self.top_p)
            chosen = torch.cat([chosen, drawn])
        return chosen.tolist()


@torch.no_grad()
def sample(
    vlm: VLM,
    prompts: Sequence[Prompt],
    uniform: Tensor,
    *,
    temperature: float,
    top_p: float,
    max_new_tokens: int,
    stem: str | None = None,
    steps: CompiledSteps | None = None,
    lengths: Sequence[int] | None = None,
) -> SampledTexts:
    """Answer every prompt 1 + N times: once greedily, N times by sampling.

    Args:
        prompts: B prompts, each with or all without an image.
        uniform: [B, N, >= max_new_tokens] random numbers in [0, 1); N may be 0.
        temperature: > 0; `top_p` in (0, 1].
        max_new_tokens: an answer is cut there.
        stem: when given, an answer ends where the model writes the stem (or ends by itself), and the level distribution after answer and stem is
            read on the way: an answer that ended reads the stem while others still write.
        steps: of this model, compiled; None: they are not.
        lengths: [B * (N + 1)] tokens of each answer, at most max_new_tokens, which then ends there and, whatever the model says, not before: to see
            how long answers of such lengths take. None: the model ends them.

    Raises:
        NoNumbers: what the model computes is not finite.
    """
    queries = uniform.shape[1] + 1
    ends = vlm.eos_id if lengths is None else NO_TOKEN
    answers = Answers(len(prompts) * queries, lengths or max_new_tokens, vlm.continuation(stem) if stem else [], ends)
    choose = Choice(uniform.to(vlm.device), temperature, top_p)
    tree, hidden = _planted(vlm, prompts, queries, max_new_tokens + len(answers.stem), steps)
    refuse_no_numbers(hidden)
    after: dict[int, Tensor] = {}
    while True:
        writing = choose.order(answers.writing)
        if writing:
            answers.write(writing, choose(vlm.logits(tree.states(hidden, writing)), writing, tree.read))
        if not _goes_on(bool(answers.writing), vlm):
            break
        tree.leave(answers.unread(tree.read))
        hidden = tree.feed(answers.following(tree.answers, tree.read, 1, vlm.pad_id))[:, :, 0]
        if stem:
            ended = [number for number in tree.places if number not in answers.writing and len(answers.tokens[number]) == tree.read]
            after |= dict(zip(ended, tree.states(hidden, ended), strict=True))
    probabilities = None
    if stem:
        after |= _last_words(vlm, tree, answers)
        states = torch.stack([after[number] for number in range(len(answers.tokens))])
        probabilities = vlm.level_logits(states).softmax(-1).unflatten(0, (len(prompts), queries))
        refuse_no_numbers(probabilities)
    texts = [vlm.text(answers.text(number)) for number in range(len(answers.tokens))]
    return SampledTexts([texts[start : start + queries] for start in range(0, len(texts), queries)], probabilities)


def _planted(vlm: VLM, prompts: Sequence[Prompt], queries: int, tokens: int, steps: CompiledSteps | None) -> tuple[Tree, Tensor]:
    """The prompts, read once each, with a place for every answer of up to so many tokens; and the state before its first word, [R, Q, D]."""
    own = split(list(range(queries)), branches(vlm))
    wide, room = len(own[0]), 0 if steps else tokens * len(own[0])
    groups = alike(prompts) if not vlm.sharded else [list(range(len(prompts)))]
    straight = len(groups) == len(own) == 1
    read = [_read(vlm, [prompts[number] for number in group], room=room if straight else 0, multiple=MULTIPLE if steps else 1) for group in groups]
    memory = read[0].memory if straight else joined([one.memory for one in read], len(own), room)
    length = max(one.seen.shape[1] for one in read)
    seen = torch.cat([nn.functional.pad(one.seen, (length - one.seen.shape[1], 0)) for one in read]).repeat_interleave(len(own), 0)
    hidden = torch.cat([one.hidden for one in read]).repeat_interleave(len(own), 0).expand(-1, wide, -1)
    rows = [(number, part) for group in groups for number in group for part in own]
    answers = [[number * queries + query for query in part] + [NOBODY] * (wide - len(part)) for number, part in rows]
    of_prompt = [number for number, _ in rows]
    if steps:
        return CompiledTree(steps, vlm, memory, seen=seen, answers=answers, prompts=of_prompt, tokens=tokens), hidden
    return Tree(vlm, memory, seen=seen, answers=answers, prompts=of_prompt, tokens=tokens), hidden


@dataclass(frozen=True)
class _Read:
    """Prompts of similar length once they have been read."""

    memory: Memory
    seen: Tensor
    """[B, L], 1 on real tokens."""
    hidden: Tensor
    """[B, 1, D], at the last one."""


def _read(vlm: VLM, prompts: Sequence[Prompt], *, room: int, multiple: int) -> _Read:
    ids, seen, image = left_padded(prompts, vlm.pad_id, vlm.device, multiple)
    memory = Memory(room)
    return _Read(memory, seen, vlm.hidden(ids, seen, memory=memory, image=image)[:, -1:])


def alike(prompts: Sequence[Prompt]) -> list[list[int]]:
    """Numbers of prompts that are read together, so that little is padding (`ALIKE`, `NEAR`); the shortest first."""
    lengths = [len(prompt.ids) for prompt in prompts]
    groups: list[list[int]] = []
    for number in sorted(range(len(prompts)), key=lengths.__getitem__):
        shortest = lengths[groups[-1][0]] if groups else 0
        if groups and lengths[number] <= max(ALIKE * shortest, shortest + NEAR):
            groups[-1].append(number)
        else:
            groups.append([number])
    return groups


def _last_words(vlm: VLM, tree: Tree, answers: Answers) -> dict[int, Tensor]:
    """States at the last token of the stem for the answers that have not read it all: what is left is read in one pass."""
    unread = answers.unread(tree.read)
    if not unread and not vlm.sharded:
        return {}
    tree.leave(unread)
    left = {number: len(answers.tokens[number]) - tree.read for number in unread}
    states = tree.feed(answers.following(tree.answers, tree.read, max(left.values(), default=1), vlm.pad_id))
    return {number: states[*tree.places[number], last - 1] for number, last in left.items()}


def _goes_on(here: bool, vlm: VLM) -> bool:
    """Whether an answer has not ended: here, or in any process where they hold the weights together and must take the same number of passes."""
    if not vlm.sharded:
        return here
    flag = torch.tensor(int(here), device=vlm.device)
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)
