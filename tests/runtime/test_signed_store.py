"""Values signed by a run: values from anyone else are refused."""

from __future__ import annotations

import pytest
from torch.distributed import HashStore

from tltrain.errors import TltrainError
from tltrain.runtime import signed_store
from tltrain.runtime.signed_store import Session, SignedStore


def two(store: HashStore, secret: str = "the secret of the run") -> tuple[SignedStore, SignedStore]:
    sessions = [Session(rank, 2, secret, "HOST:1") for rank in range(2)]
    for session in sessions:
        session.greet(store)
    first, second = (SignedStore(store, session) for session in sessions)
    return first, second


@pytest.fixture
def store() -> HashStore:
    return HashStore()


def test_a_value_in_several_parts_is_read_and_removed(store, monkeypatch):
    first, second = two(store)
    monkeypatch.setattr(signed_store, "PART", 3)
    first.put("a", "0123456789")
    assert store.get("a/part/3") == b'89"'
    assert second.get("a") == "0123456789"
    second.remove("a")
    assert not any(store.check([key]) for key in ("a", "a/part/0", "a/part/3"))


@pytest.mark.parametrize("changed", ["a", "a/part/0"])
@pytest.mark.parametrize("text", [b"", b"[1]", b"\x80\x04.", b"9" * 200])
def test_a_changed_value_is_refused(store, changed, text):
    first, second = two(store)
    first.put("a", [1, 2])
    store.set(changed, text)
    with pytest.raises(
        TltrainError, match=r"the store at HOST:1 holds a value that no process of this run wrote \(a\)"
    ):
        second.get("a")


def test_a_value_under_another_key_is_refused(store):
    first, second = two(store)
    first.put("a", [1, 2])
    store.set("b", store.get("a"))
    store.set("b/part/0", store.get("a/part/0"))
    with pytest.raises(TltrainError, match="no process of this run"):
        second.get("b")


def test_a_value_of_an_earlier_run_with_the_same_secret_is_refused(store):
    earlier = HashStore()
    two(earlier)[0].put("a", [1, 2])
    _, second = two(store)
    for key in ("a", "a/part/0"):
        store.set(key, earlier.get(key))
    with pytest.raises(TltrainError, match="no process of this run"):
        second.get("a")


def test_a_process_that_does_not_come_is_named(store):
    session = Session(0, 2, "the secret of the run", "HOST:1")
    session.greet(store)
    with pytest.raises(TltrainError, match="rank 1 did not connect to HOST:1: are all 2 processes started"):
        session.key(store, seconds=0.01)
