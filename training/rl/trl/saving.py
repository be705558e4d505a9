"""How what TRL trains is saved: its checkpoints become those of the run folder, its policy becomes model/."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any, Final

from peft import PeftModel

from training.contract import MODEL
from training.data.chat_format import ChatFormat
from training.distributed.collectives import barrier
from training.models.loading import CausalModel, save_model
from training.optim.checkpoints import save_state
from training.run.run import Run

TRL_REFERENCE: Final = "ref"  # the adapter that TRL adds beside the policy's


def adopt_checkpoint(run: Run[Any], written: Path, step: int, state: dict[str, Any], *, is_last: bool) -> None:
    """Turn what TRL has written into the run's checkpoint of `step`, which exists as a whole or not at all, with our
    own `state` beside it. Nothing resumes from the last step, so what was written for it is only removed."""
    barrier()  # until every process has written the state of its random number generators
    if run.main:
        if not is_last:
            with run.checkpoint(step) as folder:
                for path in written.iterdir():
                    shutil.move(path, folder / path.name)
                save_state(folder, state)
        shutil.rmtree(written)
    barrier()
    run.saved = step


def save_policy(run: Run[Any], model: CausalModel, chat: ChatFormat) -> None:
    """Write model/, without TRL's copy of the reference."""
    if isinstance(model, PeftModel) and TRL_REFERENCE in model.peft_config:
        model.delete_adapter(TRL_REFERENCE)
    if run.main:
        with run.writing(MODEL) as folder:
            save_model(model, chat.tokenizer, folder, chat.stop_ids)
