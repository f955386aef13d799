"""What does a training step of a backbone of 2 to 8 billion weights cost on this GPU? LoRA in bf16 and on nf4, at several batch sizes.

python -m benchmarks.training_steps --model qwen3_vl               # 2B: a GPU of 16 GB or more, 5 GB of disk, some minutes
python -m benchmarks.training_steps --model owl2                   # 8B: a GPU of 40 GB or more, 17 GB of disk
python -m benchmarks.training_steps --model qwen3_vl --size tiny --device cpu     # the same path, small, to see that it runs

Random weights cost what trained ones cost. Each row is a process of its own, so that its peak of memory is its own. Tokens are positions of image and
text, padding left out. The share is of the bf16 product of 8192 x 8192 matrices that this machine reaches, measured in the same minutes. The
operations of a step are those that torch counts in the row without packing (with LoRA about 4 a weight and token, for the frozen weights have no
gradient); a packed row does the same ones.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.rounds import alone, write_result

MODELS = ("owl2", "qwen3_vl", "qwen2_5_vl", "llava")
REAL: dict[str, dict[str, Any]] = {
    "qwen3_vl": {
        "text_config": {
            "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16, "num_key_value_heads": 8,
            "head_dim": 128, "vocab_size": 151936,
            "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": [24, 20, 20], "mrope_interleaved": True},
        },
        "vision_config": {
            "depth": 24, "hidden_size": 1024, "intermediate_size": 4096, "num_heads": 16, "out_hidden_size": 2048, "num_position_embeddings": 2304,
            "deepstack_visual_indexes": [5, 11, 17],
        },
    },
    "qwen2_5_vl": {
        "text_config": {
            "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36, "num_attention_heads": 16, "num_key_value_heads": 2,
            "vocab_size": 151936, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [16, 24, 24]},
        },
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 2048, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31],
        },
    },
    "llava": {
        "text_config": {
            "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 32,
            "vocab_size": 32064,
        },
        "vision_config": {
            "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
        },
    },
}  # fmt: skip
"""Sizes of Qwen3-VL-2B, Qwen2.5-VL-3B and LLaVA-1.5-7B, as their config.json on the hub say them."""
IMAGES: dict[str, dict[str, Any]] = {
    "qwen3_vl": {"size": {"shortest_edge": 65536, "longest_edge": 16777216}},
    "qwen2_5_vl": {"size": {"shortest_edge": 3136, "longest_edge": 12845056}},
    "llava": {"size": {"shortest_edge": 336}, "crop_size": {"height": 336, "width": 336}},
}
"""Settings of their image processors there."""
PEAK_SIDE = 8192
WARM_UP, MEASURED = 2, 5
"""Steps before, and of, the measurement."""
IMAGE = (640, 480)
DESCRIPTION = "The image is moderately bright. The contrast is low. Details are blurred. There is heavy noise."
LORA: dict[str, Any] = {"kind": "lora", "rank": 16, "alpha": 32, "dropout": 0.05, "targets": None, "freeze": None}
Row = dict[str, Any]


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a checkpoint with random weights, measure each row in a process of its own, print, and write results/training_steps-<model>.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=MODELS, default="owl2")
    parser.add_argument("--size", choices=("real", "tiny"), default="real")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--row", nargs=3, metavar=("CHECKPOINT", "QUANTIZATION", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("There is no GPU that torch can use here. See that the path runs: python -m benchmarks.training_steps --size tiny --device cpu")
    if options.row:
        checkpoint, quantization, batch = options.row
        print(
            json.dumps(
                measure(Path(checkpoint), model=options.model, size=options.size, quantization=quantization, batch=int(batch), device=options.device)
            )
        )
        return
    with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
        write_checkpoint(Path(place), options.model, options.size, options.device)
        rows = [_row(Path(place), options, kind, batch) for kind in ("none", "nf4") for batch in options.batches]
    peak = matmul_peak(options.device, PEAK_SIDE if options.size == "real" else 512)
    report(with_shares(rows, peak), options.model, options.size, options.device, peak)


def write_checkpoint(folder: Path, model: str, size: str, device: str) -> None:
    """A checkpoint with random bf16 weights."""
    if model == "owl2":
        write_owl2(folder, size, device)
        return
    from tests.checkpoints import write_checkpoint as write_family

    write_family(folder, model, old_names=False, **(REAL[model] if size == "real" else {}))


def write_owl2(folder: Path, size: str, device: str) -> None:
    """The same of mPLUG-Owl2, drawn on the device: on a CPU 8 billion weights take minutes."""
    import torch

    from biqa.models.owl2.build import TINY, TINY_VOCABULARY
    from biqa.models.owl2.configuration import Owl2Config
    from biqa.models.owl2.images import Owl2ImageProcessor
    from biqa.models.owl2.modeling import Owl2ForConditionalGeneration
    from biqa.models.owl2.processing import Owl2Processor
    from biqa.models.owl2.vocabulary import train_tokenizer

    shape: dict[str, Any] = TINY if size == "tiny" else {"rms_norm_eps": 1e-5}
    config = Owl2Config(**shape)  # LLaMA's 32,000 rows, of which few are used
    side = config.tower.image_size
    sizes: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": {"height": side, "width": side}}
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = Owl2ForConditionalGeneration(config)
    finally:
        torch.set_default_dtype(before)
    model.save_pretrained(folder, save_original_format=False)
    Owl2Processor(Owl2ImageProcessor(**sizes), train_tokenizer(TINY_VOCABULARY), tokens_per_image=config.tokens_per_image).save_pretrained(folder)


def _row(checkpoint: Path, options: argparse.Namespace, quantization: str, batch: int) -> Row:
    given = ("--model", options.model, "--size", options.size, "--device", options.device, "--row", str(checkpoint), quantization, str(batch))
    try:
        return json.loads(alone("training_steps", *given))
    except subprocess.CalledProcessError as error:
        return {"quantization": quantization, "batch": batch, "failed": error.stderr.strip().splitlines()[-1]}  # such as out of memory


def build(checkpoint: Path, model: str, size: str, quantization: str) -> Any:  # noqa: ANN401 (biqa's VLM, whose import takes seconds)
    """The backbone of a checkpoint as a run builds it."""
    from biqa.models.quantization import Quantization

    packing = None if quantization == "none" else Quantization(kind="nf4", double_quant=True, compute_dtype="bfloat16")
    chosen: dict[str, Any] = {"dtype": "bfloat16", "attention": "sdpa", "quantization": packing, "vision": True, "seed": 0}
    if model == "owl2":
        from biqa.models.owl2.build import build_owl2

        return build_owl2(size="7b", path=str(checkpoint), template="v1", pre_step="pad", **chosen)
    from biqa.models.hf import build_hf

    image = IMAGES[model] if size == "real" else {}
    return build_hf(id=str(checkpoint), revision=None, family=model, visual_tokens=None, image=image, **chosen)


def measure(checkpoint: Path, *, model: str, size: str, quantization: str, batch: int, device: str) -> Row:
    """Seconds, memory and operations of training steps through biqa's own stage: encode, forward, loss, backward, AdamW."""
    import torch
    from PIL import Image
    from torch.utils.flop_counter import FlopCounterMode

    from biqa.data.collate import collate
    from biqa.data.module import Item
    from biqa.data.record import Record
    from biqa.models.adapters import adapt
    from biqa.stages.joint import Joint

    vlm = build(checkpoint, model, size, quantization)
    adapt(vlm, **LORA)
    vlm.to(device)
    stage = Joint(
        vlm, lr=1e-4, weight_decay=0.0, warmup=0.0, total_steps=WARM_UP + MEASURED, repeats=0, temperature=1.0, top_p=1.0, max_new_tokens=64,
        seed=0, target="soft", level_weight=1.0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "image.png"
        Image.linear_gradient("L").resize(IMAGE).convert("RGB").save(path)
        record = Record(image="image.png", path=path, q=0.4, split="train", group="image.png", score=0.4)
        examples = [stage.encode(Item(record, (DESCRIPTION,))) for _ in range(batch)]
    learning = [parameter for parameter in vlm.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-4)
    seconds: list[float] = []
    losses: list[float] = []
    operations = 0
    for step in range(WARM_UP + MEASURED):
        start = time.perf_counter()
        counted = FlopCounterMode(display=False) if step == 0 else nullcontext()
        with counted, torch.autocast(torch.device(device).type, torch.bfloat16):
            loss, _ = stage.loss(collate(examples, vlm.pad_id).to(torch.device(device)))
            loss.backward()
        if isinstance(counted, FlopCounterMode):
            operations = counted.get_total_flops()
        optimizer.step()
        optimizer.zero_grad()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss.detach()))
    positions = len(examples[0].prompt) + len(examples[0].answer)
    step_seconds = median(seconds[WARM_UP:])
    return {
        "quantization": quantization, "batch": batch, "positions": positions, "seconds_a_step": step_seconds,
        "samples_per_second": batch / step_seconds, "tokens_per_second": batch * positions / step_seconds, "operations": operations,
        "peak_gb": torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None,
        "learning": sum(parameter.numel() for parameter in learning), "loss": losses[-1],
    }  # fmt: skip


def matmul_peak(device: str, side: int) -> float:
    """Operations a second of a bf16 product of square matrices: the best of ten."""
    import torch

    left, right = (torch.randn(side, side, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(10):
        start = time.perf_counter()
        product = left @ right
        float(product[0, 0])  # waits for the GPU
        best = min(best, time.perf_counter() - start)
    return 2 * side**3 / best


def with_shares(rows: Sequence[Row], peak: float) -> list[Row]:
    """Rows with their share of the peak; a packed row does the operations of the unpacked one with the same batch."""
    counted = {row["batch"]: row["operations"] for row in rows if row["quantization"] == "none" and "failed" not in row}
    return [
        row if "failed" in row or row["batch"] not in counted else {**row, "share_of_peak": counted[row["batch"]] / row["seconds_a_step"] / peak}
        for row in rows
    ]


def hardware_of(device: str) -> str:
    """Name of the GPU, or of the kind of CPU."""
    import torch

    return torch.cuda.get_device_name(0) if device.startswith("cuda") else platform.processor() or platform.machine()


def report(rows: Sequence[Row], model: str, size: str, device: str, peak: float) -> None:
    """Print the rows and write them with the hardware."""
    import torch

    hardware = hardware_of(device)
    print(f"{model}, {size}, random weights, LoRA rank {LORA['rank']}, on {hardware}; bf16 matrix product: {peak / 1e12:.2f} TFLOP/s")
    for row in rows:
        if "failed" in row:
            print(f"  {row['quantization']:>5}, batch {row['batch']}: {row['failed']}")
            continue
        memory = "" if row["peak_gb"] is None else f", peak {row['peak_gb']:.1f} GB"
        share = f", {100 * row['share_of_peak']:.0f} % of the matrix product" if "share_of_peak" in row else ""
        speed = f"{row['tokens_per_second']:.0f} tokens/s, {row['samples_per_second']:.2f} images/s, {row['seconds_a_step']:.2f} s a step"
        print(f"  {row['quantization']:>5}, batch {row['batch']}: {speed}{memory}{share}")
    told = {"model": model, "size": size, "hardware": hardware, "torch": torch.__version__, "matmul_flops": peak}
    write_result(f"training_steps-{model}", {**told, "rows": rows})


if __name__ == "__main__":
    main()
