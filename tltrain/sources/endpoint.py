"""source=endpoint: any server with OpenAI's API, with concurrent requests.

    python -m tltrain stage=eval source=endpoint source.url=http://localhost:8000/v1 source.model=NAME

`source.mode=text` sends the prompt in the TL format to `/completions`, and ends the answer where the local model's
answer ends. A prompt contains no end token: as in training, where the end token is a target and never an input
(`tokens.packing`), the next role directly follows the assistant's text. Greedy answers therefore agree with the local
model's if the server tokenizes the whole text as `Encoder` tokenizes its pieces. It does not if its tokenizer merges
the end of one piece with the beginning of the next (Qwen's merges quotes with the line feed after them; `tltrain.json`
beside a trained model counts such prompts), or if a message contains the name of a special token. In these cases
`source.tokenizer` sends token ids, which vLLM, SGLang and llama.cpp accept. The server adds the BOS token before the
text, as its tokenizer does; `model.bos=true|false` overrides this (`add_special_tokens`, which vLLM reads).

`source.mode=chat` sends messages and native tools to `/chat/completions` (`tltrain.formats.chat_completions`). In
conversations all calls of a message are run; its thought is recorded and not sent back.

Each response is stored under `cache.dir/endpoint/` as soon as it arrives, by a digest of the whole request (URL, path
and body, never the key), so that an interrupted run continues where it stopped. A prompt that the server refuses as too
long counts as not answered, as for the local model.

A server is untrusted: `source.timeout`, `source.total_timeout` and `source.max_response_size` limit it, redirects are
not followed (`tltrain.sources.limited_client`), and the reasons why answers ended (`finish_reason`) are counted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from omegaconf import DictConfig

from tltrain import config
from tltrain.errors import TltrainError, shorten
from tltrain.formats import chat_completions, joined
from tltrain.formats.families import TL_FULL_NAME
from tltrain.formats.native import Answer, answer_of_message
from tltrain.formats.tl import TL, tl_format
from tltrain.runtime import json_files, redact, runs, terminal
from tltrain.runtime.shares import share
from tltrain.sources import description, server_errors
from tltrain.sources.connection import connect, open_client
from tltrain.sources.endings import FINISH_REASONS, Endings
from tltrain.trajectory import Sample

if TYPE_CHECKING:
    from openai import AsyncOpenAI

    from tltrain.tokens.encoder import Encoder

log = logging.getLogger(__name__)

Json = dict[str, Any]
TOO_LONG: Json = {}
"""Replaces the response to a prompt that is too long for the model."""


@contextmanager
def open_endpoint(cfg: DictConfig) -> Iterator[Endpoint]:
    """Open the endpoint of `cfg.source`; its connections stay open within the block.

    Raises:
        TltrainError: there is no URL or model name, the URL contains a key, or the package `openai` is missing.
    """
    with open_client(cfg.source) as (client, runner):
        yield Endpoint(cfg, client, runner)


def check_running(cfg: DictConfig) -> None:
    """Raise a TltrainError unless a server accepts connections; stored answers may make one unnecessary."""
    with open_client(cfg.source) as (client, runner):
        if not (cfg.source.cache and any(_cache_folder(cfg).glob("*/*.json"))):
            runner.run(connect(client, cfg.source.url))


def _cache_folder(cfg: DictConfig) -> Path:
    return Path(cfg.cache.dir) / "endpoint"


class Endpoint:
    """Answers of a server with OpenAI's API (a `tltrain.sources.Source`)."""

    def __init__(self, cfg: DictConfig, client: AsyncOpenAI, runner: asyncio.Runner) -> None:
        self.settings, self.client, self.runner = cfg.source, client, runner
        self.name: str = cfg.source.model
        self.bos: bool | str = cfg.model.bos
        self.too_long = 0
        self.endings = Endings()
        self.unparsed = 0
        self.native_answers: list[Answer | None] = []
        self.thoughts: set[str] = set()
        self.chat = self.several_calls = cfg.source.mode.name == "chat"
        self.path = "/chat/completions" if self.chat else "/completions"
        self.folder = _cache_folder(cfg)
        self.description = description(cfg)
        self.common = _common_fields(cfg)
        self.extra = list(cfg.source.extra)
        self.encoder = _encoder(cfg) if cfg.source.tokenizer is not None else None
        self.format = tl_format(cfg.format.name) if self.encoder is None else self.encoder.format

    def __call__(self, samples: Sequence[Sample]) -> list[str | None]:
        """Return the answer to each sample, None for a prompt that is too long; equal requests are sent once.

        Raises:
            TltrainError: a request has failed permanently. Answers received so far are stored.
        """
        bodies = [self.body(sample) for sample in samples]
        keys = [self._key(body) for body in bodies]
        responses: dict[str, Json] = {}
        waiting: dict[str, tuple[Json, Sample]] = {}
        for key, body, sample in zip(keys, bodies, samples, strict=True):
            kept = self._kept(key, sample)
            if kept is not None:
                responses[key] = kept
            else:
                waiting[key] = (body, sample)
        if responses:
            log.info("%d of %d answers are there already", sum(key in responses for key in keys), len(keys))
        if waiting:
            self.runner.run(self._ask_all(waiting, responses, keys))
        self._tell_too_long([sample for key, sample in zip(keys, samples, strict=True) if responses[key] is TOO_LONG])
        texts = [self._text(responses[key], sample) for key, sample in zip(keys, samples, strict=True)]
        self.endings.add([_ending(responses[key], text) for key, text in zip(keys, texts, strict=True)])
        self._count_unparsed([(responses[key], sample) for key, sample in zip(keys, samples, strict=True)])
        if self.chat:
            self.native_answers = [
                self._native(responses[key], sample) for key, sample in zip(keys, samples, strict=True)
            ]
        return texts

    def _native(self, response: Json, sample: Sample) -> Answer | None:
        """Return the answer in a response to /chat/completions as it was given; None if its text has all of it.

        Text without `tool_calls` may contain a call in the TL format, which is read like the text of any other source.
        """
        if response is TOO_LONG:
            return None
        answer = answer_of_message(response["choices"][0]["message"], sample.tools)
        if answer.thought:
            self.thoughts.add(answer.thought)
        return answer if answer.attempts else None

    def reading(self) -> Json:
        """Return why answers ended (`finish_reasons`), and how many have a call as text (`unparsed_tool_calls`)."""
        return self.endings.reading() | ({"unparsed_tool_calls": self.unparsed} if self.unparsed else {})

    def body(self, sample: Sample) -> Json:
        """Return the body of the request for a sample, as plain JSON that UTF-8 can encode."""
        if self.chat:
            asked = chat_completions.request(self._without_own_thoughts(sample))
        else:
            prompt = self.encoder.prompt(sample) if self.encoder else joined(self.format.prompt_segments(sample))
            asked = {"prompt": prompt, "stop": list(self.format.stop)}
            if self.encoder is None and self.bos != "auto":
                asked["add_special_tokens"] = self.bos
        return json.loads(json.dumps({**asked, **self.common}, ensure_ascii=False).encode("utf-8", "replace"))

    def _without_own_thoughts(self, sample: Sample) -> Sample:
        """Return the sample without this server's earlier thoughts, which APIs do not accept."""
        said = tuple(
            replace(message, thought="") if message.thought in self.thoughts else message for message in sample.messages
        )
        return replace(sample, messages=said)

    async def _ask_all(
        self, waiting: dict[str, tuple[Json, Sample]], responses: dict[str, Json], keys: Sequence[str]
    ) -> None:
        """Send the waiting requests, `concurrency` at a time, and put the responses into `responses`.

        After a failure no further request is sent, but those in progress may finish: the user may be billed for them.
        """
        failures: list[tuple[Sample, str]] = []
        rest = iter(waiting.items())

        async def worker(advance: Callable[..., None]) -> None:
            for key, (body, sample) in rest:  # shared by all workers; each takes the next request
                try:
                    responses[key] = await self._ask(key, body, sample)
                except _Failed as failed:
                    failures.append((sample, str(failed)))
                if failures:
                    return
                advance()

        with terminal.progress(self.description, len(waiting)) as advance:
            await asyncio.gather(*(worker(advance) for _ in range(min(self.settings.concurrency, len(waiting)))))
        if failures:
            sample, problem = failures[0]
            raise TltrainError(
                f"{self.settings.url}, sample {sample.id}: {problem}; {self._what_is_kept(responses, keys)}"
            )

    async def _ask(self, key: str, body: Json, sample: Sample) -> Json:
        """Return the response to one request, within `source.total_timeout`.

        The client retries HTTP errors (429, 500, no connection or a lost one, silence for `timeout` seconds);
        `_ask_again` retries responses that are not completions.
        """
        try:
            async with asyncio.timeout(self.settings.total_timeout):
                return await self._ask_again(key, body, sample)
        except TimeoutError:
            raise _Failed(f"no whole answer in {self.settings.total_timeout:g} s (source.total_timeout)") from None

    async def _ask_again(self, key: str, body: Json, sample: Sample) -> Json:
        """Do the same as `_ask` without a time limit."""
        received = ""
        for attempt in range(self.settings.retries + 1):
            if attempt:
                await asyncio.sleep(min(0.5 * 2**attempt, 8))
            found = await self._post(body)
            if found is None:
                return TOO_LONG
            received = found
            try:
                response = redact.known_in(json_files.parse(received))  # the stored response is the one that is scored
                self._text(response, sample)
                if self.settings.cache:
                    runs.write_json(
                        self._file(key), {"path": self.path, "body": self._without_secrets(body), "response": response}
                    )
            except ValueError:
                continue
            return response
        raise _Failed(server_errors.no_completion(received, self._clean(received)))

    async def _post(self, body: Json) -> str | None:
        """Return the server's response as text; None if the prompt is too long for it."""
        import openai

        from tltrain.sources.limited_client import RefusedError

        try:
            return await self.client.post(self.path, body=body, cast_to=str)
        except RefusedError as error:
            raise _Failed(self._clean(str(error))) from None
        except openai.APIStatusError as error:
            if server_errors.too_long(error.status_code, error.response.text):
                return None
            raise _Failed(self._told(error, body)) from None
        except openai.APITimeoutError:
            raise _Failed(f"nothing came for {self.settings.timeout:g} s (source.timeout)") from None
        except openai.OpenAIError as error:
            raise _Failed(f"no answer: {self._clean(str(error.__cause__ or error))}") from None

    def _text(self, response: Any, sample: Sample) -> str | None:
        """Return the answer in a response, as text in the TL format. Raises ValueError if it is not a completion."""
        if response is TOO_LONG:
            return None
        try:
            choice = response["choices"][0]
            if self.chat:
                return chat_completions.answer_text(choice["message"], sample.tools)
            text = choice["text"]
            if text is None and choice.get("finish_reason") == "content_filter":
                text = ""
        except (KeyError, IndexError, TypeError) as error:
            raise ValueError("no completion") from error
        if not isinstance(text, str):
            raise ValueError("no text")
        return self.format.answer(text)

    def _count_unparsed(self, answered: Sequence[tuple[Any, Sample]]) -> None:
        """Count answers that contain a tool call as text, and warn once, naming the first."""
        unparsed = [
            sample
            for response, sample in answered
            if self.chat
            and response is not TOO_LONG
            and chat_completions.unparsed_call(response["choices"][0]["message"], sample.tools)
        ]
        if unparsed and not self.unparsed:
            log.warning(
                "%s answers hold a tool call as text, the first is sample %s: the server's tool parser is off, or does "
                "not fit the model, and these count as no calls; start vLLM with --enable-auto-tool-choice "
                "--tool-call-parser NAME, SGLang with --tool-call-parser NAME, llama.cpp with --jinja",
                share(len(unparsed), len(answered)),
                unparsed[0].id,
            )
        self.unparsed += len(unparsed)

    # --- stored responses --------------------------------------------------------------------------------------------

    def _key(self, body: Json) -> str:
        request = json.dumps([self.settings.url, self.path, self._without_secrets(body)], sort_keys=True)
        return hashlib.sha256(request.encode()).hexdigest()

    def _without_secrets(self, body: Json) -> Json:
        """Return a request's body as it is stored: without secrets of `source.extra` and without known secrets."""
        return redact.known_in(body | redact.container({name: body[name] for name in self.extra if name in body}))

    def _file(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _kept(self, key: str, sample: Sample) -> Json | None:
        """Return the stored response of an earlier run; None if there is none or it is damaged."""
        if not self.settings.cache:
            return None
        try:
            response = json_files.read_object(self._file(key))["response"]
            self._text(response, sample)
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return response

    def _what_is_kept(self, responses: dict[str, Json], keys: Sequence[str]) -> str:
        if not self.settings.cache:
            return "no answer is kept (source.cache=false)"
        kept = sum(responses.get(key, TOO_LONG) is not TOO_LONG for key in keys)
        return f"{kept} of {len(keys)} answers are kept in {self.folder}; the same command continues from there"

    # --- messages ----------------------------------------------------------------------------------------------------

    def _tell_too_long(self, samples: Sequence[Sample]) -> None:
        if samples:
            log.warning(
                "%d prompts are too long for %s, the first is sample %s: they count as not answered",
                len(samples),
                self.name,
                samples[0].id,
            )
        self.too_long += len(samples)

    def _told(self, error: Any, body: Json) -> str:
        """Return a server's error and what may help."""
        said = error.response.text
        if remedy := server_errors.remedy(error.status_code, said, body, self.settings.limit_field.value):
            return f"HTTP {error.status_code}: {self._clean(said)}; {remedy}"
        hint = {
            401: f"; the key is read from the environment variable {self.settings.api_key_env} (source.api_key_env)",
            404: "; expected source.url to end where /completions follows, often in /v1, and a source.model it knows",
            429: "; a lower source.concurrency asks less at a time, more source.retries wait longer",
        }.get(error.status_code, "")
        return f"HTTP {error.status_code}: {self._clean(said) or 'no explanation'}{hint}"

    def _clean(self, text: str) -> str:
        """Return `text` on one short line, without secrets, which a server may repeat, and control characters."""
        return shorten("".join(c if c.isprintable() else " " for c in redact.text(text)[:10_000]), 300)


def _ending(response: Any, text: str | None) -> str:
    """Return why an answer ended, one of `FINISH_REASONS` or `other`; empty if the server does not say.

    An answer that the server cut after its call is complete: we stop reading there too.
    """
    reason = None if text is None else response["choices"][0].get("finish_reason")
    if reason == "length" and text is not None and TL.answer_length(text) is not None:
        return "stop"
    return "" if reason is None else reason if reason in FINISH_REASONS else "other"


class _Failed(Exception):
    """A request has failed permanently."""


def _common_fields(cfg: DictConfig) -> Json:
    """Return the fields of every body; null in `source.extra` removes one. Sampled answers depend on the seed."""
    sampled = {"seed": cfg.seed} if cfg.source.temperature else {}
    fields = {
        "model": cfg.source.model,
        cfg.source.limit_field.value: cfg.stage.max_new_tokens,
        "temperature": cfg.source.temperature,
        **sampled,
        **config.plain(cfg.source.extra),
    }
    return {name: value for name, value in fields.items() if value is not None}


def _encoder(cfg: DictConfig) -> Encoder:
    """Load the encoder of `source.tokenizer`; only this function needs transformers."""
    from tltrain.models.encoders import load_encoder

    return load_encoder(cfg.source.tokenizer, cfg.model, cfg.format if cfg.format.name == TL_FULL_NAME else None)
