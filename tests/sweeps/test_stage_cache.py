"""The cache of stages: one build per fingerprint, whatever happens to builders and files."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest

from tests.support.paths import ROOT
from tltrain.runtime import fingerprints, runs
from tltrain.sweeps.stage_cache import StageCache


class Builder:
    """Counts what it builds."""

    def __init__(self, text: str = "result", seconds: float = 0) -> None:
        self.text, self.seconds, self.builds = text, seconds, 0

    def __call__(self, folder: Path) -> dict:
        self.builds += 1
        time.sleep(self.seconds)
        (folder / "model").mkdir(exist_ok=True)
        (folder / "model" / "weights").write_text(self.text)
        runs.write_json(folder / "metrics.json", {"train": {"tokens": 7}, "text": self.text})
        return {}


@pytest.fixture
def cache(tmp_path):
    return StageCache(tmp_path / "stages")


def test_what_is_there_is_not_built_again(cache):
    build = Builder()
    first = cache.get("pkt", {"a": 1}, build)
    second = cache.get("pkt", {"a": 1}, build)
    assert build.builds == 1
    assert (first.cost.reused, second.cost.reused) == (False, True)
    assert second.folder == first.folder and second.metrics["text"] == "result" and second.cost.tokens == 7
    assert second.cost.seconds == first.cost.seconds


def test_another_fingerprint_is_another_entry(cache):
    build = Builder()
    one, other = cache.get("pkt", {"a": 1}, build), cache.get("pkt", {"a": 2}, build)
    assert build.builds == 2 and one.folder != other.folder


def test_an_unfinished_entry_is_never_used(cache):
    def stopped(folder: Path) -> dict:
        Builder("half")(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get("pkt", {}, stopped)
    assert cache.get("pkt", {}, Builder("whole")).metrics["text"] == "whole"


@pytest.mark.parametrize("resumable", [False, True])
def test_leftovers_are_kept_for_a_stage_that_can_go_on_from_them(cache, resumable):
    def stopped(folder: Path) -> dict:
        (folder / "checkpoint").write_text("step 3")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get("irm", {}, stopped)
    seen = []

    def build(folder: Path) -> dict:
        seen.append((folder / "checkpoint").exists())
        return Builder()(folder)

    cache.get("irm", {}, build, resumable=resumable)
    assert seen == [resumable]


@pytest.mark.parametrize(
    "alter",
    [
        lambda folder: (folder / "model" / "weights").write_text("rEsult"),
        lambda folder: (folder / "model" / "weights").unlink(),
        lambda folder: (folder / "model" / "weights").write_text(""),
        lambda folder: (folder / "entry.json").write_text("{"),
        lambda folder: (folder / "entry.json").write_text("[]"),
    ],
    ids=["same length", "missing", "cut", "manifest cut", "manifest of another shape"],
)
def test_an_altered_entry_is_never_used(cache, alter):
    build = Builder()
    alter(cache.get("pkt", {}, build).folder)
    entry = cache.get("pkt", {}, build)
    assert build.builds == 2 and not entry.cost.reused
    assert (entry.folder / "model" / "weights").read_text() == "result"


def test_content_is_read_where_size_and_time_tell_nothing(cache, monkeypatch):
    """This happens after a disk error, or in a copy that keeps times."""
    build = Builder()
    weights = cache.get("pkt", {}, build).folder / "model" / "weights"
    before = weights.stat()
    weights.write_text("rEsult")
    os.utime(weights, ns=(before.st_atime_ns, before.st_mtime_ns))
    fingerprints._of_file.cache_clear()  # as in another process
    assert not cache.get("pkt", {}, build).cost.reused and build.builds == 2


def test_content_is_read_once_a_process(cache, monkeypatch):
    build, digest, read = Builder(), fingerprints.hashlib.file_digest, []
    cache.get("pkt", {}, build)
    fingerprints._of_file.cache_clear()
    monkeypatch.setattr(fingerprints.hashlib, "file_digest", lambda *given: read.append(given) or digest(*given))
    for _ in range(3):
        assert cache.get("pkt", {}, build).cost.reused
    assert len(read) == 2  # the two files of the entry


def test_an_entry_under_another_s_name_is_never_used(cache):
    one = cache.get("pkt", {"a": 1}, Builder("one"))
    other = cache.get("pkt", {"a": 2}, Builder("other"))
    shutil.rmtree(other.folder)
    shutil.copytree(one.folder, other.folder)
    assert cache.get("pkt", {"a": 2}, Builder("other")).metrics["text"] == "other"


def test_folders_without_the_mark_are_never_removed(tltrain, tmp_path):
    root = tmp_path / "stages"
    (root / "mine").mkdir(parents=True)
    (root / "mine" / "thesis.txt").write_text("years of work")
    (tmp_path / "elsewhere").mkdir()
    (root / "link").symlink_to(tmp_path / "elsewhere")
    unfinished(StageCache(root))
    ran = tltrain("stage=cache", "stage.prune=all", f"cache.dir='{tmp_path}'", folder=tmp_path.parent / "prune")
    assert ran.metrics["entries"] == 1 and ran.metrics["kept"] == 0
    assert (root / "mine" / "thesis.txt").read_text() == "years of work" and (root / "link").is_symlink()
    assert f"1 folders in {root} were not made by the cache and are left alone: mine" in ran.err
    assert not StageCache(root).remove(root / "mine")


def test_an_entry_of_a_version_without_marks_can_be_removed(cache):
    folder = cache.get("pkt", {}, Builder()).folder
    cache.release()
    (folder / ".tltrain-entry").unlink()
    manifest = json.loads((folder / "entry.json").read_text())
    manifest["files"] = {name: [size, 1, digest] for name, (size, digest) in manifest["files"].items()}
    (folder / "entry.json").write_text(json.dumps(manifest))
    assert cache.entries() and cache.remove(folder)


def test_an_entry_in_use_stays(tltrain, tmp_path):
    here = f"cache.dir={tmp_path / 'cache'}"
    user = StageCache(tmp_path / "cache" / "stages")
    folder = user.get("pkt", {}, Builder()).folder
    other = StageCache(user.root)
    assert other.get("pkt", {}, Builder()).cost.reused
    other.release()
    ran = tltrain("stage=cache", "stage.prune=all", here)
    assert ran.metrics["kept"] == 1 and "in use" in ran.out and (folder / "entry.json").is_file()
    user.release()
    assert tltrain("stage=cache", "stage.prune=all", here).metrics["kept"] == 0
    assert not folder.exists()


def test_a_user_that_was_killed_holds_nothing(cache, tmp_path):
    script = tmp_path / "user.py"
    script.write_text(
        textwrap.dedent(f"""
        import os, signal
        from pathlib import Path
        from tltrain.runtime import runs
        from tltrain.sweeps.stage_cache import StageCache
        cache = StageCache(Path({str(cache.root)!r}))
        cache.get("pkt", {{}}, lambda folder: runs.write_json(folder / "metrics.json", {{}}) or {{}})
        os.kill(os.getpid(), signal.SIGKILL)
        """)
    )
    subprocess.run([sys.executable, str(script)], env=os.environ | {"PYTHONPATH": str(ROOT)})
    (folder,) = (folder for folder, _ in cache.entries())
    assert list((cache.root / ".locks").glob("*.users/*")) and cache.remove(folder)


def test_a_copy_with_other_times_is_still_whole(cache):
    build = Builder()
    folder = cache.get("pkt", {}, build).folder
    os.utime(folder / "model" / "weights", (1, 1))
    assert cache.get("pkt", {}, build).cost.reused


def test_jobs_that_need_the_same_entry_wait_for_the_one_that_builds_it(cache):
    build = Builder(seconds=0.5)
    entries = []
    threads = [threading.Thread(target=lambda: entries.append(cache.get("pkt", {}, build))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert build.builds == 1
    assert sorted(entry.cost.reused for entry in entries) == [False, True, True, True]


def test_a_builder_that_was_killed_is_replaced(cache, tmp_path):
    script = tmp_path / "builder.py"
    script.write_text(
        textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from tltrain.sweeps.stage_cache import StageCache
        def build(folder):
            (folder / "half").write_text("x")
            Path({str(tmp_path / "building")!r}).touch()
            time.sleep(60)
        StageCache(Path({str(cache.root)!r})).get("pkt", {{}}, build)
        """)
    )
    here = {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen([sys.executable, str(script)], env=os.environ | here)
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "building").exists():
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        assert not cache.remove(next(folder for folder, _ in cache.entries()))  # it is being built
        process.send_signal(signal.SIGKILL)
        process.wait()
        entry = cache.get("pkt", {}, Builder())
    finally:
        process.kill()
    assert not entry.cost.reused and not (entry.folder / "half").exists()


def unfinished(cache: StageCache) -> Path:
    """Make an unfinished entry, as left by a stopped builder."""

    def stopped(folder: Path) -> dict:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.get("irm", {}, stopped)
    return next(folder for folder, manifest in cache.entries() if manifest is None)


def test_entries_are_listed_and_removed(cache):
    build = Builder()
    whole = cache.get("pkt", {}, build).folder
    unfinished(cache)
    assert [(folder.name, manifest is not None) for folder, manifest in cache.entries()].count((whole.name, True)) == 1
    cache.release()
    assert cache.remove(whole) and not whole.exists()
    cache.get("pkt", {}, build)
    assert build.builds == 2


def test_a_fingerprint_is_of_content_and_not_of_names(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").write_text("same")
    assert fingerprints.of_path(tmp_path / "a") == fingerprints.of_path(tmp_path / "b")
    (tmp_path / "b" / "inner" / "file").write_text("other")
    assert fingerprints.of_path(tmp_path / "a") != fingerprints.of_path(tmp_path / "b")
    (tmp_path / "a" / "inner" / "file").rename(tmp_path / "a" / "inner" / "renamed")
    assert fingerprints.of_path(tmp_path / "a") != fingerprints.of_path(tmp_path / "b")


def test_the_order_of_keys_does_not_count():
    assert fingerprints.fingerprint({"a": 1, "b": [1, 2]}) == fingerprints.fingerprint({"b": [1, 2], "a": 1})
    assert fingerprints.fingerprint({"b": [1, 2]}) != fingerprints.fingerprint({"b": [2, 1]})
    assert fingerprints.fingerprint({"a": 1}) != fingerprints.fingerprint({"a": "1"})


def test_the_cache_stage_lists_and_prunes(tltrain, tmp_path):
    cache = StageCache(tmp_path / "cache" / "stages")
    whole, old = cache.get("pkt", {}, Builder()).folder, cache.get("sft", {}, Builder()).folder
    unfinished(cache)
    cache.release()
    os.utime(old / "entry.json", (time.time() - 40 * 86400,) * 2)
    here = f"cache.dir={tmp_path / 'cache'}"
    ran = tltrain("stage=cache", here)
    assert ran.metrics["entries"] == 3 == ran.metrics["kept"]
    assert whole.name in ran.out and "unfinished" in ran.out
    assert tltrain("stage=cache", "stage.prune=unfinished", here).metrics["kept"] == 2
    assert tltrain("stage=cache", "stage.prune=old", here).metrics["kept"] == 1
    assert whole.exists() and not old.exists()
    assert tltrain("stage=cache", "stage.prune=all", here).metrics["kept"] == 0
    assert json.loads((tmp_path / "run4" / "metrics.json").read_text())["bytes_freed"] > 0
