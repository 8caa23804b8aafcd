"""One run on several processes, as torchrun and accelerate launch start them.

Every process goes through the whole run: they train each stage together (DistributedDataParallel), score together, and
read back what they wrote. The first process writes to the run's folder, the others to folders of their own that vanish.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from accelerate import PartialState

from evenhand.files import settle
from evenhand.validation import UserError


def process_of(device: torch.device) -> tuple[int, int]:
    """This process's rank and how many there are; if it was launched as one of several, it joins them."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and "RANK" in os.environ:
        state = PartialState(cpu=device.type == "cpu")
        return state.process_index, state.num_processes
    return 0, 1


def is_first_process() -> bool:
    """Whether this process speaks for all that were launched with it."""
    return int(os.environ.get("RANK", "0")) == 0


def share_of(batch_size: int, processes: int) -> int:
    """Samples a step of one process.

    Raises:
        UserError: If the processes can't share a batch evenly.
    """
    if batch_size % processes:
        raise UserError(f"The batch size must be a multiple of the {processes} processes. Got {batch_size}.")
    return batch_size // processes


@dataclass(frozen=True)
class Team:
    """The processes that carry a run out together.

    Attributes:
        rank: This one's number, from 0.
        processes: How many there are.
        folder: The run's folder, which the first process writes.
    """

    rank: int
    processes: int
    folder: Path

    @contextmanager
    def own_folder(self) -> Iterator[Path]:
        """Where this process keeps the run: the first one in `folder` itself, the others in a copy of their own.

        All have finished what they did inside when it ends.
        """
        if self.processes == 1:
            yield self.folder
            return
        PartialState().wait_for_everyone()  # the folder's state is the same for all
        own = self.folder
        if self.rank:
            own = Path(tempfile.mkdtemp(prefix="evenhand-"))
            for name in ("record.json", "samples.json"):
                if (self.folder / name).exists():
                    shutil.copy2(self.folder / name, own / name)
            for finished in (self.folder / "stages").glob("[!.]*"):
                shutil.copytree(finished, own / "stages" / finished.name)
        PartialState().wait_for_everyone()  # copied before the first process goes on
        try:
            yield own
            PartialState().wait_for_everyone()
        finally:
            if self.rank:
                shutil.rmtree(own, ignore_errors=True)

    def settle(self, partial: Path, final: Path) -> None:
        """The stage in `partial` is finished: it appears whole in `final`, the first process's for all of them."""
        if self.rank == 0:
            settle(partial, final)
        if self.processes > 1:
            PartialState().wait_for_everyone()
        if self.rank:
            shutil.rmtree(partial)
            shutil.copytree(self.folder / "stages" / final.name, final)


def leave() -> None:
    """Part from the other processes at the end of a program."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
