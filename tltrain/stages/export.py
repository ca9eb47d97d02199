"""stage=export: make a trained model's folder ready to be passed on.

    python -m tltrain stage=export model.path=outputs/pkt/TIME/model
    python -m tltrain stage=export model.path=outputs/pkt/TIME/model stage.gguf=q8_0
    HF_TOKEN=... python -m tltrain stage=export model.path=outputs/pkt/TIME/model stage.hub=OWNER/NAME

Writes `model/`: safetensors with an adapter merged, and all other files of the folder. `stage.gguf` adds a file for
llama.cpp and a Modelfile for Ollama, and compares llama.cpp's token ids and greedy answers with training and
transformers; the card gives the result, or says that nothing was verified. `stage.hub` pushes the folder at the end.
Anything that would stop the stage is checked before anything is loaded.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain.data.judged import JudgedSource
from tltrain.errors import TltrainError
from tltrain.runtime import runs, terminal
from tltrain.serving import gguf, hub, llama_cpp, model_files
from tltrain.serving.gguf_comparison import Answered, Comparison, compared, parting, section, until_end
from tltrain.stages import certify

if TYPE_CHECKING:
    from tltrain.serving.prompts import Asked
    from tltrain.stages.certify import Basis

log = logging.getLogger(__name__)

ADAPTER = ("adapter_config.json", "adapter_model.safetensors")
ANSWER = 64
"""Maximum number of tokens of an answer that is compared."""
AT_ONCE = 8
"""Prompts that transformers answers together: one at a time, a small model would read its weights for each token."""
OLLAMA_CONTEXT = 8192
"""Maximum context in tokens that the Modelfile asks of Ollama, whose own default cuts longer prompts silently."""


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`.

    Raises:
        TltrainError: something is missing, cannot be converted, differs in llama.cpp, or the hub refuses.
    """
    stage = cfg.stage
    by = check(cfg, folder)
    source, target = Path(cfg.model.path), folder / "model"
    metrics: dict[str, Any] = {"model": str(target), **write_model(cfg, source, target)}
    made: Comparison | None = None
    if by is not None:
        file = target / f"{target.name}-{stage.gguf.name}.gguf"
        with terminal.status(f"converting to {file.name}"):
            gguf.convert(target, stage.gguf.name, file, by)
        basis = certify.basis_of(cfg, target)
        write_modelfile(basis, target, file)
        made, why_not = verified(cfg, basis, target, file)
        describe(target, file, by, stage.gguf.name, made, why_not)
        metrics["gguf"] = {"file": str(file), "bytes": file.stat().st_size, "converter": by.name}
        metrics["llama_cpp"] = {"not_verified": why_not} if made is None else made.to_json()
        say(f"gguf: {file}: {made.line() if made else f'not verified: {why_not}'}")
        if made is not None and not made.passed:
            runs.finish(folder, cfg, metrics)
            raise TltrainError(f"{file} differs from the trained model: {made.line()}; {made.problems[0]}")
    if stage.hub is not None:
        with terminal.status(f"pushing to {stage.hub}"):
            metrics["hub"], private = hub.push(target, stage.hub, stage.private)
        say(f"hub: {metrics['hub']} ({'private' if private else 'public'})")
    runs.finish(folder, cfg, metrics)
    say(f"exported: {target}")
    return metrics


def check(cfg: DictConfig, folder: Path) -> gguf.Converter | None:
    """Check before anything is loaded for what would stop the stage; return the converter if one is needed.

    Raises:
        TltrainError: the model's or the run's folder, the converter, the token or the repository is unsuitable.
    """
    stage = cfg.stage
    if cfg.model.path is None or not Path(cfg.model.path).is_dir():
        wrong = "" if cfg.model.path is None else f"; {cfg.model.path} is no folder"
        raise TltrainError(f"stage=export takes the folder of a trained model: give model.path=FOLDER{wrong}")
    model_files.check(Path(cfg.model.path))
    check_target(cfg, folder)
    if stage.hub is not None:
        hub.check_name(stage.hub)
    by = None if stage.gguf is None else gguf.converter(stage.converter)
    if by is not None and stage.verify and llama_cpp.missing():
        log.warning("export: the file will not be compared with the model: %s", llama_cpp.WHY_MISSING)
    if stage.hub is not None:
        hub.check(stage.hub, stage.private, cfg.overwrite)
    return by


def check_target(cfg: DictConfig, folder: Path) -> None:
    """Raise a TltrainError if the export would replace the model itself, or a folder that is not an earlier export."""
    target = folder / "model"
    if target.resolve() == Path(cfg.model.path).resolve():
        raise TltrainError(f"{target} is the model that is to be exported: give another hydra.run.dir")
    if target.exists() and runs.stage_of(folder) != cfg.stage.name and not cfg.overwrite:
        raise TltrainError(
            f"{target} is there already and is not an earlier export: give another hydra.run.dir, or overwrite=true to "
            "replace it"
        )


def say(text: str) -> None:
    terminal.console.print(text, markup=False)


# --- safetensors ------------------------------------------------------------------------------------------------------


def write_model(cfg: DictConfig, source: Path, target: Path) -> dict[str, Any]:
    """Write the model to `target`, an adapter merged, with all other files of `source`; return what was done."""
    adapter = (source / ADAPTER[0]).is_file()
    part = target.with_name(f".{target.name}.part")  # the final name only ever holds a complete model
    shutil.rmtree(part, ignore_errors=True)
    loaded = adapter or cfg.stage.dtype is not None
    weights = ["*.safetensors*", "pytorch_model*.bin*"] if loaded else []
    state = model_files.left_out(source)
    shutil.copytree(source, part, ignore=shutil.ignore_patterns(*ADAPTER, *weights, *state, ".*"))
    if state:
        log.info("export: left out what a trainer keeps to resume: %s", ", ".join(state))
    if loaded:
        with terminal.status("loading torch and transformers"):
            import torch

            from tltrain.models import devices, loading
        given = devices.weights_dtype(cfg.model)
        if cfg.stage.dtype is not None:
            given = getattr(torch, cfg.stage.dtype.name)
        model = loading.load_model(str(source), cfg.model, given, torch.device("cpu"))
        config = part / "generation_config.json"
        kept = config.read_text(encoding="utf-8") if config.is_file() else None
        with terminal.status("saving the model"):
            model.save_pretrained(part)
        if kept is not None:  # it may name more end tokens than the model's own
            with runs.writing(config) as file:
                file.write(kept)
        _end_as_trained(cfg, part)
    _readable(part)
    shutil.rmtree(target, ignore_errors=True)
    part.rename(target)
    return {"merged": adapter}


def _end_as_trained(cfg: DictConfig, part: Path) -> None:
    from tltrain.models import encoders

    encoder = encoders.load_encoder(str(part), cfg.model, cfg.format)
    if encoder.reads_tokens:
        encoders.end_at(part, encoder.native.stop_ids)  # type: ignore[attr-defined]


def _readable(folder: Path) -> None:
    """Let a server under another user read the files, as far as this user's umask allows; safetensors says 0600."""
    mask = os.umask(0)
    os.umask(mask)
    for file in folder.rglob("*"):
        if file.is_file():
            file.chmod(0o666 & ~mask)


# --- GGUF -------------------------------------------------------------------------------------------------------------


def write_modelfile(basis: Basis, target: Path, file: Path) -> None:
    """Write the Modelfile beside the GGUF file."""
    context = certify.context_of(target)
    text = gguf.modelfile(file.name, stops(basis), min(context, OLLAMA_CONTEXT) if context else None)
    with runs.writing(target / gguf.MODELFILE) as written:
        written.write(text)


def stops(basis: Basis) -> list[str]:
    """Return the texts that end an answer of the format."""
    if not basis.native:
        return list(basis.encoder.format.stop)
    tokenizer = basis.encoder.tokenizer
    return [str(tokenizer.decode([each])) for each in sorted(basis.encoder.native.stop_ids)]  # type: ignore[attr-defined]


def describe(
    target: Path, file: Path, by: gguf.Converter, precision: str, made: Comparison | None, why_not: str
) -> None:
    """Put the section about the GGUF file into the card."""
    from tltrain.serving import card

    more = {gguf.MODELFILE: "makes it a model of Ollama (`ollama create NAME -f Modelfile`), which was not run."}
    card.show_gguf(target, section(file.name, file.stat().st_size, by.name, precision, made, why_not, more))


def verified(cfg: DictConfig, basis: Basis, target: Path, file: Path) -> tuple[Comparison | None, str]:
    """Compare llama.cpp with training and transformers; (None, why) if that is not possible."""
    if cfg.stage.verify == 0:
        return None, "stage.verify=0"
    if llama_cpp.missing():
        return None, llama_cpp.WHY_MISSING
    train, held_out = JudgedSource(cfg).split()
    try:
        asked, _ = certify.chosen(
            basis, held_out or train, cfg.stage.verify, certify.context_of(target), lambda *_: False
        )
    except certify.NothingToAskError as error:
        return None, str(error)
    return compare(cfg, basis, target, file, asked), ""


def compare(cfg: DictConfig, basis: Basis, target: Path, file: Path, asked: list[Asked]) -> Comparison:
    """Ask llama.cpp and transformers the same prompts."""
    from tltrain.serving import comparison, server

    encoder, tokenizer = basis.encoder, basis.encoder.tokenizer
    ends = [*ends_of(basis)]
    limit = min(ANSWER, certify.answer_limit(basis, asked))
    options = basis.record.options if basis.record else {}
    context = max(len(one.ids) for one in asked) + limit + 1
    deadline = time.monotonic() + cfg.certify_timeout
    given = llama_cpp.options(context, cfg.hardware.threads)
    prompts: list[str] = []
    theirs: list[list[int]] = []
    with (
        terminal.status(f"asking llama.cpp {len(asked)} prompts"),
        server.serving(file, given, cfg.hardware.threads, cfg.certify_timeout, llama_cpp.PROGRAM) as running,
    ):
        client = llama_cpp.Client(running, deadline)
        try:
            for one in asked:
                text = client.rendered(one.messages, one.tools, options) if basis.native else one.text
                built = client.tokens(text)
                shown = [[tokenizer.decode([each]) for each in ids] for ids in (one.ids, built)]
                answer = client.answer(one.ids, limit)
                prompts.append(comparison.prompt_difference(one.ids, built, *shown))
                theirs.append(until_end(answer, ends))
        except TimeoutError:
            if not theirs:
                raise TltrainError(f"{file}: llama.cpp gave no answer in time: certify_timeout=SECONDS") from None
            log.warning("export: %d of %d prompts were answered in time (certify_timeout)", len(theirs), len(asked))
    leads = leads_of(cfg, target, encoder, [one.ids for one in asked[: len(theirs)]], theirs, ends, limit)
    found = [Answered(one.sample.id, prompt, lead) for one, prompt, lead in zip(asked, prompts, leads, strict=False)]
    return compared(found, cfg.stage.gguf.name, llama_cpp.version())


def ends_of(basis: Basis) -> set[int]:
    """Return the tokens that end an answer."""
    own = set(basis.encoder.native.stop_ids) if basis.native else set()  # type: ignore[attr-defined]
    return own | {basis.encoder.eos_id}


def leads_of(
    cfg: DictConfig,
    target: Path,
    encoder: Any,
    prompts: list[Any],
    theirs: list[list[int]],
    ends: list[int],
    limit: int,
) -> list[float | None]:
    """Answer the prompts greedily with transformers, in the file's number format, and compare the answers.

    Returns:
        for each prompt the nats by which our token leads where the answers diverge; None if they are equal.
    """
    import torch

    from tltrain.inference import generation
    from tltrain.inference.continuous_batching import Decoding, Prefill
    from tltrain.models import loading

    dtype = {"f16": torch.float16, "bf16": torch.bfloat16}.get(cfg.stage.gguf.name, torch.float32)
    model = loading.load_model(str(target), cfg.model, dtype, torch.device("cpu")).float().eval()
    decoding = Decoding(limit, encoder.eos_id, encoder.tokenizer.pad_token_id, ended=lambda ids: False)
    with torch.inference_mode(), generation.ignore_generation_config(model):
        answered = generation.in_batches(model, prompts, decoding, AT_ONCE, Prefill())
        ours = dict(terminal.track(answered, "answering with transformers", len(prompts)))
        return [
            _lead(model, prompt, until_end(ours[number], ends), theirs[number], encoder.eos_id)
            for number, prompt in enumerate(prompts)
        ]


def _lead(model: Any, prompt: Any, ours: list[int], theirs: list[int], end: int) -> float | None:
    import torch

    if (at := parting(ours, theirs)) is None:
        return None
    logits = model(torch.tensor([[*prompt, *ours[:at]]]), logits_to_keep=1).logits[0, -1]
    likelier, other = (ids[at] if at < len(ids) else end for ids in (ours, theirs))
    return float(logits[likelier] - logits[other])
