"""``python -m benchmarks NAME [ARGS]`` runs one benchmark; without a name it lists them."""

from __future__ import annotations

import sys
from importlib import import_module

from benchmarks.record import commit
from losa.errors import UsageError

BENCHMARKS = {
    "reader": "M1: shuffled batches against a copy from RAM, zarr-python, and what else is used",
    "sequential": "M2: an epoch in store order against np.memmap, and off the disk against preadv",
    "writing": "M3: writing a store against bare writes; what durability costs",
    "extraction": "M4: an extraction against its bare forward; growth of its memory",
    "gpu_extract": "M12: on CUDA, an extraction against its bare bfloat16 forward",
    "planning": "how far losa plan --probe is from the wall time of the real extraction",
    "step": "M13: a training step of the side network against the plain module and the floor",
    "gpu_adapt": "M12: on CUDA, a step and an epoch of adapt against their slowest part",
    "gpu_video": "on CUDA, the largest ViViT frozen, and adapt, against tuning a smaller one",
    "memory": "M7: growth of anonymous memory for ten times the data",
    "opening": "M8: open and first shuffled batch; resume in the middle of an epoch",
    "mixing": "M11: distinct classes in a batch of class-sorted data against i.i.d. draws",
    "verifying": "seconds of quick and GB/s of deep verification",
    "int8": "M9: bytes, signal-to-noise and accuracy of int8 stores on real features",
    "views": "what augmented views, drawn one an epoch, do to accuracy, over seeds",
    "scouting": "accuracy and bytes of the taps that a scout advises, against all taps",
    "ablation": "which of the open points of the side network matter",
    "tasks": "accuracy of every adaptor on the offline tasks, chosen on val, over seeds",
    "verdict": "M14: LoSA against the others, and an untuned recipe, from tasks and online",
    "online": "accuracy of tuning the backbone itself on the tasks: full, LoRA, BitFit, VPT",
    "pareto": "accuracy against parameters, memory, FLOPs and speed, by every way to adapt",
    "cohort": "M6: 16 trials in one pass against 16 runs, and against a live pass with 16 heads",
    "halving": "what successive halving finds, and at what share of the full grid's cost",
    "demo_video": "what mixing along time finds of clips that single frames cannot tell",
    "epochs": "M5: a cached epoch against live LoSA, LoRA and full fine-tuning epochs",
}


def main(argv: list[str]) -> int:
    """Run the named benchmark and return its exit code."""
    if not argv or argv[0] in ("-h", "--help"):
        for name, question in BENCHMARKS.items():
            print(f"python -m benchmarks {name:10} {question}")
        return 0
    if argv[0] not in BENCHMARKS:
        error = UsageError("NAME", f"{argv[0]!r} is unknown", f"use one of {', '.join(BENCHMARKS)}")
        print(f"losa: error: {error}", file=sys.stderr)
        return error.exit_code
    # Asked before the code of the benchmark is loaded: what is measured is what stands here now.
    commit()
    code: int = import_module(f"benchmarks.{argv[0]}").main(argv[1:])
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
