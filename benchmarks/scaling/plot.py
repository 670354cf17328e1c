"""The plot of docs/scaling_costs.md."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scaling.shapes import SHAPES
from benchmarks.scaling.steps import step_of
from benchmarks.scaling.tables import GPUS, SPLITS, Plan


def plot(plan: Plan, path: Path) -> None:
    """Save pictures a second by GPUs, and seconds of one picture by GPUs of a replica.

    Args:
        plan: What is computed.
        path: The PNG file.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (rate, alone) = pyplot.subplots(1, 2, figsize=(9, 3.8), layout="constrained")
    for number, shape in enumerate(SHAPES):
        color = f"C{number}"
        data = [plan.layout(shape, gpus, 1).rate for gpus in GPUS]
        split = [plan.split(shape, gpus).rate for gpus in GPUS]
        rate.plot(GPUS, data, color=color, marker="o", label=f"{shape.name}, one GPU a replica")
        label = f"{shape.name}, up to {plan.gpu.node} a replica"
        rate.plot(GPUS, split, color=color, marker="s", linestyle="--", label=label)
        steps = [step_of(shape, plan.gpu, plan.speed, 1, tensor) for tensor in SPLITS]
        seconds = [shape.tokens * step.seconds for step in steps]
        alone.plot(SPLITS, seconds, color=color, marker="o", label=shape.name)
    rate.set_xlabel("GPUs")
    rate.set_ylabel(f"pictures a second, {plan.per_gpu} drawings a GPU")
    alone.set_xlabel("GPUs of the replica (tensor parallel)")
    alone.set_ylabel("seconds of one picture, alone")
    for axes, ticks in ((rate, GPUS), (alone, SPLITS)):
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)
