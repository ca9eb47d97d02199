"""The memory of finished work is returned to the system."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.support.paths import ROOT
from tltrain.runtime import memory


def held() -> int:
    """Return the resident memory of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_of_cycles_and_of_the_heap_is_given_back():
    class Trainer:
        """An object that refers to itself, as trainers do through their callbacks."""

    def work() -> int:
        trainer = Trainer()
        trainer.me, trainer.tensors = trainer, [torch.ones(20_000) for _ in range(4000)]  # 80 kB each: from the heap
        return held()

    before = held()
    peak = work()
    assert peak - before > 250e6
    memory.give_back()
    assert held() - before < 0.2 * (peak - before)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc, and glibc's allocator is meant")
def test_large_blocks_are_reused_without_page_faults_and_given_back_at_the_end():
    """In a process of its own, since the allocator's settings stay."""
    code = """
import resource
import torch
from pathlib import Path
from tltrain.runtime import memory

def held():
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [torch.ones(2_000_000) for _ in range(20)]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

start = held()
mapped = min(faults() for _ in range(3))
memory.reuse_freed()
reused = min(faults() for _ in range(3))
kept = held() - start
memory.give_back()
print(mapped, reused, kept > 50_000_000, held() - start < 50_000_000)
"""
    ran = process(code)
    mapped, reused, *given_back = ran.split()
    assert int(reused) < 0.2 * int(mapped) and given_back == ["True", "True"]


def process(code: str) -> str:
    """Run Python code in a process of its own and return what it prints."""
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
