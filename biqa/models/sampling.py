"""Many answers from one prefill: a greedy one and N sampled ones for every prompt.

Each image is encoded once and its prompt read once; the cache is then expanded to N + 1 rows. The random numbers of an image come from a
generator of its own, seeded by (seed, image): an answer does not depend on which other images share its batch, nor on their order.
Shapes: B prompts, R = B * (N + 1) rows, T steps.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from biqa.models.vlm import VLM, Memory, Prompt


@dataclass(frozen=True)
class SampledTexts:
    """What `sample` returns. Row r = prompt * (N + 1) + query; query 0 is greedy."""

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
    """Index drawn from each distribution by inverting its cumulative sum: [..., K] and [...] in [0, 1) -> [...]."""
    cumulative = probabilities.double().cumsum(-1)
    cumulative = cumulative / cumulative[..., -1:]
    return torch.searchsorted(cumulative, uniform.to(cumulative)[..., None].contiguous(), right=True)[..., 0].clamp(max=probabilities.shape[-1] - 1)


def next_tokens(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """One sampled token a row: logits [R, V], uniform [R] -> [R]. `top_p` keeps the likeliest tokens that reach that mass."""
    probabilities = (logits.float() / temperature).softmax(-1)
    if top_p < 1.0:
        ordered, order = probabilities.sort(-1, descending=True)
        ordered[ordered.cumsum(-1) - ordered >= top_p] = 0.0
        probabilities = torch.zeros_like(probabilities).scatter(-1, order, ordered)
    return draw(probabilities, uniform)


def left_padded(prompts: Sequence[Prompt], pad_id: int, device: torch.device) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Prompts as a batch whose last position is real in every row: input_ids [B, L], attention_mask [B, L], the tower's inputs."""
    length = max(len(prompt.ids) for prompt in prompts)
    ids = torch.full((len(prompts), length), pad_id)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, length - len(prompt.ids) :] = torch.tensor(prompt.ids)
        mask[row, length - len(prompt.ids) :] = 1
    seen = {name: torch.cat([_widened(prompt.image[name]) for prompt in prompts]).to(device) for name in prompts[0].image}
    return ids.to(device), mask.to(device), seen


def _widened(value: Tensor) -> Tensor:
    """Prepared images are kept as float16, which autocast to bfloat16 does not take."""
    return value.float() if value.is_floating_point() else value


@torch.no_grad()
def level_probabilities(vlm: VLM, prompts: Sequence[Prompt], stem: Sequence[int]) -> Tensor:
    """Level distribution after each prompt and the token ids of the stem, in one forward pass: [B, 5], rows sum to 1 (METHOD.md section 4)."""
    ids, mask, image = left_padded([Prompt((*prompt.ids, *stem), prompt.image) for prompt in prompts], vlm.pad_id, vlm.device)
    return vlm.level_logits(vlm.hidden(ids, mask, image=image)[:, -1]).softmax(-1)


@torch.no_grad()
def sample(
    vlm: VLM, prompts: Sequence[Prompt], uniform: Tensor, *, temperature: float, top_p: float, max_new_tokens: int, stem: str | None = None
) -> SampledTexts:
    """Answer every prompt 1 + N times: once greedily, N times by sampling.

    Args:
        prompts: B prompts, each with or all without an image.
        uniform: [B, N, >= max_new_tokens] random numbers in [0, 1); N may be 0.
        temperature: > 0; `top_p` in (0, 1].
        max_new_tokens: an answer is cut there.
        stem: when given, an answer ends where the model writes the stem (or ends by itself), and the level distribution after the stem is
            read from the same cache.
    """
    queries = uniform.shape[1] + 1
    ids, mask, image = left_padded(prompts, vlm.pad_id, vlm.device)
    memory = Memory()
    hidden = vlm.hidden(ids, mask, memory=memory, image=image)[:, -1]
    memory.repeat(queries)
    hidden, mask = hidden.repeat_interleave(queries, 0), mask.repeat_interleave(queries, 0)
    greedy = (torch.arange(len(hidden), device=hidden.device) % queries) == 0
    # query 0 has no random numbers of its own: its row is overwritten by the greedy choice
    numbers = torch.cat([uniform.new_zeros(len(prompts), 1, uniform.shape[2]), uniform], 1).flatten(0, 1).to(hidden.device)
    stem_ids = torch.tensor(vlm.continuation(stem) if stem else [vlm.eos_id], device=hidden.device)

    lengths = torch.full((len(hidden),), max_new_tokens, device=hidden.device)
    alive = torch.ones_like(greedy)
    written = hidden.new_zeros((len(hidden), 0), dtype=torch.long)
    prompt_mask = mask
    for step in range(max_new_tokens):
        logits = vlm.logits(hidden)
        tokens = torch.where(greedy, logits.argmax(-1), next_tokens(logits, numbers[:, step], temperature, top_p))
        written = torch.cat([written, torch.where(alive, tokens, vlm.pad_id)[:, None]], 1)
        ended = alive & (tokens == vlm.eos_id)
        lengths = torch.where(ended, step, lengths)
        alive = alive & ~ended
        if stem and step + 1 >= len(stem_ids):
            said = alive & (written[:, -len(stem_ids) :] == stem_ids).all(-1)
            lengths = torch.where(said, step + 1 - len(stem_ids), lengths)
            alive = alive & ~said
        if not _goes_on(alive, vlm.sharded):
            break
        mask = torch.cat([mask, alive[:, None].to(mask)], 1)
        hidden = vlm.hidden(written[:, -1:], mask, memory=memory)[:, -1]

    probabilities = None
    if stem:
        hidden = _after_stem(vlm, memory, prompt_mask, lengths, stem_ids)
        probabilities = vlm.level_logits(hidden).softmax(-1).unflatten(0, (len(prompts), queries))
    rows = [written[row, :length].tolist() for row, length in enumerate(lengths.tolist())]
    texts = [vlm.text(row) for row in rows]
    return SampledTexts([texts[start : start + queries] for start in range(0, len(texts), queries)], probabilities)


def _goes_on(alive: Tensor, together: bool) -> bool:
    """Whether a row has not ended: here, or in any process where they hold the weights together and must take the same number of steps."""
    flag = alive.any().int()
    if together:
        dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag)


def _after_stem(vlm: VLM, memory: Memory, prompt_mask: Tensor, lengths: Tensor, stem_ids: Tensor) -> Tensor:
    """Hidden state at the last token of the stem, fed after the first `lengths` tokens of each answer: [R, D].

    Whatever a row wrote beyond its answer (its own stem, the end token, padding) stays in the cache and is masked out.
    """
    answered = memory.cache.get_seq_length() - prompt_mask.shape[1]
    kept = torch.arange(answered, device=lengths.device)[None] < lengths[:, None]
    mask = torch.cat([prompt_mask, kept.to(prompt_mask), prompt_mask.new_ones(len(lengths), len(stem_ids))], 1)
    return vlm.hidden(stem_ids[None].expand(len(lengths), -1), mask, memory=memory)[:, -1]
