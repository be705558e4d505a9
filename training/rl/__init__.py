"""PPO and GRPO: losses, rollouts, updates, held-out evaluation, early stopping."""
