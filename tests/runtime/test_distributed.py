"""Several processes: their identity from the environment, what is started, their communication, uneven batches."""

from __future__ import annotations

import os
import socket
import threading
from base64 import b64encode
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import SimpleNamespace

import pytest
import torch
from omegaconf import OmegaConf
from torch.distributed import PrefixStore, TCPStore

from tests.support.listeners import listening, reachable
from tests.support.traps import trap
from tltrain import config
from tltrain.entry import launch
from tltrain.errors import TltrainError
from tltrain.runtime import distributed, loopback, stage_names
from tltrain.runtime.distributed import Team
from tltrain.runtime.place import Place, first_host, started

TORCHRUN = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
MASTER = {"MASTER_ADDR": "10.0.0.1", "MASTER_PORT": "29500"}
SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_LOCALID": "1",
    "SLURM_STEP_NUM_TASKS": "8",
    "SLURM_STEP_TASKS_PER_NODE": "4(x2)",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "1234",
}


def test_nothing_started_this_process():
    assert started({}) is None


def test_the_place_under_torchrun():
    assert started(TORCHRUN | MASTER) == Place(3, 4, 1, 2, "10.0.0.1", 29500)


def test_the_place_under_a_launcher_that_counts_no_local_processes():
    place = started({"RANK": "1", "WORLD_SIZE": "2"} | MASTER)
    assert (place.local_rank, place.local_size) == (1, 2)


def test_without_the_first_process_s_address():
    with pytest.raises(TltrainError, match="MASTER_ADDR"):
        started(TORCHRUN)


def test_a_rank_that_is_no_number():
    with pytest.raises(TltrainError, match="RANK: expected a number, found one"):
        started(TORCHRUN | MASTER | {"RANK": "one"})


def test_the_place_under_srun():
    place = started(SRUN)
    assert (place.rank, place.size, place.local_rank, place.local_size) == (5, 8, 1, 4)
    assert place.address == "gpu07"
    assert place.port == started(SRUN | {"SLURM_PROCID": "0"}).port
    assert place.port != started(SRUN | {"SLURM_JOB_ID": "1235"}).port


def test_srun_with_one_task_a_node_leaves_the_workers_to_us():
    assert started(SRUN, ["stage=pkt", "hardware.nodes=8"]) is None


def test_a_batch_script_is_no_step_of_srun():
    alone = {"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "1"}
    assert started(alone) is None
    assert started(alone | MASTER).size == 8


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("gpu7", "gpu7"), ("gpu[07-09,12],login", "gpu07"), ("a,b[1-2]", "a"), ("n[3,5]-ib", "n3-ib"), ("x[1-2]", "x1")],
)
def test_the_first_host_of_a_slurm_list(nodes, first):
    assert first_host(nodes) == first


@pytest.mark.parametrize(
    "environment",
    [
        TORCHRUN | MASTER | {"LOCAL_WORLD_SIZE": "4"},
        TORCHRUN | MASTER | {"MASTER_ADDR": "localhost"},
        SRUN | {"SLURM_STEP_TASKS_PER_NODE": "8", "SLURM_STEP_NODELIST": "gpu07"},
        SRUN | {"MASTER_ADDR": "127.0.0.1"},
    ],
)
def test_processes_of_one_machine_meet_on_loopback(environment):
    place = started(environment)
    assert place.one_machine
    assert place.address == "127.0.0.1"


@pytest.mark.parametrize(
    "environment",
    [
        TORCHRUN | MASTER,
        {"RANK": "1", "WORLD_SIZE": "2"} | MASTER,  # the number on this machine is missing
        SRUN,
        {name: value for name, value in SRUN.items() if name != "SLURM_STEP_TASKS_PER_NODE"},
    ],
)
def test_processes_that_may_be_on_several_machines_do_not(environment):
    assert not started(environment).one_machine


def test_the_store_of_a_launcher_is_used_where_it_is():
    torchrun = TORCHRUN | MASTER | {"LOCAL_WORLD_SIZE": "4", "TORCHELASTIC_USE_AGENT_STORE": "True"}
    place = started(torchrun)
    assert (place.address, place.one_machine, place.agent_store) == ("10.0.0.1", True, True)


# --- launching -------------------------------------------------------------------------------------------------------


def hardware(**keys):
    return OmegaConf.merge(OmegaConf.structured(config.Hardware), keys)


def run(stage="pkt", source="model", **keys):
    stage = {"name": stage, "predictions": None, "compare": []}
    return OmegaConf.create(
        {"stage": stage, "source": {"name": source}, "benchmark": {"name": "toolworld"}, "hardware": hardware(**keys)}
    )


def test_workers_are_started_where_they_have_work():
    two = {"device": "cpu", "processes": 2}
    assert launch.wanted(run(**two))
    assert launch.wanted(run("pipeline", **two))
    assert launch.wanted(run("eval", **two))
    assert not launch.wanted(run("eval", source="golden", **two))
    assert not launch.wanted(run("mae", **two))
    assert not launch.wanted(run(device="cpu"))
    assert launch.wanted(run(device="cpu", deepspeed={"zero_optimization": {"stage": 2}}))  # DeepSpeed needs a launcher


def test_processes_that_were_started_must_be_as_many_as_asked_for(monkeypatch):
    monkeypatch.setattr(distributed, "_team", SimpleNamespace(place=Place(0, 2, 0, 2, "127.0.0.1", 1)))
    assert not launch.wanted(run(processes=2))
    with pytest.raises(TltrainError, match=r"hardware\.processes=4, but 2"):
        launch.wanted(run(processes=4))


def test_workers_of_one_machine(tmp_path):
    found = launch.launch_config(hardware(device="cpu", processes=3), str(tmp_path))
    assert (found.nproc_per_node, found.min_nodes, found.max_nodes, found.max_restarts) == (3, 1, 1, 0)
    assert sorted(found.logs_specs._redirects) == [1, 2]  # only the first process writes to the terminal


def test_workers_of_the_second_of_two_machines(tmp_path, monkeypatch):
    nodes = {"device": "cpu", "processes": 2, "nodes": 2, "rendezvous": "10.0.0.1:29400"}
    monkeypatch.setenv("SLURM_NODEID", "1")
    found = launch.launch_config(hardware(**nodes), str(tmp_path))
    assert (found.rdzv_backend, found.rdzv_endpoint, found.rdzv_configs["rank"]) == ("static", "10.0.0.1:29400", 1)
    assert sorted(found.logs_specs._redirects) == [0, 1]
    first = launch.launch_config(hardware(**nodes, node_rank=0), str(tmp_path))
    assert first.rdzv_configs["rank"] == 0


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"nodes": 2, "node_rank": 0}, "hardware.rendezvous=ADDRESS:PORT"),
        ({"nodes": 2, "node_rank": 2, "rendezvous": "a:1"}, "from 0 to 1"),
        ({"nodes": 2, "rendezvous": "a:1"}, "hardware.node_rank"),
    ],
)
def test_several_machines_need_a_rendezvous(tmp_path, monkeypatch, keys, words):
    monkeypatch.delenv("SLURM_NODEID", raising=False)
    with pytest.raises(TltrainError, match=words):
        launch.launch_config(hardware(device="cpu", processes=1, **keys), str(tmp_path))


def test_threads_are_shared_among_processes(monkeypatch):
    monkeypatch.setattr(distributed.os, "sched_getaffinity", lambda _: range(8))
    assert [distributed.threads(count) for count in (1, 3, 8, 16)] == [8, 2, 1, 1]


@pytest.mark.parametrize(
    ("word", "line"),
    [
        ("hardware.processes=0", "hardware.processes: expected a number from 1 to 1024"),
        ("hardware.procesess=2", "did you mean"),
        ("hardware.args.learning_rat=1", "did you mean learning_rate"),
        ("stage.args.deepspeed=x.json", "this is set by hardware.deepspeed"),
        ("model.lora.quantize=3bit", "Invalid value '3bit', expected one of [4bit, 8bit]"),
        ("model.lora.rank=8", "no such key"),
    ],
)
def test_mistakes_in_the_configuration(tltrain, word, line):
    assert line in tltrain("stage=pkt", "model=tiny", "hardware=cpu", word, status=1).err


def test_deepspeed_configurations_repeat_no_number(tltrain):
    from hydra import compose, initialize_config_dir

    config.register()
    with initialize_config_dir(str(config.CONF_DIR), version_base="1.3"):
        found = OmegaConf.to_container(compose("config", ["hardware=zero3_offload"]).hardware.deepspeed)
    numbers = [key for key, value in found.items() if isinstance(value, int | float) and not isinstance(value, bool)]
    assert numbers == []
    assert found["zero_optimization"]["stage"] == 3
    assert found["zero_optimization"]["offload_optimizer"]["device"] == "cpu"
    assert found["train_batch_size"] == "auto"


# --- communication ---------------------------------------------------------------------------------------------------


def add(number: int) -> int:
    return number + 1


def fail(line: str) -> None:
    raise TltrainError(line)


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@contextmanager
def members_of(*secrets):
    """Members of a team, in threads of this process, and the lines with which jobs failed."""
    port = free_port()
    failures: list[str] = []
    members = [
        Team(
            Place(rank, len(secrets), rank, len(secrets), "127.0.0.1", port, one_machine=True),
            secret,
            on_failure=lambda error: failures.append(str(error)),
        )
        for rank, secret in enumerate(secrets)
    ]
    yield *members, failures
    for member in members:
        member._ended.set()


@pytest.fixture
def teams(monkeypatch):
    """Two members of a team, and the lines with which jobs failed."""
    monkeypatch.delenv("TORCHELASTIC_RESTART_COUNT", raising=False)
    with members_of("the secret of the run", "the secret of the run") as found:
        yield found


def test_objects_are_shared_and_gathered(teams):
    first, second, _ = teams
    found = []
    other = threading.Thread(target=lambda: found.extend([second.share(None), second.gather("b"), second.gather(2)]))
    other.start()
    assert first.share({"a": [1]}) == {"a": [1]}
    assert first.gather("a") == ["a", "b"]
    assert first.gather(1) == [1, 2]
    other.join(20)
    assert found == [{"a": [1]}, ["a", "b"], [1, 2]]


def test_the_first_process_calls_and_the_others_follow(teams):
    first, second, failures = teams
    other = threading.Thread(target=lambda: (second.follow(), second.end()))
    other.start()
    assert first.call(f"{__name__}:add", 1) == 2
    with pytest.raises(TltrainError, match="no data"):
        first.call(f"{__name__}:fail", "no data")
    assert first.call(f"{__name__}:add", 2) == 3  # an error that all members make ends none of them
    first.end()
    other.join(20)
    assert not other.is_alive()
    assert failures == ["no data"]


def test_all_processes_name_the_keys_of_a_sub_stage_as_the_first_does(teams):
    first, second, failures = teams
    other = threading.Thread(target=second.follow)
    other.start()
    with stage_names.named(stage_names.Node("pipeline", "supervised", ("w_max",))):
        for _ in range(2):
            with pytest.raises(TltrainError):
                first.call(f"{__name__}:fail", "stage.args.max_steps and stage.w_max")
    with pytest.raises(TltrainError):
        first.call(f"{__name__}:fail", "stage.args.max_steps")
    first.end()
    other.join(20)
    assert failures == ["stage.supervised.args.max_steps and stage.w_max"] * 2 + ["stage.args.max_steps"]
    assert stage_names.current() is None


def test_a_large_value_is_shared(teams):
    """torch's store takes no more than 8 MiB under one key."""
    first, second, _ = teams
    value = "x" * (9 << 20)
    found = []
    other = threading.Thread(target=lambda: found.append(second.share(None)))
    other.start()
    first.share(value)
    other.join(20)
    assert found == [value]


def stranger(member: Team) -> PrefixStore:
    """Return a team's store, as anyone can open it who can reach its port."""
    store = TCPStore(member.place.address, member.place.port, timeout=timedelta(seconds=20))
    return PrefixStore("tltrain/0", store)


def test_a_stranger_s_value_runs_nothing_and_ends_the_run_in_one_line(teams, tmp_path):
    _, second, _ = teams
    stranger(second).set("exchange/0/1", trap(tmp_path / "trap"))
    stranger(second).set("work/1", trap(tmp_path / "trap"))
    for read in (lambda: second.share(None), second.follow):
        with pytest.raises(
            TltrainError, match=r"a value that no process of this run wrote \(.*/1\), and it was not read"
        ):
            read()
    assert not (tmp_path / "trap").exists()


def test_of_a_value_gathered_from_a_stranger_nothing_is_run(teams, tmp_path):
    first, _, _ = teams
    stranger(first).set("exchange/0/1/1", trap(tmp_path / "trap"))
    with pytest.raises(TltrainError, match="no process of this run wrote"):
        first.gather(0)
    assert not (tmp_path / "trap").exists()


def test_a_process_with_another_secret_is_named():
    with members_of("the secret of the run", "another secret") as (first, second, _):
        with pytest.raises(TltrainError, match=r"the secret of rank 1 differs from that of rank 0.*set TLTRAIN_SECRET"):
            first.share(0)
        with pytest.raises(TltrainError, match=r"the secret of rank 0 differs from that of rank 1.*set TLTRAIN_SECRET"):
            second.follow()


def test_on_one_machine_the_store_listens_on_loopback():
    before = listening([os.getpid()])
    with members_of("the secret of the run") as (member, _):
        opened = listening([os.getpid()]) - before
        assert opened == {f"[127.0.0.1]:{member.place.port}"}
        assert reachable(opened) == []


def test_the_launcher_s_store_listens_on_loopback(tmp_path):
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    found = launch.launch_config(hardware(device="cpu", processes=2), str(tmp_path))
    before = listening([os.getpid()])
    handler = get_rendezvous_handler(
        RendezvousParameters(found.rdzv_backend, found.rdzv_endpoint, found.run_id, 1, 1, **found.rdzv_configs)
    )
    meeting = handler.next_rendezvous()
    opened = listening([os.getpid()]) - before
    assert opened == {f"[127.0.0.1]:{meeting.bootstrap_store_info.master_port}"}
    assert (meeting.rank, meeting.world_size, handler.use_agent_store) == (0, 1, True)


def test_what_a_stranger_writes_into_the_launcher_s_store_is_not_unpickled(tmp_path):
    """torch's `c10d` keeps its state there, in pickle."""
    from torch.distributed.elastic.rendezvous import RendezvousParameters
    from torch.distributed.elastic.rendezvous.registry import get_rendezvous_handler

    found = launch.launch_config(hardware(device="cpu", processes=2), str(tmp_path))
    before = listening([os.getpid()])
    handler = get_rendezvous_handler(
        RendezvousParameters(found.rdzv_backend, found.rdzv_endpoint, found.run_id, 1, 1, **found.rdzv_configs)
    )
    (place,) = listening([os.getpid()]) - before
    store = TCPStore("127.0.0.1", int(place.rpartition(":")[2]), timeout=timedelta(seconds=20))
    store.set(f"torch.rendezvous.{found.run_id}", b64encode(trap(tmp_path / "trap")))
    with suppress(Exception):  # of what is no state of a rendezvous
        handler.next_rendezvous()
    assert not (tmp_path / "trap").exists()


def test_a_port_that_is_taken_is_named():
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(TltrainError, match=f"MASTER_PORT={port}: cannot listen on this port"):
            Team(Place(0, 2, 0, 2, "127.0.0.1", port, one_machine=True), "the secret of the run")


def test_libraries_listen_on_loopback_unless_the_user_chose_an_interface(monkeypatch):
    monkeypatch.delenv("GLOO_SOCKET_IFNAME", raising=False)
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "ib0")
    loopback.keep_libraries()
    assert os.environ["GLOO_SOCKET_IFNAME"] == loopback.INTERFACE
    assert os.environ["NCCL_SOCKET_IFNAME"] == "ib0"


# --- uneven batches --------------------------------------------------------------------------------------------------


def test_missing_samples_are_filled_with_blank_ones():
    from tltrain.training.blank_batches import Filled

    assert list(Filled(range(5), 4, blank=5)) == [0, 1, 2, 3, 4, 5, 5, 5]
    assert list(Filled(range(4), 4, blank=4)) == [0, 1, 2, 3]
    assert len(Filled(range(1), 2, blank=1)) == 2


def test_a_blank_row_adds_nothing_to_a_batch():
    from tltrain.training import sft

    row = {
        "input_ids": [5, 6, 7],
        "positions": [0, 1],
        "targets": [6, 7],
        "weights": [1.0, 2.0],
        "keys": [False, True],
        "turns": [4, 9],
    }
    blank = {column: [5] if column == "input_ids" else [] for column in sft.COLUMNS}
    collate = sft.Collator(0)
    assert collate([row, blank])["turn_count"] == collate([row])["turn_count"] == 2
    alone = collate([blank])
    assert alone["turn_count"] == 0
    nll = torch.zeros(0, requires_grad=True)
    losses = sft.turn_losses(nll, alone["weights"], alone["turns"], 0)
    losses.sum().backward()  # every process takes part in the backward pass
    assert losses.shape == (0,)


def test_a_rollout_without_prompts_has_no_loss():
    from tltrain.training import policy_gradient as pg
    from tltrain.training import update_batches

    batch = update_batches.make_batch([], [], [], pad_id=0)
    assert batch["input_ids"].shape == (1, 1)
    assert not batch["keep"].any()
    values = torch.zeros(0, requires_grad=True)[batch["index"]]
    rewards = pg.token_rewards(batch["scores"], values, values, batch["mask"], kl=0.1, clip=5.0)
    advantages, returns = pg.generalized_advantages(rewards, values, batch["mask"], gamma=1.0, lam=0.95)
    loss = pg.policy_loss(values, values, advantages, batch["mask"], clip=0.2)[0].sum()
    loss = loss + pg.value_loss(values, values, returns, batch["mask"], clip=0.2)[0].sum()
    loss.backward()
    assert loss.item() == 0
