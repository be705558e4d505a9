"""Renders a model's chat template in a process of its own, with limits of time and memory.

A template is a program that came with the model: a loop in it may never end. Its process is forked from one that has
imported what rendering needs and nothing else (no torch), so a new one starts in a few milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import signal
import threading
import weakref
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import Any, Final

import psutil
from transformers.utils.chat_template_utils import _compile_jinja_template, render_jinja_template

from training.contract import InputError

# Templates that print the date (Llama 3, SmolLM3) always get this one, which Llama's take where there is no clock: what
# a model reads must not depend on the day, or a resumed run is not the run that was stopped.
TEMPLATE_DATE: Final = datetime(2024, 7, 26, tzinfo=UTC)
MAX_SECONDS: Final = 5.0
MAX_BYTES: Final = 512 << 20
POLITE_SECONDS: Final = 0.2  # of computing, after which it gives way to whoever else wants the core
Turns = Sequence[Mapping[str, str]]


class TemplateStopped(InputError):
    """The template took more time or memory than it may."""


class TemplateProcess:
    """Renders one chat template. Safe to use from several threads; the process ends with this object."""

    def __init__(self, template: str, tokens: Mapping[str, Any], *, seconds: float | None = None) -> None:
        self._template = template
        self._special = special_tokens(tokens)
        self._seconds = seconds or MAX_SECONDS
        self._lock = threading.Lock()
        self._child: ChildProcess | None = None

    def render(self, turns: Turns, open_turn: bool) -> str:
        """The conversation as text. Raises TemplateStopped, or ValueError with the template's own words."""
        with self._lock:
            child = self._child or ChildProcess(self._template, self._special)
            self._child = None
            answer = child.ask((list(turns), open_turn), self._seconds)
            if answer is None:
                child.end()
                raise TemplateStopped(
                    f"the model's chat template takes more than {self._seconds:g} seconds or "
                    f"{MAX_BYTES >> 20} MB over this conversation",
                    code="template_stopped",
                )
            self._child = child
        rendered, text = answer
        if not rendered:
            raise ValueError(text)
        return text


class ChildProcess:
    """One process with its end of a pipe."""

    def __init__(self, template: str, special: dict[str, str]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["training.data.chat_templates"])
        ours, theirs = context.Pipe()
        self._process = context.Process(target=render_forever, args=(theirs, template, special), daemon=True)
        self._process.start()
        theirs.close()
        self._pipe = ours
        self.end = weakref.finalize(self, kill, self._process, ours)

    def ask(self, question: tuple[list[Mapping[str, str]], bool], seconds: float) -> tuple[bool, str] | None:
        """(whether it was rendered, text or what the template says against it); None if no answer came in time."""
        try:
            self._pipe.send(question)
            return self._pipe.recv() if self._pipe.poll(seconds) else None
        except (OSError, EOFError):  # the process is gone: out of memory
            return None


def kill(process: Any, pipe: Connection) -> None:
    pipe.close()
    process.kill()
    process.join()


def render_forever(pipe: Connection, template: str, special: dict[str, str]) -> None:
    """What the process does until the other end of the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPROF, lambda *_: os.setpriority(os.PRIO_PROCESS, 0, 10))
    limit = used_bytes() + MAX_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    while True:
        try:
            turns, open_turn = pipe.recv()
        except (EOFError, OSError):
            return
        pipe.send(render(template, special, turns, open_turn))


def render(template: str, special: dict[str, str], turns: list[Any], open_turn: bool) -> tuple[bool, str]:
    signal.setitimer(signal.ITIMER_PROF, POLITE_SECONDS)
    try:
        text = render_template(template, special, turns, open_turn=open_turn)
    except MemoryError:
        os._exit(1)
    except Exception as error:  # noqa: BLE001 (jinja2's errors, and whatever a template does wrong)
        return False, str(error)[:1000] or type(error).__name__
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
    return True, text


def render_template(template: str, special: Mapping[str, str], turns: Turns, *, open_turn: bool) -> str:
    """The conversation as text, in this process. special: the tokenizer's special tokens by name. Raises what the
    template raises."""
    # It passes on plain data only, so the clock is replaced in the compiled template, which transformers keeps.
    _compile_jinja_template(template).globals["strftime_now"] = TEMPLATE_DATE.strftime
    texts, _ = render_jinja_template(
        conversations=[turns],
        chat_template=template,
        add_generation_prompt=open_turn,
        **special,
    )
    text: str = texts[0]
    return text


def special_tokens(tokens: Mapping[str, Any]) -> dict[str, str]:
    """A tokenizer's special tokens by name, as templates take them."""
    return {name: str(token) for name, token in tokens.items() if isinstance(token, str)}


def used_bytes() -> int:
    """The address space that this process has now."""
    return int(psutil.Process().memory_info().vms)
