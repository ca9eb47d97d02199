"""stage=certify: serve a saved model, ask it held-out prompts, and compare with its training.

    python -m tltrain stage=certify model.path=outputs/pkt/TIME/model
    python -m tltrain stage=pkt certify=20 ...                              the same after a training

`transformers serve` serves the folder on the loopback interface, and the OpenAI client asks it with native messages and
tools (in the TL format: with text). It counts the prompts whose token ids in the served process are those of training,
the answers with calls that the server parsed, and the answers that the server reads as this package does. The counts
are written to `certificate.json` in the model's folder and shown in its card. A difference ends the run with status 1;
a weak model does not.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from omegaconf import DictConfig

from tltrain.config.stages import CERTIFIED
from tltrain.data.judged import JudgedSource
from tltrain.errors import TltrainError
from tltrain.runtime import fingerprints, manifests, runs, terminal
from tltrain.serving import comparison, server
from tltrain.serving.comparison import Certificate, Compared

if TYPE_CHECKING:
    from tltrain.models.encoders import TokenizationRecord
    from tltrain.serving.asking import Client
    from tltrain.serving.prompts import Asked, TrainedPrompts
    from tltrain.serving.server import Recorded
    from tltrain.tokens.encoder import Encoder
    from tltrain.tokens.native import NativeEncoder
    from tltrain.trajectory import Trajectory

log = logging.getLogger(__name__)

LONGEST, LONGEST_WITH_THOUGHTS = 256, 1024
"""Maximum number of tokens of an answer."""


def run(cfg: DictConfig, folder: Path) -> dict[str, Any]:
    """Run the stage in `folder` and return what it wrote to `metrics.json`.

    Raises:
        TltrainError: the folder cannot be served, there is nothing to ask, or the certificate fails.
    """
    if cfg.model.path is None or not Path(cfg.model.path).is_dir():
        wrong = "" if cfg.model.path is None else f"; {cfg.model.path} is no folder"
        raise TltrainError(f"stage=certify serves the folder of a model: give model.path=FOLDER{wrong}")
    if (why := obstacle(Path(cfg.model.path))) is not None:
        raise TltrainError(f"stage=certify: {why}")
    made = certify(cfg, Path(cfg.model.path), CERTIFIED if cfg.certify is None else cfg.certify)
    runs.write_json(folder / comparison.FILE, made.to_json())
    tell(made, cfg.model.path)
    metrics = made.to_json()
    runs.finish(folder, cfg, metrics)
    return metrics


def after_training(cfg: DictConfig, folder: Path, metrics: dict[str, Any], count: int) -> dict[str, Any]:
    """Certify the model that a training run has left in `folder`, and return the metrics with the certificate.

    If it cannot be served, because packages are missing or because it is only an adapter, a warning says so.

    Raises:
        TltrainError: the certificate fails. The model, the metrics and the certificate are written.
    """
    model = folder / "model"
    if (why := obstacle(model)) is not None:
        log.warning("certify: the model was not served: %s", why)
        return metrics
    try:
        made = certify(cfg, model, count)
    except NothingToAskError as error:
        log.warning("certify: the model was not served: %s", error)
        return metrics
    metrics = {**metrics, "certificate": made.to_json()}
    runs.write_json(folder / "metrics.json", metrics)
    tell(made, str(model))
    return metrics


def obstacle(model: Path) -> str | None:
    """Return why a model's folder cannot be served here, with the remedy; None if no obstacle is known."""
    if (why := server.obstacle()) is not None:
        return f"{why}, then stage=certify model.path={model}"
    if not (model / "config.json").is_file():
        return f"{model} holds only an adapter, which `transformers serve` does not load: model.lora.merge=true"
    return None


def tell(made: Certificate, model: str) -> None:
    """Print the certificate in one line. Raises TltrainError if it fails."""
    if made.passed:
        terminal.console.print(f"certified: {made.line()}", markup=False)
        return
    raise TltrainError(f"the model in {model} does not work as trained when it is served: {made.failure()}")


class NothingToAskError(TltrainError):
    """There are no prompts."""


@dataclass(frozen=True)
class Basis:
    """The training setup with which a served folder is compared.

    Attributes:
        encoder: builds the prompts of training and reads answers. record, trained: the folder's records of training.
    """

    encoder: Encoder
    record: TokenizationRecord | None
    trained: TrainedPrompts | None

    @property
    def native(self) -> bool:
        """Whether the model has a native format."""
        return bool(self.encoder.reads_tokens)


Lost: TypeAlias = "Callable[[Basis, Asked], bool]"


def certify(cfg: DictConfig, model: Path, count: int) -> Certificate:
    """Serve a model's folder, ask it `count` prompts, and write the certificate to the folder and its card.

    Raises:
        TltrainError: it cannot be served, or answers nothing in time (`certify_timeout`).
        NothingToAskError: the data has no prompt for it.
    """
    with terminal.status("loading torch and transformers"):
        from tltrain.models import devices
        from tltrain.serving.asking import client_of
        from tltrain.serving.server import serving

    start = time.monotonic()
    basis = basis_of(cfg, model)
    train, held_out = JudgedSource(cfg).split()
    if not held_out:
        log.info("certify: nothing is held out (data.holdout), so training prompts are asked")
    asked, not_sent = chosen(basis, held_out or train, count, context_of(model))
    options = ["--device", "cpu" if devices.device_and_dtype(cfg.hardware)[0].type == "cpu" else "auto"]
    if cfg.model.trust_remote_code:
        options.append("--trust-remote-code")
    deadline = start + cfg.certify_timeout
    with terminal.status(f"serving {model}"):
        opened = serving(model, options, cfg.hardware.threads, cfg.certify_timeout)
        with opened as running, client_of(running, model, deadline) as client:
            replies = answers(client, basis, asked)
            recorded = running.recorded()
    if not replies:
        raise TltrainError(
            f"{model}: the served model gave no answer in {cfg.certify_timeout:g} s: certify_timeout=SECONDS"
        )
    if len(replies) < len(asked):
        log.warning(
            "certify: %d of %d prompts were answered in %g s (certify_timeout)",
            *(len(replies), len(asked), cfg.certify_timeout),
        )
    asked = asked[: len(replies)]
    compared, texts = [], []
    for number, (one, reply) in enumerate(zip(asked, replies, strict=True)):
        found, text = compare(basis, one, reply, recorded.get(str(number)))
        compared.append(found)
        texts.append(text)
    chats = [_same_chat(one, recorded.get(f"{number}-chat")) for number, one in enumerate(asked)]
    made = comparison.certificate(
        compared,
        from_training=sum(basis.trained.differs(one) is False for one in asked) if basis.trained else 0,
        not_sent=not_sent,
        chat_prompts_equal=None if basis.native else sum(chats),
        format=basis.encoder.native.name if basis.native else "tl",  # type: ignore[attr-defined]
        mode="chat" if basis.native else "text",
        server=f"transformers {fingerprints.version('transformers')}",
        seconds=round(time.monotonic() - start, 1),
        metrics=metrics_of(texts, asked, cfg.seed),
    )
    keep(made, model)
    return made


def keep(made: Certificate, model: Path) -> None:
    """Write the certificate to the model's folder and its card; a folder in the cache is left unchanged."""
    from tltrain.serving import card

    real = model.resolve()
    if manifests.beside(real).is_file() or any((above / manifests.ENTRY).is_file() for above in (real, *real.parents)):
        log.info("certify: %s is in the cache and stays as it is", model)
        return
    runs.write_json(model / comparison.FILE, made.to_json())
    card.show_certificate(model, made)


# --- the prompts ------------------------------------------------------------------------------------------------------


def basis_of(cfg: DictConfig, model: Path) -> Basis:
    """Load the encoder of a model's folder, with the chat template of its training in place of the saved one."""
    from tltrain.models import encoders, loading
    from tltrain.serving.prompts import TrainedPrompts

    record, trained = encoders.TokenizationRecord.read(model), TrainedPrompts.read(model)
    if record is None or trained is None or not trained.template:
        return Basis(encoders.load_encoder(str(model), cfg.model, cfg.format), record, trained)
    tokenizer = loading.load_tokenizer(str(model), cfg.model)
    tokenizer.chat_template = trained.template
    how = {"options": record.options, "date": record.date}
    return Basis(encoders.native_encoder(tokenizer, record.format, how), record, trained)


def at_date(basis: Basis, date: str) -> NativeEncoder:
    """Return the encoder of a native format with another date, for a template that writes the current one."""
    from tltrain.models import encoders

    native = basis.encoder.native  # type: ignore[attr-defined]
    tokenizer = basis.encoder.tokenizer
    tokenizer.chat_template = native.template
    options = basis.record.options if basis.record else {}
    return encoders.native_encoder(tokenizer, native.name, {"options": options, "date": date})


def context_of(model: Path) -> int | None:
    """Return the maximum number of tokens that a model processes; None if its configuration does not say."""
    from tltrain.models import loading

    found = loading.sizes_at(str(model)).get("max_position_embeddings")
    return found if isinstance(found, int) else None


def chosen(
    basis: Basis, items: Sequence[Trajectory], count: int, context: int | None, lost: Lost | None = None
) -> tuple[list[Asked], int]:
    """Choose prompts that fit the model and can be sent to the server; also count those that cannot be sent.

    Args:
        lost: whether a server drops a part of a native prompt; None: as `transformers serve` does.

    Raises:
        NothingToAskError: there are none.
    """
    from tltrain.serving import prompts

    lost = lost or lost_by_server
    made: list[Asked] = []
    not_sent = 0
    for sample in prompts.in_order(items, basis.encoder):
        try:
            one = prompts.asked(sample, basis.encoder)
        except TltrainError:  # training counts what a template refuses
            continue
        if context is not None and len(one.ids) + LONGEST > context:
            continue
        if lost(basis, one) if basis.native else basis.encoder.reads_apart(sample):
            not_sent += 1
            continue
        made.append(one)
        if len(made) == count:
            break
    if not made:
        why = (
            "words or thoughts in their history, which `transformers serve` drops"
            if basis.native
            else "other tokens if a server splits their text, and `transformers serve` takes no ids"
        )
        raise NothingToAskError(
            f"of {len(items)} conversations no turn with a call can be asked; {not_sent} of the turns have {why}"
        )
    if len(made) < count:
        log.info("certify: the data has %d prompts to ask, not %d", len(made), count)
    return made, not_sent


def lost_by_server(basis: Basis, one: Asked) -> bool:
    """Return whether `transformers serve` gives the chat template other messages than it is sent."""
    from tltrain.serving.asking import as_served

    try:
        prompt = basis.encoder.native.prompt(as_served(one.messages), one.tools)  # type: ignore[attr-defined]
    except TltrainError:
        return True
    return list(prompt.ids) != list(one.ids)


# --- asking and comparing ---------------------------------------------------------------------------------------------


def answers(client: Client, basis: Basis, asked: Sequence[Asked]) -> list[Any]:
    """Ask all prompts, one after another, until the time is over."""
    from tltrain.formats.native import messages_of, tools_of
    from tltrain.serving.asking import OutOfTimeError
    from tltrain.serving.prompts import Asked
    from tltrain.trajectory import sequential

    options = basis.record.options if basis.record else {}
    limit, replies = answer_limit(basis, asked), []
    try:
        for number, one in enumerate(asked):
            if basis.native:
                replies.append(client.chat(str(number), one, limit, options))
                continue
            replies.append(client.text(str(number), one.text, limit, basis.encoder.format.stop))
            messages, _ = messages_of(sequential(one.sample.messages), one.sample.instructions, one.sample.tools)
            as_chat = Asked(one.sample, messages, tools_of(one.sample), "", one.ids)
            client.chat(f"{number}-chat", as_chat, 1, {})
    except OutOfTimeError:
        pass
    return replies


def answer_limit(basis: Basis, asked: Sequence[Asked]) -> int:
    """Return the answer limit in tokens: enough for any golden answer, and for a thought if the model writes them."""
    if basis.record is not None and basis.record.thinking:
        return LONGEST_WITH_THOUGHTS
    texts = [f"{call.name} {dict(call.arguments)}" for one in asked for call in one.sample.goldens]
    calls = max(len(one.sample.goldens) for one in asked)
    longest = max(len(ids) for ids in basis.encoder.tokenizer(texts)["input_ids"])
    return min(LONGEST, calls * (2 * longest + 32))


def compare(basis: Basis, one: Asked, reply: comparison.Reply, found: Recorded | None) -> tuple[Compared, str]:
    """Compare a prompt and its answer; also return the answer as text of the TL format.

    Args:
        found: what the served process recorded; None if it generated nothing.
    """
    encoder, tools = basis.encoder, one.sample.tools
    if found is None:
        why = f"the server gave the model nothing: {reply.error or 'it recorded no prompt'}"
        return Compared(one.sample.id, prompt=why), ""
    expected = list(one.ids)
    if basis.native and (date := encoder.native.date) and date != found.date:  # type: ignore[attr-defined]
        expected = at_date(basis, found.date).prompt(one.sample)
    texts = [encoder.tokenizer.decode([token]) for token in expected]
    other = [encoder.tokenizer.decode([token]) for token in found.prompt]
    prompt = comparison.prompt_difference(expected, found.prompt, texts, other)
    if not prompt and basis.trained is not None and basis.trained.differs(one):
        prompt = "the saved tokenizer builds other tokens than training did"
    if basis.native:
        from tltrain.formats.native import as_text

        answer = encoder.read(found.answer, found.prompt, tools)  # type: ignore[attr-defined]
        calls = comparison.call_difference(reply, answer, tools)
        readable = not answer.problems
        return Compared(one.sample.id, prompt, calls, bool(reply.calls), readable), as_text(answer)
    ours, theirs = encoder.text(found.answer), encoder.format.answer(reply.text)
    calls = "" if ours == theirs and not reply.error else f"the server says {reply.error or theirs!r}, we read {ours!r}"
    return Compared(one.sample.id, prompt, calls), ours


def _same_chat(one: Asked, found: Recorded | None) -> bool:
    return found is not None and list(found.prompt) == list(one.ids)


def metrics_of(texts: Sequence[str], asked: Sequence[Asked], seed: int) -> dict[str, Any]:
    """TS, PI and CF of the answers, in percent with intervals."""
    from tltrain.evaluation import scoring

    graded = scoring.every_call(texts, [one.sample for one in asked])
    return {name: value.to_json() for name, value in scoring.score(graded, seed).items()}
