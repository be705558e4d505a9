"""Everything that learns: a library and a command line, without Django.

    python -m training STAGE RUN_DIR

    stages/       one module per stage; its `main` shows the whole stage
    rl/           PPO and GRPO: losses, rollouts, updates, held-out evaluation, early stopping
    preferences/  reward models, reward functions, and what is learned from rankings
    data/         chat templates, tokenized rows, batching, packing, cleaning, deduplication
    models/       loading, checking and saving models, the memory they need, their forward passes
    optim/        the training loop: optimizer, schedule, meters, checkpoints, losses
    engine/       generation: batching, the key-value cache, sampling
    serve/        the model server
    kernels/      compiled code for CPUs, each function with a torch form that computes the same
    distributed/  several processes that compute one run: launch, collectives, FSDP
    run/          the run folder: config, rows, events, checkpoints, result
    contract/     what the site sees: settings, rows, events and results as pydantic models

Importing this package, or `training.contract`, never imports torch.
"""
