"""What every stage takes: the base of config.json's models, and the parts that several of them share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

POSITIVE: Final = "positive"
SEVERAL: Final = "several"  # above 1
ABOVE: Final = {POSITIVE: 0, SEVERAL: 1}
OnlyWith = dict[str, Any]  # names of other settings: the values with which this one has an effect, or one of ABOVE


def setting(
    default: Any,
    description: str,
    *,
    unit: str = "",
    advanced: bool = False,
    only_with: OnlyWith | None = None,
    **constraints: Any,
) -> Any:
    """A field a person may change on the launch form, which hides it where `only_with` says that it has no effect."""
    extra: dict[str, Any] = {"unit": unit, "advanced": advanced, **({"only_with": only_with} if only_with else {})}
    return Field(default, description=description, json_schema_extra=extra, **constraints)


def has_effect(only_with: OnlyWith, values: Mapping[str, Any]) -> bool:
    """Whether a setting has an effect beside these ones, given by dotted name; True where one is not known."""
    return all(
        (isinstance(values[name], int | float) and values[name] > ABOVE[wanted])
        if isinstance(wanted, str)
        else values[name] in wanted
        for name, wanted in only_with.items()
        if values.get(name) is not None
    )


def refuse_without_effect(settings: BaseModel) -> None:
    """Raises ValueError for a setting that was changed although others leave it without effect."""
    fields, values = type(settings).model_fields, dict(settings)
    for name, field in fields.items():
        extra = field.json_schema_extra
        only_with = extra.get("only_with") if isinstance(extra, dict) else None
        if isinstance(only_with, dict) and values[name] != field.default and not has_effect(only_with, values):
            others = " and ".join(f"{other} {values[other]}" for other in only_with)
            raise ValueError(f"{name}: it has no effect with {others}; leave it out")


def source_field(default: Any, description: str, *, kind: str) -> Any:
    """A field the caller fills with a path or name: `kind` is tokenizer, base, policy or reward. Never on the form."""
    return Field(default, description=description, json_schema_extra={"source": kind})


MAX_PROCESSES: Final = 64
PESSIMISM = "How many standard deviations below its members' mean an ensemble scores; 0 takes the mean."


def parts_of_shaping(text: str) -> list[tuple[str, float]]:
    """The (name, weight) pairs of NAME=WEIGHT, NAME=WEIGHT. Raises ValueError."""
    terms = []
    for term in filter(None, map(str.strip, text.split(","))):
        name, _, weight = map(str.strip, term.partition("="))
        try:
            value = float(weight)
        except ValueError:
            value = math.nan
        if not name or not math.isfinite(value):
            raise ValueError(f"“{term[:60]}” is not a registered function's name, = and a weight, as short=0.5")
        terms.append((name, value))
    return terms


def _checked_shaping(text: str) -> str:
    parts_of_shaping(text)
    return text


Shaping = Annotated[str, AfterValidator(_checked_shaping)]


TRACKERS: Final[dict[str, str]] = {"wandb": "Weights & Biases", "mlflow": "MLflow", "trackio": "trackio"}  # by package


def _named_trackers(value: Any) -> Any:
    """Names separated by commas, too, as on command lines; "none" for none."""
    if not isinstance(value, str):
        return value
    return [name for name in map(str.strip, value.split(",")) if name and name != "none"]


Trackers = Annotated[list[Literal["wandb", "mlflow", "trackio"]], BeforeValidator(_named_trackers)]


def report_to_field() -> Any:
    return setting(
        [],
        "Also log to these experiment trackers. Their packages and credentials are the training machine's.",
        advanced=True,
        max_length=len(TRACKERS),
    )


def report_project_field() -> Any:
    return setting(
        "",
        "Project or experiment to log to. Empty: the project's name here.",
        advanced=True,
        max_length=100,
        pattern=r"^[A-Za-z0-9 ._-]*$",
    )


class Settings(BaseModel):
    """What the settings of all stages have in common."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    if TYPE_CHECKING:
        stage: str  # each stage's own settings say which, as a Literal
    unused: ClassVar[Mapping[str, tuple[Any, str]]] = {
        "seed": (0, "this stage has no random seed"),
        "threads": (0, "this stage works in one thread"),
        "device": ("auto", "this stage uses the CPU alone"),
    }
    """What earlier versions took although a stage has no use for it: the default that they wrote, and why."""

    @model_validator(mode="before")
    @classmethod
    def without_unused_settings(cls, values: Any) -> Any:
        """Takes the defaults that earlier versions wrote. Raises ValueError for any other value."""
        if not isinstance(values, dict):
            return values
        for name in cls.unused.keys() & values.keys() - cls.model_fields.keys():
            default, reason = cls.unused[name]
            if values[name] != default:
                raise ValueError(f"{name}: {reason}; leave it out")
        return {name: value for name, value in values.items() if name in cls.model_fields or name not in cls.unused}


class ThreadSettings(Settings):
    threads: int = setting(0, "CPU threads; 0 uses all of them.", unit="threads", ge=0, le=256, advanced=True)


class ComputeSettings(ThreadSettings):
    """Of the stages that compute with a model."""

    device: Literal["auto", "cpu", "cuda"] = setting(
        "auto", "Device to compute on; auto uses a GPU if there is one.", advanced=True
    )


class SeededSettings(ComputeSettings):
    """Of the stages that draw random numbers."""

    seed: int = setting(0, "Random seed; the same seed and data give the same result.", ge=0, advanced=True)


class LoopSettings(SeededSettings):
    """What the stages that take gradient steps share."""

    learning_rate: float = setting(3e-4, "Peak learning rate.", gt=0, le=1)
    micro_tokens: int = setting(
        4096,
        "Maximum number of tokens per forward pass, counting padding; lower it if you run out of memory.",
        unit="tokens",
        ge=32,
        advanced=True,
    )
    activation_checkpointing: bool = setting(
        False,
        "Keep only the input of each layer and compute the rest again for the gradient: far less memory for a pass, "
        "for about a third more time.",
        advanced=True,
    )
    warmup: float = setting(0.05, "Share of the steps in which the learning rate rises.", ge=0, le=1, advanced=True)
    schedule: Literal["cosine", "linear", "constant"] = setting(
        "cosine", "How the learning rate decays after warmup.", advanced=True
    )
    final_lr: float = setting(0.1, "Final learning rate, as a share of the peak.", ge=0, le=1, advanced=True)
    weight_decay: float = setting(0.01, "AdamW weight decay on matrices.", ge=0, le=1, advanced=True)
    beta2: float = setting(0.95, "AdamW second-moment decay.", gt=0, lt=1, advanced=True)
    optimizer: Literal["adamw", "adamw_8bit"] = setting(
        "adamw",
        "adamw_8bit keeps AdamW's moments in 8 bits (Dettmers et al. 2022, arXiv:2110.02861), a quarter of their memory. "
        "Needs the library bitsandbytes.",
        advanced=True,
    )
    grad_clip: float = setting(
        1.0, "Maximum gradient norm; larger gradients are scaled down. 0 turns clipping off.", ge=0, advanced=True
    )
    precision: Literal["auto", "fp32", "bf16"] = setting(
        "auto", "Precision of matrix products; auto uses bf16 if it is faster on the device.", advanced=True
    )
    minutes: float = setting(
        0.0, "Stop after this many minutes and keep the model; 0 sets no limit.", unit="minutes", ge=0
    )
    log_every: int = setting(5, "Steps between logged metrics.", unit="steps", ge=1, advanced=True)
    evaluate_every: int = setting(
        50,
        "Steps between evaluations on held-out data; 0 evaluates only at the end.",
        unit="steps",
        ge=0,
        advanced=True,
    )
    checkpoint_every: int = setting(
        50, "Steps between checkpoints; 0 saves only when the run is stopped.", unit="steps", ge=0, advanced=True
    )
    keep_checkpoints: int = setting(2, "Number of checkpoints to keep; older ones are deleted.", ge=1, advanced=True)
    processes: int = setting(
        1,
        "Processes that compute the run together, each on a device of its own; the training machine must have as many.",
        unit="devices",
        ge=1,
        le=MAX_PROCESSES,
        advanced=True,
    )
    tensorboard: bool = setting(
        False, "Also write metrics as TensorBoard event files, to tensorboard/ in the run folder.", advanced=True
    )
    report_to: Trackers = report_to_field()
    report_project: str = report_project_field()


class BatchSettings(LoopSettings):
    """Of the stages whose optimizer steps are as large as `batch_tokens` says."""

    batch_tokens: int = setting(8192, "Tokens per optimizer step, not counting padding.", unit="tokens", ge=64)


class ShardedLoopSettings(BatchSettings):
    """Of the stages whose model can be sharded among the processes."""

    shard: bool = setting(
        False,
        "Shard weights, gradients and optimizer state among the processes (FSDP, Zhao et al. 2023, arXiv:2304.11277), "
        "for a model that does not fit on one device.",
        advanced=True,
        only_with={"processes": SEVERAL},
    )

    @model_validator(mode="after")
    def can_be_sharded(self) -> ShardedLoopSettings:
        if not self.shard:
            return self
        if self.processes < 2:
            raise ValueError("shard: one process has nothing to share; set processes above 1, or leave it out")
        if self.optimizer == "adamw_8bit":
            raise ValueError("shard: it does not go with moments in 8 bits; set optimizer to adamw, or leave it out")
        if getattr(getattr(self, "lora", None), "load_in_4bit", False):
            raise ValueError("shard: weights in 4 bits cannot be sharded; leave it or lora.load_in_4bit out")
        if getattr(self, "critic", "shared") == "own":
            raise ValueError("shard: a critic of its own is not sharded; set critic to shared, or leave it out")
        return self


ADAPTER_SETTINGS = ("use_dora", "use_rslora", "modules_to_save", "load_in_4bit")


def names_in(text: str) -> list[str]:
    """The names in a setting that holds several, separated by commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


class LoraSettings(BaseModel):
    """A low-rank adapter instead of full fine-tuning (Hu et al. 2021, arXiv:2106.09685)."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    rank: int = setting(0, "Rank of the adapter; 0 trains all weights instead.", ge=0, le=512)
    alpha: float = setting(16.0, "Scale of the adapter, divided by its rank.", gt=0, advanced=True)
    targets: str = setting(
        "all-linear", "Names of the modules that get an adapter, separated by commas.", advanced=True
    )
    use_dora: bool = setting(
        False,
        "Learn how long each output's weights are apart from their direction (DoRA, Liu et al. 2024, "
        "arXiv:2402.09353). Better at low ranks, slower, and more memory.",
        advanced=True,
    )
    use_rslora: bool = setting(
        False,
        "Divide alpha by the square root of the rank (rsLoRA, Kalajdzievski 2023, arXiv:2312.03732), so that high ranks "
        "learn more.",
        advanced=True,
    )
    modules_to_save: str = setting(
        "",
        "Names of embeddings or linear layers that learn whole beside the adapter, separated by commas, such as "
        "embed_tokens and lm_head where a chat template brings new tokens.",
        advanced=True,
    )

    load_in_4bit: bool = setting(
        False,
        "Hold the frozen base in 4 bits (QLoRA, Dettmers et al. 2023, arXiv:2305.14314): about a third of its memory, "
        "somewhat slower, and a little less exact. Needs the library bitsandbytes.",
        advanced=True,
    )

    @model_validator(mode="after")
    def has_an_adapter(self) -> LoraSettings:
        """What is about an adapter needs one: else it would do nothing."""
        for name in ADAPTER_SETTINGS:
            if getattr(self, name) and not self.rank:
                raise ValueError(f"{name}: this is about an adapter; set rank above 0, or leave it out")
        return self

    @model_validator(mode="before")
    @classmethod
    def without_dropout(cls, values: Any) -> Any:
        """Takes the `dropout: 0` that earlier versions wrote for every stage. Raises ValueError if it is not 0."""
        if "dropout" in cls.model_fields or not isinstance(values, dict) or "dropout" not in values:
            return values
        if values["dropout"] != 0:
            raise ValueError(
                "dropout: this stage compares log-probabilities of the same tokens, which dropout would blur; leave it out"
            )
        return {name: value for name, value in values.items() if name != "dropout"}


class LoraWithDropoutSettings(LoraSettings):
    dropout: float = setting(0.0, "Dropout inside the adapter.", ge=0, lt=1, advanced=True)


LongPrompts = Annotated[
    Literal["drop", "shorten"],
    BeforeValidator(lambda value: "shorten" if value == "cut_left" else value),  # its name in older runs
]


def on_long_prompts() -> Any:
    return setting(
        "drop",
        "What happens to prompts that are too long or leave no room for a full reply: drop leaves them out; shorten "
        "removes their oldest turns, then the middle of the question. Either way they are counted.",
        advanced=True,
    )


class SamplingSettings(BaseModel):
    """How a reply is drawn."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    temperature: float = setting(
        1.0, "0 always takes the likeliest token; 1 samples as the model believes.", ge=0, le=5
    )
    top_p: float = setting(1.0, "Sample from the most likely tokens that together have this probability.", gt=0, le=1)
    top_k: int = setting(0, "Sample from this many most likely tokens; 0 uses all.", ge=0, advanced=True)
    max_new_tokens: int = setting(96, "Maximum length of a reply.", unit="tokens", ge=1, le=32_768)
