"""Measure how fast training is on a GPU, how well it uses the GPU, and how much memory it takes.

    python experiments/bench/gpu.py [--quick] [--only pkt irm trl memory] [--shapes 1.3b 7b 135m] [--out FILE]
    python experiments/bench/gpu.py --device cpu --shapes tiny          the same code without a GPU

Llama models with random weights in the sizes of SmolLM2-135M (135m), of 1.3 billion parameters (1.3b) and of
CodeLlama-7B (7b) are trained on trajectories of 2,048 random tokens with four calls of 64 tokens each:
  pkt      stage=pkt, by packing (trajectory, turn, prefix_tree), weights in bfloat16
  irm      stage=irm with PPO: shares of generation, scoring (decoding, grading, laying out) and update (including the
           reference's forward pass); all responses have 64 tokens
  trl      TRL's SFTTrainer on the same trajectories: padded, packed as `wrapped`, and as `bfd` if flash-attn is there
  memory   full training of the 7b shape: float32 weights with AdamW; bfloat16 weights with AdamW and with Adafactor
with Liger's kernels if they are installed (--kernels), each job in its own process. The timing covers the optimizer
steps after two warm-up steps, from the end of the warm-up to the end of the last step, with the device synchronized at
both; it includes data loading, clipping, the optimizer's step and logging.

    tokens/s = tokens of the samples, without padding, per second
    MFU      = operations that the model needs for them / seconds / peak

Operations are those of `tltrain.plan.compute`: for each token two per weight of the linear layers in the forward pass
and four in the backward pass, attention over the tokens that it sees (on average half of the sequence), and the head at
target positions; recomputation is not counted. The peak is the manufacturer's figure for dense bfloat16 on a device of
this name (`compute.PEAK_SPEEDS`), or --peak. Peak memory is `torch.cuda.max_memory_allocated`.

Each result is appended to --out immediately, as a line of JSON; jobs that have a result there are not repeated.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from tltrain import config
from tltrain.plan import compute
from tltrain.runtime import terminal

ROOT = Path(__file__).parents[2]
WORKER = Path(__file__).with_name("gpu_worker.py")
SECTIONS = ("pkt", "irm", "memory", "trl")
CARD = 141e9
"""Memory of an H200 in bytes; the 7b shape must train in it."""
GiB = 2**30


@dataclass(frozen=True)
class Size:
    """A shape and its batches: micro-batch rows and accumulation steps for pkt and irm, and the number of trajectories
    that share their tools in a tree."""

    sizes: dict[str, Any]
    pkt: tuple[int, int]
    irm: tuple[int, int]
    group: int
    length: int = 2048
    call: int = 64


def sizes_of(model: str) -> dict[str, Any]:
    """Return `sizes` of a file in conf/model."""
    return OmegaConf.to_container(OmegaConf.load(config.CONF_DIR / "model" / f"{model}.yaml").sizes)


LLAMA_1_3B = {
    "vocab_size": 32016,
    "hidden_size": 2048,
    "intermediate_size": 5504,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "max_position_embeddings": 16384,
    "tie_word_embeddings": False,
}
TINY = {
    "vocab_size": 768,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 4096,
    "tie_word_embeddings": True,
}
SIZES = {
    "1.3b": Size(LLAMA_1_3B, pkt=(8, 4), irm=(4, 8), group=8),
    "7b": Size(sizes_of("codellama_7b"), pkt=(4, 4), irm=(1, 8), group=4),
    "135m": Size(sizes_of("smollm2_135m"), pkt=(16, 4), irm=(8, 8), group=16),
    "tiny": Size(TINY, pkt=(2, 2), irm=(2, 2), group=4, length=160, call=12),
}


def jobs(section: str, shape: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield the measurements of a section for a shape, as fields of `gpu_worker.Job`."""
    size, on_gpu = SIZES[shape], options.device == "cuda"
    common = {
        "section": section,
        "shape": shape,
        "sizes": size.sizes,
        "device": options.device,
        "length": size.length,
        "call": size.call,
        "warm": options.warm,
        "steps": options.steps,
        "kernels": options.kernels,
        "args": options.args,
    }
    rows, accumulation = size.pkt
    fed = {"rows": rows, "accumulation": accumulation}
    bf16 = ", ".join(["bf16", options.kernels, *(f"{name}={value}" for name, value in options.args.items())])
    if section == "pkt":
        tree = {"rows": 1, "attention": "flex_attention" if on_gpu else "sdpa", "group": size.group}
        yield common | fed | {"packing": "trajectory", "variant": bf16}
        yield common | fed | {"packing": "turn", "variant": bf16}
        yield common | fed | tree | {"packing": "prefix_tree", "variant": f"{bf16}, {tree['attention']}"}
        if shape in ("1.3b", "tiny"):
            yield common | fed | {"packing": "trajectory", "dtype": "float32", "variant": f"fp32, {options.kernels}"}
            for kernels in {"none", *(("compile",) if on_gpu else ())} - {options.kernels}:
                yield common | fed | {"packing": "trajectory", "kernels": kernels, "variant": f"bf16, {kernels}"}
    elif section == "irm":
        rows, accumulation = size.irm
        fed = {"rows": rows, "accumulation": accumulation, "packing": "trajectory"}
        optimizer = {"optimizer": "adafactor", "checkpointing": True} if shape == "7b" else {}
        said = ", adafactor, recomputing" if optimizer else ""
        for attention in ("flex_attention", "sdpa") if on_gpu else ("sdpa",):
            yield common | fed | optimizer | {"attention": attention, "variant": f"{bf16}{said}, {attention}"}
    elif section == "trl":
        flash = importlib.util.find_spec("flash_attn") is not None
        yield common | fed | {"packing": "wrapped", "variant": bf16}
        yield common | fed | {"packing": "padded", "variant": bf16}
        if flash or not on_gpu:
            attention = "flash_attention_2" if flash and on_gpu else "sdpa"
            yield common | fed | {"packing": "bfd", "attention": attention, "variant": f"{bf16}, {attention}"}
    elif shape in ("7b", "tiny"):
        for dtype, optimizer in (
            ("float32", "adamw_torch_fused"),
            ("bfloat16", "adamw_torch_fused"),
            ("bfloat16", "adafactor"),
        ):
            variant = {"dtype": dtype, "optimizer": optimizer, "checkpointing": True, "warm": 1, "steps": 2}
            yield common | fed | variant | {"packing": "trajectory", "variant": f"{dtype}, {optimizer}, recomputing"}


# --- processes -------------------------------------------------------------------------------------------------------


def run(group: Sequence[dict[str, Any]], limit: float, out: Path) -> None:
    """Run jobs in a new process, which appends a record of each to `out`; jobs that it does not reach get a record too.

    A record has the `job`, its `result` or `error`, and `wall`, its duration in seconds.
    """
    log, start = out.with_suffix(".log"), time.perf_counter()
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    with log.open("a") as output:
        began = output.tell()
        try:
            subprocess.run(
                [sys.executable, str(WORKER), json.dumps(group), str(out)],
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=limit * len(group),
                check=False,
                env={**os.environ, "PYTHONPATH": path},
            )
            ended = last_line(log, began)
        except subprocess.TimeoutExpired:
            ended = f"not done in {limit * len(group):.0f} s"
    told = [one["job"] for one in records(out)]
    with out.open("a") as file:
        for job in group:
            if job not in told:
                wall = time.perf_counter() - start
                file.write(json.dumps({"job": job, "error": ended, "wall": wall}) + "\n")


def last_line(log: Path, began: int) -> str:
    """Return the last line of a process's output, which is its exception's message."""
    lines = [line.strip() for line in log.read_bytes()[began:].decode(errors="replace").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "it ended without a message"


def records(path: Path) -> list[dict[str, Any]]:
    """Return the last record of each job in the file; an incomplete line is skipped."""
    found: dict[str, dict[str, Any]] = {}
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        found[json.dumps(record["job"], sort_keys=True)] = record
    return list(found.values())


# --- results ---------------------------------------------------------------------------------------------------------


def mfu(result: dict[str, Any], peak: float | None, key: str = "flops_per_second") -> float | None:
    """Return the share of the device's peak, or None if the peak is unknown."""
    known = compute.peak_speed(result["device"])
    peak = peak or (known and known[0])
    return result[key] / peak if peak else None


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def memory(result: dict[str, Any]) -> str:
    return "-" if result["peak_bytes"] is None else f"{result['peak_bytes'] / GiB:.1f}"


def show(found: Sequence[dict[str, Any]], peak: float | None) -> None:
    """Print one table per section."""
    for section in SECTIONS:
        own = [one for one in found if one["job"]["section"] == section and "result" in one]
        if not own:
            continue
        name = f"{section} on {own[0]['result']['device']}"
        if section == "irm":
            columns = ["shape", "variant", "s per step", "generation", "scoring", "update", "sampled tokens/s"]
            columns += ["MFU", "of the update", "peak GiB"]
        else:
            columns = ["shape", "packing", "variant", "rows", "tokens/s", "turns/s", "MFU", "peak GiB", "planned GiB"]
        terminal.table(name, columns, [cells(section, one["job"], one["result"], peak) for one in own])
    for one in found:
        if "error" in one:
            print(f"{title(one['job'])}: {one['error']}")
    for line in (*against_trl(found), *targets(found, peak)):
        print(line)


def cells(section: str, job: dict[str, Any], result: dict[str, Any], peak: float | None) -> list[object]:
    """Return a row of the section's table."""
    if section == "irm":
        return [
            job["shape"],
            job["variant"],
            f"{result['seconds_a_step']:.2f}",
            *(percent(result[f"share_{part}"]) for part in ("generation", "scoring", "update")),
            f"{result['sampled_tokens_per_second']:.0f}",
            percent(mfu(result, peak)),
            percent(mfu(result, peak, "flops_per_second_update")),
            memory(result),
        ]
    planned = result["planned_bytes"]
    return [
        job["shape"],
        job["packing"],
        job["variant"],
        f"{job['rows']} x {job['accumulation']}",
        f"{result['tokens_per_second']:.0f}",
        f"{result['turns_per_second']:.1f}",
        percent(mfu(result, peak)),
        memory(result),
        "-" if planned is None else f"{planned / GiB:.1f}",
    ]


def title(job: dict[str, Any]) -> str:
    return f"{job['section']} {job['shape']} {job['packing']} ({job['variant']})"


def against_trl(found: Sequence[dict[str, Any]]) -> Iterator[str]:
    """For each shape, compare tltrain's turns per second by packing with TRL's best; weights in bfloat16."""
    speeds: dict[str, dict[str, dict[str, float]]] = {}
    for one in found:
        job = one["job"]
        if "result" in one and job["section"] in ("pkt", "trl") and job["variant"].startswith("bf16"):
            own = speeds.setdefault(job["shape"], {"pkt": {}, "trl": {}})[job["section"]]
            own[job["packing"]] = max(own.get(job["packing"], 0), one["result"]["turns_per_second"])
    for shape, own in speeds.items():
        if own["pkt"] and own["trl"]:
            best = max(own["trl"], key=own["trl"].get)
            ratios = ", ".join(f"{name} {speed / own['trl'][best]:.2f}" for name, speed in own["pkt"].items())
            yield f"{shape}: turns/s of pkt over those of TRL ({best}): {ratios}"


def targets(found: Sequence[dict[str, Any]], peak: float | None) -> Iterator[str]:
    """List the targets next to the results."""
    for one in found:
        job, result = one["job"], one.get("result")
        if result is None:
            continue
        section, shape = job["section"], job["shape"]
        if (section, shape, job["packing"]) == ("pkt", "1.3b", "trajectory"):
            yield f"{title(job)}: MFU {percent(mfu(result, peak))} (wanted: at least 45 %)"
        elif section == "irm":
            yield f"{title(job)}: generation takes {percent(result['share_generation'])} (wanted: less than half)"
        elif section == "memory" and result["peak_bytes"]:
            yield f"{title(job)}: {result['peak_bytes'] / 1e9:.0f} GB (wanted: to fit in {CARD / 1e9:.0f} GB)"


# --- the command line ------------------------------------------------------------------------------------------------


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one warm-up step and two timed ones")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="run only these")
    parser.add_argument("--shapes", nargs="+", choices=SIZES, help="default: 1.3b 7b 135m")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--match", default="", metavar="WORDS", help="run only jobs whose title contains this")
    parser.add_argument("--kernels", choices=["none", "liger", "compile"], help="default: liger if it is installed")
    parser.add_argument("--args", nargs="+", metavar="NAME=VALUE", default=[], help="more trainer arguments")
    parser.add_argument("--peak", type=float, metavar="FLOPS", help="the device's operations/s, dense bfloat16")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "bench" / "gpu.jsonl", metavar="FILE")
    parser.add_argument("--again", action="store_true", help="repeat jobs that have a result in --out")
    parser.add_argument("--limit", type=float, default=300, metavar="SECONDS", help="per job (default: %(default)s)")
    parser.add_argument("--budget", type=float, metavar="SECONDS", help="start no job after this time")
    options = parser.parse_args()
    options.args = OmegaConf.to_container(OmegaConf.from_dotlist(options.args))
    options.warm, options.steps = (1, 2) if options.quick else (2, 5)
    options.shapes = options.shapes or (["1.3b", "7b", "135m"] if options.device == "cuda" else ["tiny"])
    if options.kernels is None:
        liger = options.device == "cuda" and importlib.util.find_spec("liger_kernel") is not None
        options.kernels = "liger" if liger else "none"
    return options


def main() -> None:
    options, start = arguments(), time.perf_counter()
    if options.device == "cuda" and not torch.cuda.is_available():
        print("gpu: torch sees no CUDA device here; --device cpu --shapes tiny runs the same code without one")
        return
    options.out.parent.mkdir(parents=True, exist_ok=True)
    wanted = [
        job
        for shape in options.shapes
        for section in SECTIONS
        if section in options.only
        for job in jobs(section, shape, options)
        if options.match in title(job)
    ]
    done = [] if options.again else [one["job"] for one in records(options.out) if "result" in one]
    left = [job for job in wanted if job not in done]
    size = 1 if options.device == "cuda" else len(left)  # on a GPU another job's leftovers would fragment the memory
    for first in terminal.track(range(0, len(left), max(size, 1)), "processes"):
        if options.budget is not None and time.perf_counter() - start > options.budget:
            break
        group = left[first : first + size]
        run(group, options.limit, options.out)
        for one in (one for one in records(options.out) if one["job"] in group):
            said = one.get("error", "done")
            print(f"{title(one['job'])}: {said} ({one['wall']:.0f} s)", file=sys.stderr, flush=True)
    found = [one for one in records(options.out) if one["job"] in wanted]
    show(found, options.peak)
    if len(found) < len(wanted):
        print(f"{len(wanted) - len(found)} of {len(wanted)} jobs are left: the same command continues with them")
    print(json.dumps({"bench": "gpu", "kernels": options.kernels, "results": found}))


if __name__ == "__main__":
    main()
