"""Everything that learns: a library and a command line, without Django.

    python -m training STAGE RUN_DIR

Importing this package, or `training.contract`, never imports torch.
"""
