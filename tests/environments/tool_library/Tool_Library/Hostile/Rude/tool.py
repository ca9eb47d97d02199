"""Tools that do what tools must not do. Each harms only itself and what it starts, should the sandbox fail."""

import contextlib
import ctypes
import json
import mmap
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


# --- memory and files that a limit of one process does not count ----------------------------------------------------


def system_v(kind):
    """What `ipcs` would list: made, and left behind."""
    libc = ctypes.CDLL(None, use_errno=True)
    number = {
        "shared memory": lambda: libc.shmget(0, ctypes.c_size_t(100 << 20), 0o1600),
        "semaphores": lambda: libc.semget(0, 1, 0o1600),
        "queue": lambda: libc.msgget(0, 0o1600),
    }[kind]()
    return "made" if number >= 0 else os.strerror(ctypes.get_errno())


def memory_file(megabytes):
    """In memory, however it is called; no address space of ours."""
    file = os.memfd_create("much")
    for _ in range(megabytes):
        os.write(file, b"x" * (1 << 20))
    return os.fstat(file).st_size


def watch_files():
    libc = ctypes.CDLL(None, use_errno=True)
    return "made" if libc.inotify_init1(0) >= 0 else os.strerror(ctypes.get_errno())


def give_to_pipe(call):
    """Pages that belong to no process once they are in a pipe."""
    libc = ctypes.CDLL(None, use_errno=True)
    (read, write), page = os.pipe(), ctypes.create_string_buffer(4096)

    class Pages(ctypes.Structure):
        _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))

    if call == "vmsplice":
        done = libc.vmsplice(write, ctypes.byref(Pages(ctypes.addressof(page), 4096)), 1, 0)
    elif call == "tee":
        os.write(write, b"x")
        done = libc.tee(read, os.pipe()[1], 1, 0)
    else:
        with open(__file__, "rb") as file:
            done = libc.splice(file.fileno(), None, write, None, 10, 0)
    return "given" if done >= 0 else os.strerror(ctypes.get_errno())


def share_out_memory(children, megabytes):
    """Each child stays below the limit of a process."""
    for _ in range(children):
        if os.fork() == 0:
            kept = b"x" * (megabytes << 20)
            time.sleep(30)
            os._exit(len(kept) % 2)
    time.sleep(20)


def hide_memory(children, megabytes):
    """The same in shared memory of processes that do not want to be looked into."""
    for _ in range(children):
        if os.fork() == 0:
            ctypes.CDLL(None).prctl(4, 0, 0, 0, 0)  # PR_SET_DUMPABLE
            shared = mmap.mmap(-1, megabytes << 20)
            for _ in range(megabytes):
                shared.write(b"x" * (1 << 20))
            time.sleep(30)
            os._exit(0)
    time.sleep(20)


def write_many(files, kilobytes):
    for number in range(files):
        with open(f"file-{number}", "wb") as file:
            file.write(b"x" * (kilobytes << 10))
    return files


def write_deleted(files, kilobytes):
    """Files that have no name any more."""
    kept = []
    for number in range(files):
        kept.append(os.open(f"file-{number}", os.O_CREAT | os.O_WRONLY))
        os.unlink(f"file-{number}")
        os.write(kept[-1], b"x" * (kilobytes << 10))
    time.sleep(20)


def lock_away():
    """Folders that their owner may not enter."""
    os.makedirs("deep/er")
    write_file("deep/er/file")
    os.chmod("deep/er", 0)
    os.chmod("deep", 0)
    return "locked"


def groups():
    return [*os.getresuid(), *os.getresgid(), *os.getgroups()]


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
