"""What DPO, KTO and GRPO share: TRL's trainers with our settings, events, checkpoints and results."""
