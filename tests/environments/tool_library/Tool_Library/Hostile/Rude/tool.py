"""Tools that misbehave. If the sandbox fails, each harms only itself and the processes that it starts."""

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time


def echo(value):
    return value


# --- never coming back ----------------------------------------------------------------------------------------------


def hang():
    time.sleep(30)


def ignore_signals():
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    time.sleep(30)


def spin():
    end = time.time() + 30
    while time.time() < end:
        pass


# --- ending ---------------------------------------------------------------------------------------------------------


def leave(code):
    sys.exit(code)


def end_process(code):
    os._exit(code)


def crash():
    ctypes.string_at(0)


def kill_group():
    os.kill(0, signal.SIGKILL)


def close_files():
    os.closerange(0, 256)
    return "closed"


# --- too much -------------------------------------------------------------------------------------------------------


def shout():
    print("x" * 3_000_000)
    print("x" * 3_000_000, file=sys.stderr)
    os.write(1, b"x" * 3_000_000)
    return "said"


def flood():
    return "x" * 3_000_000


def allocate():
    return len(bytearray(8 << 30))


def write_much(megabytes):
    with open("much", "wb") as file:
        for _ in range(megabytes):
            file.write(b"x" * (1 << 20))
    return os.path.getsize("much")


def nest():
    value = []
    for _ in range(100_000):
        value = [value]
    return value


# --- processes ------------------------------------------------------------------------------------------------------


def leave_child(seconds):
    """A child in a session of its own, its parent gone, like a daemon."""
    if (child := os.fork()) == 0:
        os.setsid()
        if os.fork() == 0:
            os.execv("/bin/sleep", ["sleep", seconds])
        os._exit(0)
    os.waitpid(child, 0)
    return "left"


def hang_with_child(seconds):
    leave_child(seconds)
    time.sleep(30)


def breed(most):
    """How many children there can be at once."""
    children = []
    with contextlib.suppress(OSError):
        while len(children) < most:
            child = os.fork()
            if child == 0:
                time.sleep(30)
                os._exit(0)
            children.append(child)
    return len(children)


def bomb():
    """Forks as fast as it can, for five seconds at most and 200 at most in one line of descent."""
    end = time.time() + 5
    forks = 0
    while time.time() < end and forks < 200:
        try:
            os.fork()
            forks += 1
        except OSError:
            time.sleep(0.001)
    os._exit(0)


def leave_thread():
    threading.Thread(target=time.sleep, args=(30,)).start()
    return "left"


# --- odd exceptions and values --------------------------------------------------------------------------------------


class Odd(BaseException):
    pass


class Mute(Exception):
    def __str__(self):
        raise RuntimeError("no")


class Liar(str):
    def __getitem__(self, index):
        raise RuntimeError("no")

    def __str__(self):
        return self

    def __len__(self):
        return 10**9


def fail(kind):
    def endless():
        return endless()

    if kind == "recursion":
        endless()
    raise {
        "odd": Odd("of no known kind"),
        "mute": Mute(),
        "interrupt": KeyboardInterrupt(),
        "exit": SystemExit("bye"),
        "generator": GeneratorExit(),
        "stop": StopIteration("over"),
        "key": KeyError("key"),
        "empty": ValueError(),
        "liar": ValueError(Liar("a lie")),
        "long": ValueError("y" * 1_000_000),
    }[kind]


def unwritable(kind):
    cycle = []
    cycle.append(cycle)
    return {
        "set": {1},
        "object": object(),
        "function": unwritable,
        "bytes": b"x",
        "keys": {(1, 2): 3},
        "cycle": cycle,
        "generator": (one for one in ()),
    }[kind]


def surrogate():
    return "\ud800"


def not_a_number():
    return [float("nan"), 10**400]


# --- the protocol ---------------------------------------------------------------------------------------------------


def forge():
    """Writes answers wherever a channel might be, then another."""
    for fd in range(3, 64):
        with contextlib.suppress(OSError):
            os.write(fd, b'{"text": "forged", "nonce": ""}\n')
    return "true"


def forge_later():
    def write():
        time.sleep(0.05)
        forge()

    threading.Thread(target=write).start()
    return "true"


def patch_json():
    json.dumps = json.loads = json.JSONEncoder = json.JSONDecoder = os.write = None
    return {"a": [1, None]}


# --- the machine ----------------------------------------------------------------------------------------------------


def look_around():
    """The environments and memory maps of all processes that show theirs."""
    found = [repr(dict(os.environ))]
    names = ["self", str(os.getppid()), *(str(number) for number in range(1, 100))]
    with contextlib.suppress(OSError):
        names = os.listdir("/proc")
    for name in names:
        if name.isdigit() or name == "self":
            for file in ("environ", "cmdline"):
                with contextlib.suppress(OSError), open(f"/proc/{name}/{file}", "rb") as opened:
                    found.append(opened.read().decode(errors="replace"))
    return "secret in sight" if any("a-secret-of-ours" in text for text in found) else "nothing"


def read_file(path):
    with open(path) as file:
        return file.read()


def write_file(path):
    with open(path, "w") as file:
        return file.write("written by a tool")


def link_and_write(path):
    os.symlink(path, "link")
    return write_file("link")


def connect(port):
    with socket.create_connection(("127.0.0.1", port), timeout=1) as connection:
        return connection.recv(100).decode()


def connect_unix(path):
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        return connection.recv(100).decode()


def other_socket():
    return str(socket.socket(socket.AF_VSOCK))


def connect_by_program(port):
    done = subprocess.run(
        ["/bin/bash", "-c", f"exec 3<>/dev/tcp/127.0.0.1/{int(port)} && head -c 5 <&3"], capture_output=True, timeout=5
    )
    return done.stdout.decode() or "refused"


def new_namespace():
    libc = ctypes.CDLL(None, use_errno=True)
    return [libc.unshare(0x10000000), ctypes.get_errno()]  # CLONE_NEWUSER


def rights():
    with open("/proc/self/status") as file:
        found = {line.partition(":")[0]: line.partition(":")[2].strip() for line in file}
    return [found[key] for key in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "NoNewPrivs", "Uid")]
