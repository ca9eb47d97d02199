"""The rank of this process among several, from the launcher's environment variables."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tltrain.errors import TltrainError

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Place:
    """One of `size` processes; `local_*` count those on its machine; the store is at `address`:`port`.

    Attributes:
        one_machine: all processes are known to run on this machine, so that other machines need no access.
        agent_store: torch's launcher serves the store; otherwise rank 0 does.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    address: str
    port: int
    one_machine: bool = False
    agent_store: bool = False


def started(environment: Mapping[str, str], words: Sequence[str] = ()) -> Place | None:
    """Return the place of this process if torchrun, accelerate, deepspeed or srun started several; else None.

    Args:
        words: the command line. With `hardware.nodes=`, srun starts one process per node, and each starts its workers.

    Raises:
        TltrainError: some of the environment variables are set, but not all.
    """
    if "RANK" in environment and "WORLD_SIZE" in environment:
        place = _place(environment, "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        if "MASTER_ADDR" not in environment or "MASTER_PORT" not in environment:
            raise TltrainError("RANK and WORLD_SIZE are set, but not MASTER_ADDR and MASTER_PORT: where is rank 0?")
        address = environment["MASTER_ADDR"]
        alone = _loopback(address) or _number(environment, "LOCAL_WORLD_SIZE", 1) == place[1]
        agent = environment.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
        address = LOOPBACK if alone and not agent else address
        return Place(*place, address, _number(environment, "MASTER_PORT"), alone, agent)
    # Only srun steps have this; a batch script without srun has SLURM_NTASKS and a rank too.
    count = "SLURM_STEP_NUM_TASKS" if "SLURM_STEP_NUM_TASKS" in environment else "SLURM_NTASKS"
    in_step = count == "SLURM_STEP_NUM_TASKS" or "MASTER_ADDR" in environment
    if not in_step or "SLURM_PROCID" not in environment or _number(environment, count, 1) == 1:
        return None
    if any(word.lstrip("+").startswith("hardware.nodes=") for word in words):
        return None
    rank, size, local_rank, _ = _place(environment, "SLURM_PROCID", count, "SLURM_LOCALID", "")
    local = environment.get("SLURM_STEP_TASKS_PER_NODE") or environment.get("SLURM_NTASKS_PER_NODE") or ""
    local_size = int("".join(digit for digit in local.partition("(")[0].partition(",")[0] if digit.isdigit()) or size)
    nodes = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST") or LOOPBACK
    port = 20_000 + _number(environment, "SLURM_JOB_ID", 0) * 7 % 20_000 + _number(environment, "SLURM_STEP_ID", 0) % 7
    address = environment.get("MASTER_ADDR") or first_host(nodes)
    alone = _loopback(address) or (bool(local) and local_size == size)
    return Place(
        rank,
        size,
        local_rank,
        local_size,
        LOOPBACK if alone else address,
        _number(environment, "MASTER_PORT", port),
        alone,
    )


def first_host(nodes: str) -> str:
    """Return the first host of a SLURM node list: `gpu[07-09,12],login` -> `gpu07`."""
    name, bracket, inside = nodes.partition("[")
    if not bracket or "," in name:
        return name.partition(",")[0]
    first = inside.partition("]")[0].partition(",")[0].partition("-")[0]
    rest = inside.partition("]")[2].partition(",")[0]
    return name + first + rest


def _loopback(address: str) -> bool:
    try:
        return address == "localhost" or ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _place(
    environment: Mapping[str, str], rank: str, size: str, local_rank: str, local_size: str
) -> tuple[int, int, int, int]:
    of_all = _number(environment, rank), _number(environment, size)
    return *of_all, _number(environment, local_rank, of_all[0]), _number(environment, local_size, of_all[1])


def _number(environment: Mapping[str, str], name: str, otherwise: int | None = None) -> int:
    value = environment.get(name)
    if value is None and otherwise is not None:
        return otherwise
    try:
        return int(value or "")
    except ValueError:
        raise TltrainError(f"the environment variable {name}: expected a number, found {value}") from None
