"""The model card, `README.md` in a trained model's folder: data, metrics, command, licences, and how to serve it.

The text is made from the run's own record, so the same run gives the same card. It travels with the model, to a hub
too, so it names no file, folder or server of the machine: the run's own `config.yaml` does. The section about the
certificate is between two marks and each later certificate replaces it; the rest may be edited.
"""

from __future__ import annotations

import logging
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

from omegaconf import DictConfig

from tltrain.formats import servers
from tltrain.formats.families import TL_NAME, TL_NAMES
from tltrain.runtime import fingerprints, redact, runs
from tltrain.serving.comparison import Certificate
from tltrain.views import places

log = logging.getLogger(__name__)

FILE = "README.md"
TEMPLATE = Path(__file__).with_name("card.md.jinja")
BEGIN, END = "<!-- certificate: begin -->", "<!-- certificate: end -->"
GGUF = "<!-- gguf: begin -->", "<!-- gguf: end -->"
BEFORE_GGUF = "## How to serve"
"""The heading before which the section about a GGUF file is inserted."""
NOT_YET = (
    "## Certificate\n\nNot certified. `tltrain stage=certify model.path=FOLDER` serves this folder and compares "
    "prompts and calls with its training."
)
PLACES = f"{places.LEGEND} that trained it."
_OF_MACHINE = ("cache", "certify", "certify_timeout", "hydra", "overwrite", "report", "tracking")
_OF_RUN = ("hardware.node_rank", "hardware.rendezvous", "stage.resume")
_LEVELS = {"ts": "TS, the right tool", "pi": "PI, and its parameters", "cf": "CF, and their values"}
_LOSSES = {
    "held_out_loss": "loss on held-out turns",
    "held_out_key_token_loss": "loss on their key tokens",
    "held_out_other_token_loss": "loss on their other tokens",
}


class Row(NamedTuple):
    """A metric with its interval and what it was measured on."""

    name: str
    value: str
    interval: str
    of: str


def write(
    folder: Path, cfg: DictConfig, record: Mapping[str, Any], results: Mapping[str, Any], words: Sequence[str]
) -> None:
    """Write the card of a model that has just been trained.

    Args:
        record: `format`, `thinking` and `options` of the model's `tltrain.json`.
        results: `mae` (the counts of MAE) and the stage's results.
        words: the command line that trained it, without the program's name.
    """
    from huggingface_hub import ModelCard, ModelCardData

    license, said = _license_of_base(cfg.model)
    data = ModelCardData(
        base_model=_hub_id(cfg.model),
        license=license,
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["tltrain", "tool-calling", str(cfg.stage.name)],
    )
    name = str(record.get("format", TL_NAME))
    options = record.get("options") or {}
    told = typed(words)
    card = ModelCard.from_template(
        data,
        template_str=TEMPLATE.read_text(encoding="utf-8"),
        title=f"{cfg.model.name}, stage={cfg.stage.name}",
        base=_base(cfg.model),
        stage=cfg.stage.name,
        format_line=_format_line(name, bool(record.get("thinking")), options),
        data=list(data_rows(cfg, results)),
        metrics=list(metric_rows(results)),
        begin=BEGIN,
        certificate=NOT_YET,
        end=END,
        commands=servers.commands(name, "FOLDER", bool(record.get("thinking")), options),
        serving=_serving(name, options),
        command=shlex.join(["tltrain", *redact.command(told)]),
        places=PLACES if set(told) - set(words) else "",
        versions=_versions(),
        licences=[said, _license_of_data(cfg.data)],
    )
    with runs.writing(folder / FILE) as file:
        file.write(card.content.rstrip("\n") + "\n")


def show_certificate(folder: Path, made: Certificate) -> None:
    """Put a certificate into the card of a model's folder; a folder without our marks gets no card."""
    if not _replace(folder / FILE, BEGIN, END, certificate_section(made)):
        log.info("certify: %s has no model card of tltrain; the certificate is in certificate.json", folder)


def show_gguf(folder: Path, section: str) -> None:
    """Put the section about a GGUF file into the card of a model's folder; without our heading it is appended."""
    file = folder / FILE
    if _replace(file, *GGUF, section):
        return
    text = file.read_text(encoding="utf-8") if file.is_file() else "# A model\n"
    before, heading, after = text.partition(f"\n{BEFORE_GGUF}\n")
    begin, end = GGUF
    with runs.writing(file) as written:
        written.write(f"{before.rstrip()}\n\n{begin}\n{section}\n{end}\n{heading}{after}")


def _replace(file: Path, begin: str, end: str, section: str) -> bool:
    """Replace the text between two marks of a file; return whether the marks are there."""
    text = file.read_text(encoding="utf-8") if file.is_file() else ""
    marked = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if not marked.search(text):
        return False
    with runs.writing(file) as written:
        written.write(marked.sub(lambda _: f"{begin}\n{section}\n{end}", text, count=1))
    return True


def typed(words: Sequence[str]) -> list[str]:
    """Return the words of a command line that determine a model, without those about the machine and about logging.

    Files, folders and addresses are replaced by `FILE`, `FOLDER` and `URL`.
    """
    keys = {word: word.lstrip("+~").partition("=")[0] for word in words}
    kept = [word for word, key in keys.items() if key.partition(".")[0] not in _OF_MACHINE and key not in _OF_RUN]
    return [places.without_in_override(word) for word in kept]


# --- its parts --------------------------------------------------------------------------------------------------------


def data_rows(cfg: DictConfig, results: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Return the rows about the training data, and MAE's share of it."""
    judged = results["mae"]
    yield "source", f"`data={cfg.data.name}`"
    yield "conversations", f"{judged['trajectories']:,}, of which {cfg.data.holdout:g} by query are held out"
    left_out = judged["calls"] - judged["kept"]
    share = f"{100 * left_out / judged['calls']:.1f} %" if judged["calls"] else "none"
    yield "calls", f"{judged['calls']:,}"
    yield "calls not learned", f"{left_out:,} ({share}); {judged['dropped_error']:,} by MAE as answered with an error"
    for key, name in (("turns", "turns trained"), ("tokens", "tokens an epoch")):
        if key in results.get("train", {}):
            yield name, f"{results['train'][key]:,}"


def metric_rows(results: Mapping[str, Any]) -> Iterator[Row]:
    """Return the metrics of a training run, with intervals if it has them."""
    held = results.get("held_out", {})
    for key, name in _LOSSES.items():
        if key in held:
            yield Row(name, f"{held[key]:.3f}", "", f"{held.get('turns', 0):,} turns")
    for key, when in (("before", "before"), ("after", "after")):
        found = results.get(key) or {}
        for level, name in _LEVELS.items():
            if level in found and level in found.get("intervals", {}):
                low, high = found["intervals"][level]
                yield Row(f"{name}, {when} stage=irm", f"{found[level]:.1f} %", f"{low:.1f} to {high:.1f}", _n(found))
    if "train_loss" in results.get("train", {}):
        yield Row("training loss", f"{results['train']['train_loss']:.3f}", "", "all steps")


def _n(found: Mapping[str, Any]) -> str:
    return f"{found['n']:,} held-out calls"


def certificate_section(made: Certificate) -> str:
    """Return the section about the certificate."""
    how = "native `messages` and `tools`" if made.mode == "chat" else "the TL format's text (`/completions`)"
    said = "**Passed.**" if made.passed else f"**Failed:** {made.failure()}."
    lines = [
        "## Certificate",
        "",
        f"{said} The folder was served by `transformers serve` ({made.server}) and asked by the OpenAI client with "
        f"{how}.",
        "",
        f"| | of {made.asked:,} |",
        "| --- | ---: |",
        f"| prompts with exactly the tokens of training | {made.prompts_equal:,} |",
    ]
    if made.mode == "chat":
        lines.append(f"| answers with calls that the server parsed | {made.tool_calls:,} |")
    lines.append(f"| answers that the server and tltrain read alike | {made.same_grades:,} |")
    if made.unreadable:
        lines.append(f"| answers that are malformed in the format | {made.unreadable:,} |")
    if made.chat_prompts_equal is not None:
        lines.append(f"| prompts with these tokens by `/chat/completions` too | {made.chat_prompts_equal:,} |")
    for level, name in _LEVELS.items():
        if level in made.metrics:
            value = made.metrics[level]
            lines.append(f"| {name}, % | {value['percent']:.1f} ({value['low']:.1f} to {value['high']:.1f}) |")
    if made.not_sent:
        why = (
            "`transformers serve` drops words and thoughts beside the calls of earlier turns"
            if made.mode == "chat"
            else "this tokenizer splits their text differently from training, and `transformers serve` takes no ids"
        )
        lines += ["", f"{made.not_sent:,} prompts were left out: {why}."]
    return "\n".join(lines)


def _format_line(name: str, thinking: bool, options: Mapping[str, Any]) -> str:
    if name in TL_NAMES:
        return "It reads and writes the TL format, the paper's own text: `Assistant: name(key=value)`."
    thoughts = "with thoughts before its answers" if thinking else "without thoughts"
    given = f", its chat template rendered with `{dict(options)}`" if options else ""
    return f"It reads and writes its own format (`format={name}`), {thoughts}{given}."


def _serving(name: str, options: Mapping[str, Any]) -> str:
    """Return what works behind a server and what does not."""
    versions = " and ".join(
        f"{title} {servers.CHECKED[key]}" for key, title in (("vllm", "vLLM"), ("sglang", "SGLang"))
    )
    if name in TL_NAMES:
        return (
            "- `/completions` with the prompt's text works: `tltrain stage=eval source=endpoint source.url=URL "
            "source.model=FOLDER`.\n"
            "- `/chat/completions` with `messages` and `tools` gives the model the prompt of its training, and the "
            "answer comes as text, `name(key=value)`, in `content`.\n"
            "- `tool_calls` stays empty: no server has a parser of the TL format. Models trained in their own format "
            "(`format=auto`) fill it."
        )
    sent = (
        f" Requests to SGLang have to send `chat_template_kwargs` {dict(options)}, as training did." if options else ""
    )
    return (
        "`transformers serve` reads calls by the `response_template` in `tokenizer_config.json`. The parser names are "
        f"those of {versions}, read in their packages; these two servers were not run with this model.{sent}"
    )


def _versions() -> str:
    names = ("tltrain", "torch", "transformers", "trl")
    return ", ".join(f"{name} {fingerprints.version(name) or 'not installed'}" for name in names) + "."


# --- licences ---------------------------------------------------------------------------------------------------------


def _hub_id(model: DictConfig) -> str | None:
    if model.path is not None:
        return None if places.without(str(model.path), anywhere=True) != model.path else str(model.path)
    return None if model.random is not None else model.hub


def _base(model: DictConfig) -> str:
    if model.path is not None:
        return f"`{model.path}`" if _hub_id(model) else f"The model in a folder `{Path(model.path).name}`"
    if model.random is not None:
        return f"A model with random weights (`model={model.name}`)"
    return f"`{model.hub or model.name}`"


def _license_of_base(model: DictConfig) -> tuple[str | None, str]:
    """Return the base model's licence for the card's header, and a sentence about it."""
    if model.path is None and model.random is not None:
        return None, "Base model: random weights, under no licence."
    if model.path is None and model.package is not None and (found := _license_of_package(model.package)):
        return found.lower(), f"Base model: {found}, as the package `{model.package}` says."
    if model.path is not None and (found := _license_of_card(Path(model.path) / FILE)):
        return found, f"Base model: {found}, as its own card says."
    return None, "Base model: its folder states no licence; see the card of its publisher before you pass this on."


def _license_of_package(package: str) -> str | None:
    try:
        found: Any = metadata.metadata(package.replace("_", "-"))
    except metadata.PackageNotFoundError:
        return None
    return found.get("License-Expression") or found.get("License")


def _license_of_card(file: Path) -> str | None:
    from huggingface_hub import ModelCard

    try:
        card = ModelCard(file.read_text(encoding="utf-8"), ignore_metadata_errors=True)
        found = card.data.to_dict().get("license")
    except (OSError, ValueError):
        return None
    return found if isinstance(found, str) else None


def _license_of_data(data: DictConfig) -> str:
    if data.name == "toolworld":
        return "Data: generated by tltrain, Apache-2.0."
    return f"Data: `data={data.name}` states no licence; see its publisher."
