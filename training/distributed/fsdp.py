"""Modules that learn while their weights, gradients and optimizer state lie in parts in the processes: torch's FSDP
(Zhao et al. 2023, arXiv:2304.11277; torch.distributed.fsdp.fully_shard).

FSDP gathers the weights of a layer around that layer's forward and backward pass. All that belongs to no layer
(embeddings, last norm, heads) is gathered around the root's. A loss of ours calls a model's parts by themselves, so the
root here is a module whose forward pass is the whole computation of a loss.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from training.distributed.launch import world_size

T = TypeVar("T")


class Root(nn.Module):
    """The modules that learn under one roof; its forward pass is whatever is to be computed with them. frees: whether a
    layer's weights are let go between its forward and its backward pass."""

    def __init__(self, modules: Mapping[str, nn.Module], *, frees: bool) -> None:
        super().__init__()
        self.parts = nn.ModuleDict(modules)
        self.frees = frees

    def forward(self, compute: Callable[[], T]) -> T:
        return compute()


def shard(
    modules: Mapping[str, nn.Module],
    device: torch.device,
    dtype: torch.dtype = torch.float32,
    *,
    learns: bool = True,
) -> Root:
    """Cut the modules' matrices among the processes, layer by layer. Layers are gathered in `dtype`, that of their
    products; gradients are summed, not averaged, in float32. Vectors (norms, biases), of which a norm wants float32,
    are small and left whole: their gradients are the caller's to add up. Of modules that do not learn nothing stays
    gathered after a pass."""
    frees = not learns or os.environ.get("FSDP_RESHARD_AFTER_FORWARD", "").lower() != "false"
    root = Root(modules, frees=frees)
    mesh = init_device_mesh(device.type, (world_size(),))
    kinds = {name for module in root.modules() for name in getattr(module, "_no_split_modules", None) or ()}
    vectors = {p for p in root.parameters() if p.ndim < 2}
    # Inputs stay as they are: the residual stream is float32, and autocast casts what is multiplied.
    policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for layer in [module for module in root.modules() if type(module).__name__ in kinds]:
        fully_shard(layer, mesh=mesh, reshard_after_forward=root.frees, mp_policy=policy, ignored_params=vectors)
    fully_shard(root, mesh=mesh, ignored_params=vectors, reshard_after_forward=None if learns else True)
    for module in fsdp_modules(root):
        module.set_gradient_divide_factor(1.0)
        module.set_force_sum_reduction_for_comms(True)
    return root


def fsdp_modules(root: Root) -> list[FSDPModule]:
    return [module for module in root.modules() if isinstance(module, FSDPModule)]


@contextmanager
def unsharded_weights(root: Root) -> Iterator[None]:
    """All weights whole on every process, for what is no forward pass: generating, evaluating. Those of the layers are
    in the dtype that they are gathered in, so that modules compute with them under autocast only."""
    root(lambda: None)  # tells FSDP which module is the root, where nothing has been computed yet
    modules = fsdp_modules(root)
    layers = [module for module in modules if id(module) != id(root)]
    for module in layers:
        module.set_reshard_after_forward(False, recurse=False)
    for module in modules:
        module.unshard()
    try:
        yield
    finally:
        for module in modules:
            module.reshard()
        for module in layers:
            module.set_reshard_after_forward(root.frees, recurse=False)


@torch.no_grad()
def remove_fsdp(root: Root) -> None:
    """Make the modules what they were before `shard`, with whole weights in every process."""
    for sharded in fsdp_modules(root):
        sharded.reshard()
    plain: dict[nn.Parameter, nn.Parameter] = {}
    for module in root.modules():
        for name, parameter in list(module._parameters.items()):
            if isinstance(parameter, DTensor):
                if parameter not in plain:
                    plain[parameter] = nn.Parameter(parameter.full_tensor(), parameter.requires_grad)
                module._parameters[name] = plain[parameter]
                module._state_dict_pre_hooks.clear()
                module._load_state_dict_pre_hooks.clear()
                module._load_state_dict_post_hooks.clear()
    for module in [module for module in root.modules() if isinstance(module, FSDPModule)]:
        module._forward_pre_hooks.clear()
        module._forward_pre_hooks_with_kwargs.clear()
        module._forward_hooks.clear()
        module.__class__ = type(module).__mro__[FSDPModule._orig_cls_mro_index]


def is_sharded_tensor(tensor: Tensor) -> bool:
    return isinstance(tensor, DTensor)


def clip_grad_norm(parameters: Sequence[nn.Parameter], max_norm: float) -> float:
    """nn.utils.clip_grad_norm_ for parameters of which some lie in parts and some are whole."""
    squares = 0.0
    learned = [p for p in parameters if p.grad is not None]
    kinds = [[p for p in learned if is_sharded_tensor(p)], [p for p in learned if not is_sharded_tensor(p)]]
    for kind in kinds:
        if kind:
            squares += float(full_tensor(nn.utils.get_total_norm([p.grad for p in kind if p.grad is not None]))) ** 2
    norm = math.sqrt(squares)
    for kind in kinds:
        nn.utils.clip_grads_with_norm_(kind, max_norm, torch.tensor(norm))
    return norm


def full_tensor(tensor: Tensor) -> Tensor:
    """The whole of a tensor that lies in parts. A collective."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def full_state(state: Any) -> Any:
    """Nested dicts and lists with every tensor whole, on the CPU where it lay in parts."""
    if isinstance(state, DTensor):
        return full_tensor(state).cpu()
    if isinstance(state, dict):
        return {key: full_state(value) for key, value in state.items()}
    if isinstance(state, list):
        return [full_state(value) for value in state]
    return state


def reshard_like(tensor: Tensor, parameter: Tensor) -> Tensor:
    """A whole tensor of the parameter's shape, in parts where the parameter is."""
    if not isinstance(parameter, DTensor) or tensor.shape != parameter.shape:
        return tensor
    return distribute_tensor(tensor.to(parameter.device), parameter.device_mesh, parameter.placements)
