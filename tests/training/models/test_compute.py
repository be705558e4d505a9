"""Which precision a device learns in."""

from __future__ import annotations

import pytest
import torch

from training.models.compute import bf16_is_faster


@pytest.mark.parametrize(("emulated", "faster"), [(True, False), (False, True)])
def test_a_gpu_that_only_emulates_bf16_learns_in_fp32(
    monkeypatch: pytest.MonkeyPatch, emulated: bool, faster: bool
) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation or not emulated

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert bf16_is_faster(torch.device("cuda"), 4096) is faster
