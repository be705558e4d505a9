"""The models that are served: loaded beside the others, tried out, then given a name."""

from __future__ import annotations

import copy
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from training.contract import InputError, ServedWeights, TrainingError, Turn
from training.data.chat_format import TEMPLATE, ChatFormat, Render
from training.data.chat_templates import TemplateProcess
from training.engine import Engine, EngineRequest, SamplingParams
from training.engine.detokenizer import token_decoder
from training.engine.kv_budget import KVBudget
from training.engine.llama_inference import int8_obstacle
from training.kernels.heap import trim_heap
from training.models.checks import check_source, check_vocabulary
from training.models.compute import Compute, adapter_base
from training.models.loading import load_causal, load_tokenizer
from training.serve.encoder import Encoder

log = logging.getLogger(__name__)

SMOKE_TOKENS = 4


@dataclass(eq=False)
class Served:
    """A model in memory. `chat` is None for base models, which complete text but have no chat template."""

    path: str
    engine: Engine
    chat: ChatFormat | None
    tokenizer: Any
    stop_ids: frozenset[int]
    decode: Callable[[list[int]], str]
    encoder: Encoder = field(default_factory=Encoder)
    created: int = field(default_factory=lambda: int(time.time()))


class ModelPool:
    """Models by name. Safe to use from several threads: a load takes seconds and must not hold up requests.

    A name is moved to another model by one assignment, so a request sees the old model or the new one whole; replies
    under way end on the model they began with. The model that lost its name stays in memory, for the way back, until
    its place is wanted.
    """

    def __init__(
        self,
        compute: Compute,
        *,
        slots: int,
        max_models: int,
        memory: KVBudget | None = None,
        weights: ServedWeights = "full",
    ) -> None:
        self.memory = memory or KVBudget(compute.device)  # for keys and values of all models
        self._compute = compute
        self._slots = slots
        self._most = max_models
        self._weights = weights
        self._lock = threading.Lock()
        self._loading = threading.Lock()
        self._models: dict[Any, Served] = {}  # by what is on disk, the least recently used first
        self._names: dict[str, Any] = {}

    def get(self, name: str) -> Served | None:
        with self._lock:
            key = self._names.get(name)
            if key is None:
                return None
            self._models[key] = self._models.pop(key)
            return self._models[key]

    def names(self) -> dict[str, Served]:
        with self._lock:
            return {name: self._models[key] for name, key in self._names.items()}

    def told(self) -> str:
        """What is served, in a sentence."""
        names = ", ".join(self.names())
        return names or "no model yet; load one with POST /v1/load_lora_adapter"

    def load(self, name: str, path: str) -> None:
        """Serve the model or adapter of a folder under `name`. Raises InputError, and changes nothing, where the
        folder is missing or damaged or the model gives no sound numbers."""
        with self._loading:
            key = fingerprint(path)
            with self._lock:
                served = self._models.get(key)
            if served is None:
                served = apart(lambda: self._read(path))
                trim_heap()  # of what loading took beside the weights
            with self._lock:
                if key not in self._models:
                    self._make_room()
                self._models[key] = served
                self._names[name] = key
            self.memory.measure()

    def unload(self, name: str) -> bool:
        """Whether there was such a name; its model leaves memory unless another name has it."""
        with self._lock:
            key = self._names.pop(name, None)
            if key is not None and key not in self._names.values():
                del self._models[key]
        self.memory.measure()
        return key is not None

    def _make_room(self) -> None:
        """Let the least recently used model go, one without a name first."""
        while len(self._models) >= self._most:
            named = set(self._names.values())
            leaving = next((key for key in self._models if key not in named), next(iter(self._models)))
            self._names = {name: key for name, key in self._names.items() if key != leaving}
            del self._models[leaving]

    def _read(self, path: str) -> Served:
        tokenizer = load_tokenizer(path)
        chat = ChatFormat(tokenizer, path, template_process(tokenizer)) if tokenizer.chat_template else None
        model = load_causal(path, self._compute)
        if chat:
            check_vocabulary(chat, model, path)
            if chat.folds_system:
                log.warning("%s: its chat template takes no system turn; the text of one goes before a user turn", path)
        int8 = self._weights == "int8"
        if int8 and (obstacle := int8_obstacle(model)):
            log.warning("%s is served with its full weights: %s", path, obstacle)
            int8 = False
        engine = Engine(
            model, copy.deepcopy(tokenizer), slots=self._slots, live=False, owned=True,
            stop_ids=chat.stop_ids if chat else (), int8=int8,
        )  # fmt: skip
        served = Served(path, engine, chat, tokenizer, engine.stop_ids, token_decoder(copy.deepcopy(tokenizer)))
        smoke_test(served)  # in this thread, so not yet with the memory that the scheduler's thread hands out
        engine.use_memory(self.memory)
        return served


def template_process(tokenizer: Any) -> Render | None:
    """What renders the tokenizer's chat template; none for our own template, which is never rendered."""
    if tokenizer.chat_template == TEMPLATE:
        return None
    return TemplateProcess(tokenizer.get_chat_template(), tokenizer.special_tokens_map).render


def apart(work: Callable[[], Served]) -> Served:
    """What `work` gives, from a thread that ends with it.

    OpenMP keeps a team of threads for every thread that ever computed, and as soon as all teams together outnumber the
    cores, their members sleep between two pieces of work in place of spinning: beside a second team, a decoding step of
    the scheduler's thread takes twice as long.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="loader") as executor:
        return executor.submit(work).result()


def fingerprint(path: str) -> Any:
    """What distinguishes one model on disk from another: each file's name, size and time, the base's too.

    Raises InputError if there is no such folder.
    """
    folder = Path(path)
    if not folder.is_dir():
        raise InputError(f"{path}: there is no such model folder", code="no_model")
    base = adapter_base(path)
    check_source(base or path, "model")
    stats = [(p.name, p.stat().st_size, p.stat().st_mtime_ns) for p in sorted(folder.iterdir()) if p.is_file()]
    return (str(folder.resolve()), tuple(stats), fingerprint(base) if base and Path(base).is_dir() else base)


def smoke_test(served: Served) -> None:
    """A short greedy reply. Raises InputError if none comes."""
    if served.chat is not None:
        prompt = served.chat.prompt([Turn(role="user", content="Hello")])
    else:
        prompt = served.tokenizer.encode("Hello") or [0]
    sampling = SamplingParams(temperature=0, max_new_tokens=SMOKE_TOKENS)
    try:
        served.engine.generate([EngineRequest(prompt, sampling)])
    except (TrainingError, RuntimeError, IndexError) as error:
        raise InputError(f"{served.path}: the model does not generate: {error}", code="model_damaged") from error
