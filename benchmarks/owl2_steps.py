"""What does a training step of mPLUG-Owl2 cost on this GPU? LoRA in bf16 and on nf4, at several batch sizes, at the 7B size with random weights.

python -m benchmarks.owl2_steps                              # 7B: a GPU of 40 GB or more, 17 GB of disk, some minutes
python -m benchmarks.owl2_steps --size tiny --device cpu     # the same path, small, to see that it runs

Random weights cost what trained ones cost. Each row is a process of its own, so that its peak of memory is its own.
"""

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

RESULTS = Path(__file__).parent / "results"
WARM_UP, MEASURED = 2, 5
"""Steps before, and of, the measurement."""
IMAGE = (640, 480)
DESCRIPTION = "The image is moderately bright. The contrast is low. Details are blurred. There is heavy noise."
LORA: dict[str, Any] = {"kind": "lora", "rank": 16, "alpha": 32, "dropout": 0.05, "targets": None, "freeze": None}


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a checkpoint with random weights, measure each row in a process of its own, print, and write results/owl2_steps.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=("7b", "tiny"), default="7b")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--row", nargs=3, metavar=("CHECKPOINT", "QUANTIZATION", "BATCH"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    import torch

    if options.device.startswith("cuda") and not torch.cuda.is_available():
        sys.exit("There is no GPU that torch can use here. See that the path runs: python -m benchmarks.owl2_steps --size tiny --device cpu")
    if options.row:
        checkpoint, quantization, batch = options.row
        print(json.dumps(measure(Path(checkpoint), None if quantization == "none" else quantization, int(batch), options.device)))
        return
    with tempfile.TemporaryDirectory(prefix="biqa-bench-") as place:
        write_checkpoint(Path(place), options.size, options.device)
        rows = [_row(Path(place), kind, batch, options.device) for kind in ("none", "nf4") for batch in options.batches]
    report(rows, options.size, options.device)


def write_checkpoint(folder: Path, size: str, device: str) -> None:
    """A checkpoint with random bf16 weights, drawn on the device: on a CPU 8 billion of them take minutes."""
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


def _row(checkpoint: Path, quantization: str, batch: int, device: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.owl2_steps", "--device", device, "--row", str(checkpoint), quantization, str(batch)]
    done = subprocess.run(command, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False)
    if done.returncode:
        return {"quantization": quantization, "batch": batch, "failed": done.stderr.strip().splitlines()[-1]}  # such as out of memory
    return json.loads(done.stdout.splitlines()[-1])


def measure(checkpoint: Path, quantization: Any, batch: int, device: str) -> dict[str, Any]:  # noqa: ANN401 ("nf4" or None)
    """Seconds and memory of training steps through biqa's own stage: encode, forward, loss, backward, AdamW."""
    import torch
    from PIL import Image

    from biqa.data.collate import collate
    from biqa.data.module import Item
    from biqa.data.record import Record
    from biqa.models.adapters import adapt
    from biqa.models.owl2.build import build_owl2
    from biqa.models.quantization import Quantization
    from biqa.stages.joint import Joint

    vlm = build_owl2(
        size="7b", path=str(checkpoint), template="v1", pre_step="pad", dtype="bfloat16", attention="sdpa",
        quantization=Quantization(quantization) if quantization else None,
        vision=True, seed=0,
    )  # fmt: skip
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
    for _ in range(WARM_UP + MEASURED):
        start = time.perf_counter()
        loss, _ = stage.loss(collate(examples, vlm.pad_id).to(torch.device(device)))
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
        losses.append(float(loss.detach()))
    return {
        "quantization": quantization or "none", "batch": batch, "positions": len(examples[0].prompt) + len(examples[0].answer),
        "seconds_a_step": median(seconds[WARM_UP:]), "samples_per_second": batch / median(seconds[WARM_UP:]),
        "peak_gb": torch.cuda.max_memory_allocated() / 2**30 if device.startswith("cuda") else None,
        "learning": sum(parameter.numel() for parameter in learning), "loss": losses[-1],
    }  # fmt: skip


def report(rows: Sequence[dict[str, Any]], size: str, device: str) -> None:
    """Print the rows and write them with the hardware."""
    import torch

    hardware = torch.cuda.get_device_name(0) if device.startswith("cuda") else platform.processor() or platform.machine()
    print(f"mPLUG-Owl2 {size}, random weights, bf16, LoRA rank {LORA['rank']}, on {hardware}")
    for row in rows:
        if "failed" in row:
            print(f"  {row['quantization']:>5}, batch {row['batch']}: {row['failed']}")
            continue
        memory = "" if row["peak_gb"] is None else f", peak {row['peak_gb']:.1f} GB"
        speed = f"{row['samples_per_second']:.2f} samples/s, {row['seconds_a_step']:.2f} s a step"
        print(f"  {row['quantization']:>5}, batch {row['batch']}: {speed}{memory}")
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "owl2_steps.json").write_text(
        json.dumps({"size": size, "hardware": hardware, "torch": torch.__version__, "rows": rows}, indent=1) + "\n"
    )


if __name__ == "__main__":
    main()
