"""Several processes that share the work of one command: who they are, and how they wait for each other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

__all__ = ["Processes", "check_alone", "process_count", "working_together"]

_POLL = 0.05  # seconds
_COMING = timedelta(minutes=10)  # until all processes have started
_LONGEST = timedelta(days=30)  # until the slowest process has done its part


@dataclass(frozen=True)
class Processes:
    """The processes of a command.

    Attributes:
        rank: number of this one, from 0.
        count: number of all of them.
        group: how they reach each other; None for one.
    """

    rank: int = 0
    count: int = 1
    group: ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this one claims the output and writes it."""
        return self.rank == 0

    def told(self, number: int = 0) -> int:
        """Wait until all processes are here, and learn the first one's number.

        Args:
            number: any integer; that of the other processes does not count.

        Raises:
            ConfigurationError: if another process has ended.
        """
        if self.count == 1:
            return number
        import torch
        from torch import distributed

        from ..errors import ConfigurationError

        value = torch.tensor([number if self.is_first else 0])
        try:
            # The sum comes when all are here. Waiting in Python can be interrupted, unlike that of the library.
            coming = distributed.all_reduce(value, group=self.group, async_op=True)
            while not coming.is_completed():
                time.sleep(_POLL)
            coming.wait()
        except RuntimeError as err:
            raise ConfigurationError(
                "Another process of this command has ended before its part was done; its message says why. The same "
                "command continues."
            ) from err
        return int(value)


def process_count() -> int:
    """How many processes `torchrun` or `accelerate launch` started for this command, this one included."""
    return int(os.environ.get("WORLD_SIZE") or 1)


@contextmanager
def working_together(command: str) -> Iterator[Processes]:
    """Join the other processes that `torchrun` or `accelerate launch` started with this one, if there are any.

    They exchange a number now and then, over the CPU; what they compute goes through files.

    Args:
        command: the command, for messages.

    Raises:
        ConfigurationError: if the environment names other processes, and they do not come.
    """
    count = process_count()
    if count == 1:
        yield Processes()
        return
    from torch import distributed

    from ..errors import ConfigurationError

    try:
        distributed.init_process_group("gloo", timeout=_COMING)
    except (RuntimeError, ValueError) as err:
        raise ConfigurationError(
            f"WORLD_SIZE={count} says that {count} processes share the work, but this one does not find the others: "
            f"{' '.join(str(err).split())}. Start them with `torchrun --nproc_per_node {count} -m xlgen_hf {command} "
            "...` or `accelerate launch`, or unset WORLD_SIZE."
        ) from err
    try:
        yield Processes(distributed.get_rank(), count, distributed.new_group(timeout=_LONGEST))
    finally:
        distributed.destroy_process_group()


def check_alone(message: str) -> None:
    """Refuse what several processes cannot do.

    Raises:
        ConfigurationError: with the message, if this is one of several processes.
    """
    from ..errors import ConfigurationError

    if process_count() > 1:
        raise ConfigurationError(message)
