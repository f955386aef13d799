"""vLLM in place of biqa's own engine: the same answers and the same level distribution, with random numbers of its own.

vLLM is given token ids and pictures, of which it makes the tower's inputs itself. Text, the end of an answer and the level distribution after it are
those of `biqa.models.sampling`: an answer is cut where it begins to write the stem, and the five level tokens are asked for by their numbers, so that
none can be missing. Written against vLLM 0.32, which is imported when an engine is started, and nowhere else.
Shapes: B prompts, N sampled answers of each.
"""

import gc
import os
from collections.abc import Sequence
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from biqa.errors import IncompatibleChoice, MachineLimit
from biqa.models.sampling import SampledTexts
from biqa.models.served import SERVED, Weights, served_folder, vllm_version
from biqa.models.vlm import VLM, Picture, Prompt

AT_A_TIME = 32
"""Images whose answers are asked for together: some hundred answers keep a GPU busy, and so many photographs fit into the host's memory."""
AS_LONG_AS_FITS = -1
"""vLLM's word for as many positions as the memory holds."""


class VllmEngine:
    """vLLM at work on one model, in processes of its own. `close` ends them.

    Asked again, seeded answers are the same but for rounding: logits differ in their last digits with what else is read at that time.

    Args:
        vlm: the model that it stands for: prompts, tokenizer, names. Its weights may be gone.
        weights: what to serve.
        place: a folder that may be made while it is served, for a model that must be laid out in another way.
        dtype: of weights and activations, torch's name.
        gpu_memory_utilization: share of each GPU's memory that may be taken.
        max_model_len: positions of a prompt and its answer; None: as many as fit.
        tensor_parallel: GPUs that the weights are divided among.

    Raises:
        IncompatibleChoice: vLLM is too old, or refuses the model or an option.
        MachineLimit: it does not come up, most often for want of memory.
    """

    def __init__(
        self, vlm: VLM, weights: Weights, place: Path, *, dtype: str, gpu_memory_utilization: float, max_model_len: int | None, tensor_parallel: int
    ) -> None:
        os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # it would tell its makers of each start
        os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
        import vllm  # pyright: ignore[reportMissingImports] (an extra)
        from vllm.lora.request import LoRARequest  # pyright: ignore[reportMissingImports]

        if not hasattr(vllm.SamplingParams, "logprob_token_ids"):
            raise IncompatibleChoice(
                f"answers=vllm: vLLM {vllm_version()} cannot give the probabilities of tokens that it is told: pip install -U 'biqa[vllm]'."
            )
        self.vlm = vlm
        self._params: Any = vllm.SamplingParams
        self._adapter = None if weights.adapter is None else LoRARequest("learnt", 1, str(weights.adapter.resolve()))
        self._numbers = count()
        self._open = ExitStack()
        adapter = {} if weights.adapter is None else {"enable_lora": True, "max_lora_rank": weights.rank, "max_loras": 1}
        # a decoder alone knows no images; of a whole model that is asked about texts, the tower is not loaded
        images = {"limit_mm_per_prompt": {"image": int(vlm.vision), "video": 0}} if weights.sees else {}
        try:
            self._llm: Any = vllm.LLM(
                model=str(self._open.enter_context(served_folder(weights, vlm, place))), trust_remote_code=False, dtype=dtype,
                tensor_parallel_size=tensor_parallel, gpu_memory_utilization=gpu_memory_utilization,
                max_model_len=max_model_len or AS_LONG_AS_FITS, enable_prefix_caching=True,
                generation_config="vllm",  # the checkpoint's own would bring further tokens that end an answer
                logprobs_mode="raw_logprobs",
                hf_overrides={"head_dtype": "float32"},  # bfloat16 knows logits around 20 in steps of an eighth, so that scores would tie
                **images, **adapter,
            )  # fmt: skip
        except (ValueError, TypeError, ImportError, OSError, RuntimeError) as error:
            self._open.close()
            raise self._did_not_start(error, weights) from error

    def _did_not_start(self, error: Exception, weights: Weights) -> Exception:
        served = f"{weights.model} ({SERVED[self.vlm.family.name].name if weights.sees else 'its decoder alone'})"
        said = f"answers=vllm: vLLM {vllm_version()} does not start with {served}: {' '.join(str(error).split())[:300]}"
        if isinstance(error, RuntimeError):  # its processes have said more
            return MachineLimit(
                f"{said}\nIts own words stand above. What was learnt is kept, and ckpt=last goes on. Where memory is short: a smaller "
                f"answers.max_model_len, another answers.gpu_memory_utilization (the GPU must have that share free), answers.tensor_parallel=2."
            )
        return IncompatibleChoice(f"{said}\nChoose other options of answers=, or answers=own. With ckpt=last and its name= the run goes on.")

    def prompt(self, question: str, image: Image.Image | None = None) -> Prompt:
        """The question in the family's chat form, the image beside it: one token stands for it, which vLLM replaces by as many as it takes."""
        if image is None:
            return self.vlm.prompt(question)
        token = self.vlm.processor.image_token
        return Prompt(self.vlm.question_ids(question, token), placeholder=token, picture=Picture(image, f"picture {next(self._numbers)}"))

    def sample(
        self, prompts: Sequence[Prompt], uniform: Tensor, *, temperature: float, top_p: float, max_new_tokens: int, stem: str | None = None
    ) -> SampledTexts:
        """Answer every prompt 1 + N times: once greedily, N times by sampling.

        Args:
            prompts: B prompts, made by `prompt`.
            uniform: [B, N, steps] random numbers in [0, 1) by image and query; the first of each image seeds vLLM's own.
            temperature: > 0; `top_p` in (0, 1].
            max_new_tokens: an answer is cut there.
            stem: as in `biqa.models.sampling.sample`.
        """
        ends: dict[str, Any] = {"max_tokens": max_new_tokens, "stop_token_ids": [self.vlm.eos_id], "ignore_eos": True, "detokenize": False}
        requests, params = list(prompts), [self._params(temperature=0.0, **ends) for _ in prompts]
        queries = uniform.shape[1]
        if queries:
            requests += prompts
            # an answer of a request has that seed plus its number; 53 bits are what a float64 in [0, 1) has
            seeds = (uniform[:, 0, 0].double() * 2**53).long().tolist()
            params += [self._params(n=queries, seed=seed, temperature=temperature, top_p=top_p, **ends) for seed in seeds]
        outputs = self._ask(requests, params)
        if any(one.finish_reason == "length" and len(one.token_ids) < max_new_tokens for output in outputs for one in output.outputs):
            raise IncompatibleChoice(_too_long("cuts an answer short"))
        written = [[list(one.token_ids) for one in output.outputs] for output in outputs]
        own = self.vlm.continuation(stem) if stem else []
        answers = [
            [self._cut(ids, own) for number in range(place, len(written), len(prompts)) for ids in written[number]] for place in range(len(prompts))
        ]
        texts = [[self.vlm.text(ids) for ids in of_prompt] for of_prompt in answers]
        if stem is None:
            return SampledTexts(texts, None)
        after = [Prompt((*prompt.ids, *ids), picture=prompt.picture) for prompt, of_prompt in zip(prompts, answers, strict=True) for ids in of_prompt]
        return SampledTexts(texts, self.level_probabilities(after, own).unflatten(0, (len(prompts), queries + 1)))

    def _cut(self, ids: list[int], stem: list[int]) -> list[int]:
        """An answer up to its end, or to where it begins to write the stem."""
        if ids and ids[-1] == self.vlm.eos_id:
            ids = ids[:-1]
        found = next((place for place in range(len(ids) - len(stem) + 1) if stem and ids[place : place + len(stem)] == stem), len(ids))
        return ids[:found]

    def level_probabilities(self, prompts: Sequence[Prompt], stem: Sequence[int]) -> Tensor:
        """Level distribution after each prompt and the token ids of the stem: [B, 5], rows sum to 1 (METHOD.md section 4)."""
        return self.read(prompts, stem)[1]

    def read(self, prompts: Sequence[Prompt], stem: Sequence[int]) -> tuple[list[tuple[int, ...]], Tensor]:
        """Prompts and stem as vLLM reads them, images in full; and the level distribution after each, [B, 5]."""
        levels = self.vlm.level_ids
        params = [self._params(max_tokens=1, temperature=0.0, logprob_token_ids=levels, ignore_eos=True, detokenize=False) for _ in prompts]
        asked = [Prompt((*prompt.ids, *stem), picture=prompt.picture) for prompt in prompts]
        outputs = self._ask(asked, params)
        after = [output.outputs[0].logprobs[0] for output in outputs]
        logarithms = torch.tensor([[at[token].logprob for token in levels] for at in after], dtype=torch.float64)
        return [tuple(output.prompt_token_ids) for output in outputs], logarithms.softmax(-1).float()

    def _ask(self, prompts: Sequence[Prompt], params: list[Any]) -> list[Any]:
        """vLLM's output for each prompt, in their order."""
        try:
            return self._llm.generate([self._given(prompt) for prompt in prompts], params, use_tqdm=False, lora_request=self._adapter)
        except ValueError as error:
            raise IncompatibleChoice(_too_long(f"refuses a question: {' '.join(str(error).split())[:300]}")) from error
        except RuntimeError as error:
            raise MachineLimit(f"answers=vllm: vLLM stopped: {str(error)[:300]}\nIts own words stand above. ckpt=last goes on.") from error

    def _given(self, prompt: Prompt) -> dict[str, Any]:
        """A prompt as vLLM takes it. A picture has a name, so that it is prepared once for all its answers, and not hashed for each."""
        given: dict[str, Any] = {"prompt_token_ids": list(prompt.ids)}
        if prompt.picture is None:
            return given
        return given | {"multi_modal_data": {"image": prompt.picture.image}, "multi_modal_uuids": {"image": prompt.picture.name}}

    def close(self) -> None:
        """End vLLM's processes, so that the memory of the GPU is free."""
        self._llm.llm_engine.engine_core.shutdown(timeout=30.0)
        self._open.close()


def _too_long(what: str) -> str:
    return (
        f"answers=vllm: vLLM {what}\nIts positions are too few (answers.max_model_len, or what the memory holds). Choose a larger "
        f"answers.max_model_len or answers.gpu_memory_utilization, with which ckpt=last goes on, or fewer visual tokens (model.visual_tokens)."
    )


class LetGo(nn.Module):
    """What is left of a backbone without its weights."""

    def __init__(self, config: Any) -> None:  # noqa: ANN401 (each family has a class of its own)
        super().__init__()
        self.config = config


def let_go(vlm: VLM) -> None:
    """Give up the weights of a model, which then still makes prompts and reads answers. An optimiser may hold on to some: they are on the host."""
    vlm.cpu()
    vlm.backbone = LetGo(vlm.model.config)  # pyright: ignore[reportAttributeAccessIssue] (a backbone in name)
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
