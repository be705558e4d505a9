"""The run folder: what a caller writes, what training writes back.

A caller (the site, a person, a notebook) makes a folder with `config.json` and `data/*.jsonl`, and starts
`python -m training STAGE RUN_DIR`. Training appends to `events.jsonl`, keeps `checkpoint-N/`, and ends with `model/` or
`output/` and `result.json`. Every file is described here as a pydantic model, so both sides read the same definition;
unknown keys are errors on the way in. This module imports neither torch nor Django.

    stage      reads data/                                     writes
    corpus     documents.jsonl                                 output/corpus.jsonl, output/heldout.jsonl, output/dropped.jsonl
    tokenizer  corpus.jsonl                                    model/ (tokenizer and chat template only)
    pretrain   corpus.jsonl, heldout.jsonl?                    model/
    sft        demonstrations.jsonl, heldout.jsonl?            model/
    reward     rankings.jsonl, heldout.jsonl?                  model/ (one scalar head)
    ppo        prompts.jsonl, heldout.jsonl?, corpus.jsonl?    model/ (the policy), output/frontier.jsonl?
    dpo, kto   rankings.jsonl, heldout.jsonl?                  model/
    grpo       prompts.jsonl, heldout.jsonl?                   model/, output/frontier.jsonl?
    sample     prompts.jsonl                                   output/samples.jsonl
    evaluate   text.jsonl? demonstrations.jsonl?               output/rankings.jsonl?, output/samples.jsonl?,
               rankings.jsonl? prompts.jsonl? (at least one)    output/baseline.jsonl?
    serve      nothing                                         nothing: it answers HTTP until it is stopped

Exit status of every stage: 0 done; 1 failed, with a `failed` event that carries the sentence for a person;
2 the config or the data do not fit (nothing was started); 143 stopped by SIGTERM after writing a checkpoint.
"""

from __future__ import annotations

from training.contract.completions import (
    ChatRequest,
    CompletionRequest,
    GenerationRequest,
    read_request,
)
from training.contract.config import (
    CONFIG_FILE,
    describe,
    read_config,
)
from training.contract.devices import (
    DeviceReport,
)
from training.contract.events import (
    EVENT,
    Checkpoint,
    Done,
    Event,
    EventBase,
    Failed,
    MetricEvent,
    ProgressEvent,
    SampleEvent,
    Tracked,
    Warn,
)
from training.contract.layout import (
    ABOUT,
    CONFIG,
    DATA,
    EVENTS,
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_INVALID,
    EXIT_STOPPED,
    LOCK,
    LOG,
    MODEL,
    OUTPUT,
    RESULT,
    InputError,
    TrainingError,
)
from training.contract.memory import (
    GB,
    MEMORY_PARTS,
    count_memory,
    device_of_process,
)
from training.contract.model_facts import (
    ModelFacts,
    facts_of_config,
    facts_of_folder,
)
from training.contract.model_sources import (
    ARCHIVES,
    CARDS,
    GGUF,
    HUB_NAME,
    KEPT,
    MODEL_FILES,
    PICKLES,
    WEIGHTS,
    hub_place,
    is_gguf,
    is_model_file,
    pickled_only,
    wanted_files,
)
from training.contract.policy_stages import (
    DPOSettings,
    GRPOSettings,
    KTOSettings,
    PPOSettings,
)
from training.contract.proposals import (
    LORA_RANK,
    Occasion,
    Proposal,
    has_proposals,
    propose,
)
from training.contract.recipes import (
    Recipe,
    read_recipes,
    recipe_settings,
)
from training.contract.refusals import (
    MAX_BODY_BYTES,
    RequestRefused,
    openai_error_body,
    parse_request,
    syntax_problem,
    too_large,
)
from training.contract.result import (
    ExportAbout,
    Result,
)
from training.contract.rewards import (
    MAX_TERMS,
    REWARD_TERMS,
    RewardTermBase,
)
from training.contract.rows import (
    DemonstrationRow,
    DroppedRow,
    FrontierRow,
    JudgmentRow,
    PromptRow,
    RankingRow,
    Row,
    SampleRow,
    ScoresRow,
    TextRow,
    Turn,
)
from training.contract.settings import (
    TRACKERS,
    BatchSettings,
    ComputeSettings,
    LongPrompts,
    LoopSettings,
    LoraSettings,
    LoraWithDropoutSettings,
    SamplingSettings,
    Settings,
    has_effect,
    names_in,
    parts_of_shaping,
    setting,
    source_field,
)
from training.contract.specs import (
    SPECS,
    STAGES,
    DataFile,
    Need,
    StageSpec,
)
from training.contract.text_stages import (
    CorpusSettings,
    PretrainSettings,
    RewardSettings,
    SFTSettings,
    TokenizerSettings,
)
from training.contract.using_stages import (
    AddSettings,
    ChatTemplate,
    EvaluateSettings,
    ExportSettings,
    SampleSettings,
    ServedWeights,
    ServeSettings,
)
from training.contract.wording import (
    any_of,
    give,
    list_words,
    number_words,
    problems,
    text_words,
)

__all__ = [
    "ABOUT",
    "ARCHIVES",
    "CARDS",
    "CONFIG",
    "CONFIG_FILE",
    "DATA",
    "EVENT",
    "EVENTS",
    "EXIT_DONE",
    "EXIT_FAILED",
    "EXIT_INVALID",
    "EXIT_STOPPED",
    "GB",
    "GGUF",
    "HUB_NAME",
    "KEPT",
    "LOCK",
    "LOG",
    "LORA_RANK",
    "MAX_BODY_BYTES",
    "MAX_TERMS",
    "MEMORY_PARTS",
    "MODEL",
    "MODEL_FILES",
    "OUTPUT",
    "PICKLES",
    "RESULT",
    "REWARD_TERMS",
    "SPECS",
    "STAGES",
    "TRACKERS",
    "WEIGHTS",
    "AddSettings",
    "BatchSettings",
    "ChatRequest",
    "ChatTemplate",
    "Checkpoint",
    "CompletionRequest",
    "ComputeSettings",
    "CorpusSettings",
    "DPOSettings",
    "DataFile",
    "DemonstrationRow",
    "DeviceReport",
    "Done",
    "DroppedRow",
    "EvaluateSettings",
    "Event",
    "EventBase",
    "ExportAbout",
    "ExportSettings",
    "Failed",
    "FrontierRow",
    "GRPOSettings",
    "GenerationRequest",
    "InputError",
    "JudgmentRow",
    "KTOSettings",
    "LongPrompts",
    "LoopSettings",
    "LoraSettings",
    "LoraWithDropoutSettings",
    "MetricEvent",
    "ModelFacts",
    "Need",
    "Occasion",
    "PPOSettings",
    "PretrainSettings",
    "ProgressEvent",
    "PromptRow",
    "Proposal",
    "RankingRow",
    "Recipe",
    "RequestRefused",
    "Result",
    "RewardSettings",
    "RewardTermBase",
    "Row",
    "SFTSettings",
    "SampleEvent",
    "SampleRow",
    "SampleSettings",
    "SamplingSettings",
    "ScoresRow",
    "ServeSettings",
    "ServedWeights",
    "Settings",
    "StageSpec",
    "TextRow",
    "TokenizerSettings",
    "Tracked",
    "TrainingError",
    "Turn",
    "Warn",
    "any_of",
    "count_memory",
    "describe",
    "device_of_process",
    "facts_of_config",
    "facts_of_folder",
    "give",
    "has_effect",
    "has_proposals",
    "hub_place",
    "is_gguf",
    "is_model_file",
    "list_words",
    "names_in",
    "number_words",
    "openai_error_body",
    "parse_request",
    "parts_of_shaping",
    "pickled_only",
    "problems",
    "propose",
    "read_config",
    "read_recipes",
    "read_request",
    "recipe_settings",
    "setting",
    "source_field",
    "syntax_problem",
    "text_words",
    "too_large",
    "wanted_files",
]
