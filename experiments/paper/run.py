"""The paper's own run: check the data, plan, train the ablation of CodeLlama-7B in full and with LoRA, and compare.

    experiments/paper/run.sh data.path=raw_data.json paths.rotbench=FOLDER paths.toolalpaca=FOLDER paths.tooleyes=FOLDER
    experiments/paper/run.sh --steps check,plan data.path=raw_data.json   before you pay for anything
    experiments/paper/run.sh --list data.path=raw_data.json ...           only the commands
    experiments/paper/run.sh --dry-run --out FOLDER                       the chain at minimal size, on a CPU

The words are Hydra overrides, such as model.path=FOLDER (CodeLlama-7B, if no hub is reachable) or
hardware=zero3_offload (one GPU). Paths are absolute or relative to the repository. A step is one or more commands of
`python -m tltrain`. After an interruption start the same command again: finished evaluations are skipped, and the
sweeps take finished stages from the cache and resume from checkpoints. An evaluation that finished with other words, or
of a model that has been trained anew since, is run again in its place.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from experiments import results_table
from experiments.paper import plan
from tltrain import config
from tltrain.entry import checks
from tltrain.entry import words as command_line_words
from tltrain.entry.command_line_errors import one_line
from tltrain.errors import TltrainError
from tltrain.runtime import json_files, redact, runs
from tltrain.stages.evaluations import general

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
STEPS = ("check", "plan", "full", "lora", "checkpoint", "general", "table")
SWEEPS = {"full": ("All weights", ()), "lora": ("LoRA, r = 8", ("model.lora.r=8", "hardware=gpu"))}
"""Step that is a sweep -> its title and its overrides."""
ALL = 7
"""The job of the sweep with MAE, PKT and IRM."""
PAPER = {"trajectories": 1217, "error share": 17.0}
"""The training data as the paper describes it: the number of trajectories, and the approximate % of failed calls."""
CHECKPOINT = "tl_codellama_2"
"""The model that the authors released."""
BENCHMARKS = {
    "rotbench": ("benchmark.levels=[clean,slight,medium,heavy,union]",),
    "toolalpaca": (),
    "bfcl": (),
    "tooleyes": ("benchmark.network=true",),
}
"""The paper's benchmarks and their overrides, as in `conf/experiment/paper.yaml`."""
SMALL = (
    "model=tiny",
    "model.random.hidden_size=32",
    "model.random.intermediate_size=64",
    "model.random.num_hidden_layers=2",
)
SHORT = (
    "stage.supervised.args.max_steps=1",
    "stage.rl.args.max_steps=1",
    "stage.rl.max_prompt_length=4096",
    "stage.rl.max_new_tokens=8",
    "stage.eval.max_new_tokens=8",
)
"""A dry run's model, and its training runs of one step."""


COMMAND = "command.json"
"""The file in a finished evaluation's folder that says which command it was."""


@dataclass(frozen=True, slots=True)
class Command:
    """One command of `python -m tltrain`, and the file that marks it as finished (None: it is always run again)."""

    step: str
    words: tuple[str, ...]
    ended: Path | None = None

    @property
    def record(self) -> Path | None:
        """The file beside `ended` that says of which command it is the result."""
        return None if self.ended is None else self.ended.with_name(COMMAND)

    def decided_by(self) -> dict[str, list[str]]:
        """Return what the result depends on: the words without secrets, and where the links in them lead today.

        A sweep's model is a link to an entry of the cache, which has another name once it is trained otherwise.
        """
        pairs = (word.partition("=") for word in self.words)
        places = [str((ROOT / value).resolve()) for key, _, value in pairs if "path" in key]
        return {"words": redact.command(self.words), "places": places}

    def finished(self) -> bool:
        """Whether the command has finished before, with these words and models."""
        if self.ended is None or self.record is None or not self.ended.is_file():
            return False
        try:
            return json_files.read_object(self.record) == self.decided_by()
        except (OSError, ValueError):
            return False


@dataclass(frozen=True, slots=True)
class Run:
    """Where to run, with which overrides. `words` are as typed; in a dry run `benchmarks` are those with a path."""

    out: Path
    words: tuple[str, ...]
    dry_run: bool = False
    benchmarks: tuple[str, ...] = field(default=tuple(BENCHMARKS))

    @property
    def generated(self) -> Path:
        """The data that a dry run generates if none is given."""
        return self.out / "generated" / "raw_data.json"

    @property
    def data(self) -> tuple[str, ...]:
        """The overrides that choose the data."""
        return ("data=tl_training", *(word for word in self.words if key_of(word).startswith("data.")))

    @property
    def base(self) -> tuple[str, ...]:
        """The overrides that choose the base model; those of an adapter, which only `lora` has, are of training."""
        return tuple(word for word in self.words if key_of(word).startswith("model") and not is_of_training(word))

    @property
    def own(self) -> tuple[str, ...]:
        """The overrides for evaluations: all except those of the data, the model and the training runs."""
        return tuple(word for word in self.words if not key_of(word).startswith("model") and not is_of_training(word))


TRAINING = ("data", "stage", "reward", "weighting", "certify", "report", "model.lora", "model.args", "model.irm")
"""Beginnings of the keys that evaluations do not read."""


def key_of(word: str) -> str:
    """Return the key of an override."""
    return word.lstrip("+~").partition("=")[0]


def is_of_training(word: str) -> bool:
    """Return whether only the sweeps read an override."""
    return key_of(word).startswith(TRAINING)


def parsed(arguments: Sequence[str]) -> tuple[Run, tuple[str, ...], bool]:
    """Return the run, its steps, and whether its commands are only to be listed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", default=",".join(STEPS), help=f"some of {','.join(STEPS)}")
    parser.add_argument("--out", type=Path, default=ROOT / "outputs" / "paper" / "run", help="folder of the results")
    parser.add_argument("--list", action="store_true", help="print the commands and exit")
    parser.add_argument("--dry-run", action="store_true", help="run the chain at minimal size")
    parser.add_argument("words", nargs="*", help="Hydra's overrides")
    given = parser.parse_args(arguments)
    steps = tuple(given.steps.split(","))
    if unknown := set(steps) - set(STEPS):
        parser.error(f"--steps: expected some of {','.join(STEPS)}, found {','.join(sorted(unknown))}")
    if wrong := [word for word in given.words if "=" not in word and not word.startswith("~")]:
        parser.error(f"expected KEY=VALUE, found {wrong[0]}")
    run = Run(given.out.resolve(), tuple(given.words), given.dry_run)
    return dry(run) if given.dry_run else run, steps, given.list


def dry(run: Run) -> Run:
    """Return the same run on a small random model; benchmarks without a path in `run.words` are left out."""
    named = {word.split("=")[0] for word in run.words}
    asked = tuple(name for name in BENCHMARKS if f"paths.{name}" in named)
    words = [*SMALL, "hardware=cpu", "tracking=none", f"cache.dir={run.out / 'cache'}"]
    words.append("data.limit=12" if "data.path" in named else f"data.path={run.generated}")
    return Run(run.out, (*words, *run.words), True, asked)


# --- commands ---------------------------------------------------------------------------------------------------------


def commands(run: Run, steps: Sequence[str]) -> Iterator[Command]:
    """Yield the commands of the steps, in order."""
    common = tuple(word for word in run.words if word.startswith(("tracking", "cache.")))
    place = {name: f"hydra.run.dir={run.out / name}" for name in ("generated", "check", "turns")}
    if run.dry_run and f"data.path={run.generated}" in run.words:
        words = ("stage=mae", "data=toolworld", "data.size=12", "stage.write=raw", "stage.mae=false", *common)
        yield Command("check", (*words, place["generated"]), run.generated.with_name("metrics.json"))
    if "check" in steps or "plan" in steps:
        yield Command("check", ("stage=check", *run.data, *common, place["check"]))
        yield Command("check", ("stage=mae", "stage.write=turns", *run.data, *common, place["turns"]))
    for name, (_, extra) in SWEEPS.items():
        if name in steps:
            yield Command(name, sweep(run, name, extra))
    if "checkpoint" in steps:
        for name, keys in BENCHMARKS.items():
            if name in run.benchmarks:
                yield evaluation(run, "checkpoint", name, (f"model={CHECKPOINT}", *keys))
    if "general" in steps and not run.dry_run:  # needs lm-eval, and data sets of the hub
        yield evaluation(run, "general", "before", ("benchmark=general", "model=codellama_7b", *run.base))
        for name in SWEEPS:
            trained = run.out / name / str(ALL) / "model_irm" / "model"
            yield evaluation(run, "general", name, ("benchmark=general", "model=codellama_7b", f"model.path={trained}"))


def sweep(run: Run, name: str, extra: Sequence[str]) -> tuple[str, ...]:
    """Return the words of the ablation in the folder `name`."""
    given = {word.split("=")[0] for word in run.words}
    words = [f"hydra.sweep.dir={run.out / name}", *(word for word in extra if word.split("=")[0] not in given)]
    if run.dry_run:
        asked = ", ".join(f"{{name: {each}, limit: 2}}" for each in run.benchmarks)
        words += [*SHORT, f"stage.benchmarks=[{asked or '{name: toolworld, size: 2}'}]"]
    adapter = tuple(word for word in run.words if word.startswith("model.lora") and name != "lora")
    return ("+experiment=paper", *words, *(word for word in run.words if word not in adapter))


def evaluation(run: Run, step: str, name: str, words: Sequence[str]) -> Command:
    """Return the evaluation `name` of a model, in a folder of that name."""
    words = ["stage=eval", f"benchmark={name}", "hardware=gpu", *words]
    if run.dry_run:
        words = [word for word in words if not word.startswith(("model", "hardware", "benchmark.levels"))]
        words += [*run.base, "benchmark.limit=2", "stage.max_new_tokens=8"]
    elif step == "general":
        words.remove(f"benchmark={name}")
    folder = run.out / step / name
    once = {word.split("=")[0]: word for word in (*words, *run.own)}  # tltrain refuses a group that is given twice
    return Command(step, (*once.values(), f"hydra.run.dir={folder}"), folder / "metrics.json")


def refuse_mistakes(run: Run, todo: Sequence[Command]) -> None:
    """Check every command before the first one runs; the last ones would otherwise be refused after days.

    Raises:
        TltrainError: a command would be refused, or a package is missing.
    """
    if any(command.step == "general" for command in todo) and not general.installed():
        raise TltrainError(
            "the step general needs the extra general: pip install 'tltrain[general]', or leave it out: "
            f"--steps {','.join(step for step in STEPS if step != 'general')}"
        )
    config.register()
    for command in todo:
        # A model that an earlier command trains is not there yet.
        words = [word for word in command.words if not word.startswith(f"model.path={run.out}")]
        try:
            command_line_words.check(words)
            with initialize_config_dir(str(config.CONF_DIR), version_base="1.3", job_name="tltrain"):
                whole = compose("config", words, return_hydra_config=True)
            HydraConfig.instance().set_config(whole)
            checks.check_run(OmegaConf.masked_copy(whole, [key for key in whole if key != "hydra"]))
        except (HydraException, OmegaConfBaseException, TltrainError) as error:
            why = error if isinstance(error, TltrainError) else one_line(error, words)
            raise TltrainError(f"{command.step}: {why}; nothing has been run") from error
        finally:
            HydraConfig.instance().cfg = None


def execute(command: Command) -> None:
    """Run a command to its end.

    Raises:
        TltrainError: the exit status is not 0; the command has printed the reason.
    """
    line = f"tltrain {shlex.join(command.words)}"
    if command.finished():
        print(f"[{command.step}] done before: {line}", flush=True)
        return
    stale = command.ended is not None and command.ended.is_file()
    why = "again, since the last result is of another command: " if stale else ""
    print(f"[{command.step}] {why}{line}", flush=True)
    if status := subprocess.run([sys.executable, "-m", "tltrain", *command.words], cwd=ROOT).returncode:
        raise TltrainError(f"exit status {status} of: {line}; the same run.sh command continues from here")
    if command.record is not None:
        runs.write_json(command.record, command.decided_by())


# --- results ----------------------------------------------------------------------------------------------------------


def data_check(out: Path) -> str:
    """Compare the data with the paper's in one line, with a warning if it differs."""
    found = json_files.read_object(out / "check" / "metrics.json")
    share = 100 * found["error_calls"]["paper"] / max(found["calls"], 1)
    line = (
        f"{found['conversations']:,} trajectories (the paper: {PAPER['trajectories']:,}), {found['calls']:,} calls, of "
        f"which {share:.1f} % failed by the paper's rule (the paper: about {PAPER['error share']:.0f} %), "
        f"{100 * found['error_calls']['strict'] / max(found['calls'], 1):.1f} % by the strict rule"
    )
    same = found["conversations"] == PAPER["trajectories"] and abs(share - PAPER["error share"]) < 1.5
    return line if same else f"{line}\nThis is not the paper's data: do not expect its numbers."


def comparison(out: Path) -> str:
    """Return the available results in Markdown: data, sweeps and checkpoint next to the paper's."""
    parts = ["# The paper's run\n"]
    if (out / "check" / "metrics.json").is_file():
        parts.append(data_check(out) + "\n")
    for name, (title, _) in SWEEPS.items():
        if (file := out / name / "ablation.csv").is_file():
            parts += [f"## {title}\n", *results_table.lines(file), ""]
    if rows := list(checkpoint_rows(out / "checkpoint")):
        parts += ["## The released checkpoint\n", "| set | here | the paper's |", "| --- | ---: | ---: |", *rows, ""]
    if rows := list(general_rows(out / "general")):
        parts += [
            "## General ability\n",
            "| metric | " + " | ".join(GENERAL) + " |",
            "| --- | ---: | ---: | ---: |",
            *rows,
            "",
        ]
    return "\n".join(parts)


GENERAL = ("before", *SWEEPS)
"""The models whose general ability is measured."""


def checkpoint_rows(folder: Path) -> Iterator[str]:
    """Yield a line for each set that the checkpoint was evaluated on, with the paper's numbers if there are any."""
    theirs = results_table.read(HERE / "ablation.csv")["true", "true", "true"]
    for file in sorted(folder.glob("*/metrics.json")):
        ours = json_files.read_object(file)
        for name in ours["details"]:
            levels = next((each for each in LEVELS if f"{name}/{each[0]}" in ours), None)
            if levels is not None:
                numbers = {f"{name}_{level}": str(ours[f"{name}/{level}"]) for level in levels}
                paper = results_table.PAPERS.get(name)
                here = results_table.three(numbers, name, levels)
                printed = results_table.three(theirs, paper, levels) if paper else ""
                yield f"| {name}, {' / '.join(levels).upper()} | {here} | {printed} |"


LEVELS = (results_table.SINGLE_TURN, results_table.CONVERSATION)


def general_rows(folder: Path) -> Iterator[str]:
    """Yield a line for each metric of general ability."""
    files = {name: folder / name / "metrics.json" for name in GENERAL}
    found = {name: json_files.read_object(file) for name, file in files.items() if file.is_file()}
    for key in sorted({key for metrics in found.values() for key in metrics if key.startswith("general/")}):
        values = (found.get(name, {}).get(key) for name in GENERAL)
        yield f"| {key} | {' | '.join('' if value is None else f'{value:.3f}' for value in values)} |"


def main(arguments: Sequence[str] | None = None) -> int:
    run, steps, listed = parsed(sys.argv[1:] if arguments is None else arguments)
    todo = list(commands(run, steps))
    if listed:
        print("\n".join(f"tltrain {shlex.join(command.words)}" for command in todo))
        return 0
    if run.dry_run and (missing := [name for name in BENCHMARKS if name not in run.benchmarks]):
        print(f"dry run: left out, because paths.NAME= is missing: {', '.join(missing)}")
    after: Mapping[str, Callable[[], str]] = {
        "check": lambda: data_check(run.out),
        "plan": lambda: plan.table(run.out / "turns" / "mae_data.json", run.words),
        "table": lambda: comparison(run.out),
    }
    try:
        refuse_mistakes(run, [command for command in todo if command.step in steps or command.step == "check"])
        for step in STEPS:
            for command in todo:
                if command.step == step and (step in steps or step == "check"):
                    execute(command)
            if step in steps and step in after:
                print(after[step](), flush=True)
        if "table" in steps:
            runs.write_lines(run.out / "table.md", [comparison(run.out)])
    except TltrainError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
