"""Training with several processes, as `torchrun` starts them: the first one builds, the others only help it to train.

    torchrun --nproc-per-node 2 -m lmedge.cli train --data 300w:faces/300w
    torchrun --nnodes 2 --node-rank 0 --master-addr HOST --nproc-per-node 4 -m lmedge.cli train …     # on each node, with its
    rank

Nodes share the run folder and the photos by a common file system.
"""

from __future__ import annotations

import atexit
import os

from lmedge.errors import ConfigError


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_helper() -> bool:
    """Whether this process only helps to train, and writes nothing."""
    return int(os.environ.get("RANK", "0")) > 0


def check_shares(batch_size: int) -> None:
    """
    Raises:
        ConfigError: the faces of a batch cannot be shared equally, or are too few for the batch norms of each process.
    """
    processes = process_count()
    if batch_size % processes or batch_size < 2 * processes:
        raise ConfigError(
            f"train.batch_size must be a multiple of the {processes} processes that share it, two faces for each at least; "
            f"got {batch_size}. Take the next one: --set train.batch_size={max(2, -(-batch_size // processes)) * processes}"
        )


def train_on_cpu() -> bool:
    """Whether several processes share the processor: accelerate joins them there only if it is told to."""
    if process_count() == 1:
        return False
    from accelerate.utils import is_cuda_available

    return not is_cuda_available()


def announce(folder: str) -> None:
    """The first process says that it trains into this folder now, or with "" that there is nothing to train."""
    if process_count() > 1:
        _broadcast(folder)


def wait_for_announcement() -> str:
    """What the first process announces; blocks until it does.

    Raises:
        ConfigError: the processes cannot be joined.
    """
    return _broadcast("")


def _broadcast(folder: str) -> str:
    from accelerate import PartialState
    from accelerate.utils import broadcast_object_list

    state = PartialState(cpu=train_on_cpu())
    # Else its threads are still at work when Python ends, which now and then aborts the process.
    atexit.register(_part)
    joined = state.num_processes
    if joined != process_count():
        raise ConfigError(f"{process_count()} processes were started, but {joined} found each other. Start them with torchrun.")
    message = [folder]
    broadcast_object_list(message)
    return message[0]


def _part() -> None:
    """Leaves the other processes; leaving twice is fine."""
    import torch

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
