"""What the processes of one run do together: divide work, add up, agree. With one process nothing here communicates.

Collectives must be called by every process in the same order; none of them may stand behind a condition that the
processes can see differently.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, Final, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from training.distributed.launch import is_main, rank, world_size

T = TypeVar("T")
U = TypeVar("U")

BUCKET: Final = 1 << 25  # numbers that are added up at once: 128 MiB in float32
PATIENCE: Final = timedelta(hours=1)  # the longest that one process may work alone, as when it writes a checkpoint


def init_processes() -> None:
    """Meet the other processes, at the address that the launcher gave all of them."""
    store, rank_of_process, size = next(rendezvous("env://"))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=rank_of_process, world_size=size, timeout=PATIENCE)


def destroy_processes() -> None:
    if dist.is_initialized():
        dist.destroy_process_group()


def is_first_to_claim(event: str) -> bool:
    """Whether this process is the first to ask this. No collective: it may be asked when others are gone."""
    if not dist.is_initialized():
        return is_main()
    return bool(dist.distributed_c10d._get_default_store().add(event, 1) == 1)


# ------------------------------------------------------------------------------------------------------- dividing work


def local_shard(items: Sequence[T]) -> Sequence[T]:
    """This process's share of the pieces."""
    return items[rank() :: world_size()]


def map_sharded(items: Sequence[T], compute: Callable[[Sequence[T]], Sequence[U]]) -> list[U]:
    """compute(items), of which each process computes its share; all get all the results, in the order of the items. A
    process whose share is empty computes, too: with a sharded model the others wait for it."""
    if world_size() == 1:
        return list(compute(items))
    results: list[U] = [None] * len(items)  # type: ignore[list-item]
    for source, share_of_rank in enumerate(all_gather(list(compute(local_shard(items))))):
        results[source :: world_size()] = share_of_rank
    return results


# ------------------------------------------------------------------------------------------------- adding up, agreeing


def all_gather(value: T) -> list[T]:
    """Every process's thing, by rank."""
    if world_size() == 1:
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def all_reduce_max(*values: float) -> list[float]:
    """Each value as large as it is in any process."""
    if world_size() == 1:
        return list(values)
    maxima = torch.tensor(values, dtype=torch.float64)
    dist.all_reduce(maxima, dist.ReduceOp.MAX)
    return maxima.tolist()


def passes_behind(count: int) -> int:
    """How many more passes than this process's `count` another one makes. All must pass through a sharded model equally
    often. Ask before the first: the gathering of weights is a collective, too."""
    return int(all_reduce_max(count)[0]) - count


def barrier() -> None:
    """Until every process has come here."""
    all_reduce_max(0)


def all_reduce_sum(tensors: Sequence[Tensor]) -> None:
    """Make each tensor the sum over the processes, in place."""
    if world_size() == 1:
        return
    for bucket in buckets(tensors):
        flat = torch.cat([tensor.flatten() for tensor in bucket])
        dist.all_reduce(flat)
        for tensor, summed in zip(bucket, flat.split([tensor.numel() for tensor in bucket]), strict=True):
            tensor.copy_(summed.view_as(tensor))


def all_reduce_gradients(parameters: Sequence[nn.Parameter]) -> None:
    """Make each gradient the sum over the processes. A parameter without one in every process is left without."""
    if world_size() == 1 or not parameters:
        return
    has_gradient = all_reduce_max(*(parameter.grad is not None for parameter in parameters))
    learned = [parameter for parameter, somewhere in zip(parameters, has_gradient, strict=True) if somewhere]
    for parameter in learned:
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
    all_reduce_sum([parameter.grad for parameter in learned if parameter.grad is not None])


@torch.no_grad()
def broadcast(tensors: Sequence[Tensor]) -> None:
    """Give each tensor the main process's numbers."""
    if world_size() == 1:
        return
    for tensor in tensors:
        dist.broadcast(tensor.detach(), 0)


def buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Neighbours of one dtype and device, together at most BUCKET numbers or one tensor."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        kind = (tensor.dtype, tensor.device)
        full = sum(member.numel() for member in bucket) + tensor.numel() > BUCKET
        if bucket and (full or kind != (bucket[0].dtype, bucket[0].device)):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
