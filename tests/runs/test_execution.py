"""Runs seen through by real child processes."""

from __future__ import annotations

from webapp.runs.models import Run


def test_a_pretraining_run_leaves_a_model_its_figures_and_its_curve(pretrained: Run):
    model = pretrained.output
    assert model is not None
    assert model.kind == "full"
    assert model.parameters > 1000
    assert set(model.files) >= {"model.safetensors", "config.json", "tokenizer.json"}
    assert pretrained.metrics.filter(name="loss").count() >= 1
    assert model.evaluations.count() == len(pretrained.result["metrics"])
