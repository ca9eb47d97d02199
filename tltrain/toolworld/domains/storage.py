"""Domains that keep texts: notes, and a folder that exists in memory only."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import json_error, prefixed
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call
from tltrain.toolworld.vocabulary import WORDS, listed, phrase

NOTE_TITLES = listed(
    "shopping list, error log, garden plan, gift ideas, travel budget, reading list, workout plan, errors to fix, "
    "meeting minutes, recipe ideas, house rules, movie list, moving checklist, phone errors, language goals"
)
TAGS = listed("home, work, family, health, money, travel, school, hobby")


def open_notes(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `notes`: title -> text and tag; no two notes share a tag."""
    titles, tags = rng.sample(NOTE_TITLES, 5), rng.sample(TAGS, 5)
    return {title: {"text": phrase(rng, 3, 5), "tag": tag} for title, tag in zip(titles, tags, strict=True)}


notes = Domain("notes", failure=json_error, setup=open_notes)


def _note(book: dict[str, dict], title: str) -> dict:
    if title not in book:
        raise Failure(f"there is no note titled {title!r}")
    return book[title]


@notes.tool
def get_note(book: dict, /, title: str) -> dict:
    """Read a note.

    title: title of the note
    """
    return {"title": title, "text": _note(book, title)["text"]}


@notes.tool
def get_note_tag(book: dict, /, title: str) -> dict:
    """Tell the tag of a note.

    title: title of the note
    """
    return {"title": title, "tag": _note(book, title)["tag"]}


@notes.tool
def get_notes_by_tag(book: dict, /, tag: str) -> dict:
    """List the titles of the notes with a tag.

    tag: tag such as home
    """
    return {"tag": tag, "titles": [title for title, note in book.items() if note["tag"] == tag]}


@notes.tool
def create_note(book: dict, /, title: str, text: str, tag: str = "none") -> dict:
    """Write a new note.

    title: title of the note
    text: text of the note
    tag: tag to put on it
    """
    if title in book:
        raise Failure(f"a note titled {title!r} exists")
    book[title] = {"text": text, "tag": tag}
    return {"created": title}


@notes.tool
def append_to_note(book: dict, /, title: str, text: str) -> dict:
    """Add text at the end of a note.

    title: title of the note
    text: text to add
    """
    note = _note(book, title)
    note["text"] = f"{note['text']} {text}"
    return {"title": title, "text": note["text"]}


@notes.tool
def delete_note(book: dict, /, title: str) -> dict:
    """Delete a note.

    title: title of the note
    """
    _note(book, title)
    del book[title]
    return {"deleted": title}


@notes.task(
    "[What does my note '{title}' say?|What is in my note '{title}'?]",
    "[Read|Show] me the note '{title}'[.| please.]",
    vague=Vague("Read me my note.", "[Which note|What is its title]?", "[The one titled |]{title}"),
)
def read_note(book: dict, rng: Random) -> Plan:
    title = rng.choice(list(book))
    yield {"title": title}
    answer = yield call(get_note, title=title)
    return f"The note says: {answer['text']}"


@notes.task(
    "[Write|Make] a note '{title}' with the text '{text}'[.|, tagged {tag}.]",
    "[Please note|Note] '{text}' under the title '{title}'[.| with the tag {tag}.]",
)
def new_note(book: dict, rng: Random) -> Plan:
    title, text, tag = _new_title(book, rng), phrase(rng, 2, 4), rng.choice(TAGS)
    mentioned = yield {"title": title, "text": text, "tag": tag}
    tagged = {"tag": tag} if "tag" in mentioned else {}
    yield call(create_note, title=title, text=text, **tagged)
    return f"The note {title} was created."


@notes.task(
    "[What does the note tagged {tag} say?|Show me the note tagged {tag}.]",
    "[Read|Read out] my note with the tag {tag}.",
)
def read_tagged(book: dict, rng: Random) -> Plan:
    tag = rng.choice(list(book.values()))["tag"]
    yield {"tag": tag}
    found = yield call(get_notes_by_tag, tag=tag)
    answer = yield call(get_note, title=found["titles"][0])
    return f"The note says: {answer['text']}"


@notes.task(
    "[Add|Append] '{text}' to the note tagged {tag}, and tell me what it says [now|then].",
    "My note with the tag {tag} lacks '{text}'. Please add it.",
)
def append_tagged(book: dict, rng: Random) -> Plan:
    tag, text = rng.choice(list(book.values()))["tag"], phrase(rng, 1, 2)
    yield {"tag": tag, "text": text}
    found = yield call(get_notes_by_tag, tag=tag)
    answer = yield call(append_to_note, title=found["titles"][0], text=text)
    return f"The note now says: {answer['text']}"


@notes.task(
    "[Rename|Retitle] my note '{old}' to '{title}', keeping its text and its tag.",
    "Copy the text and the tag of the note '{old}' into a new note '{title}' and delete the old one.",
)
def rename(book: dict, rng: Random) -> Plan:
    old, title = rng.choice(list(book)), _new_title(book, rng)
    yield {"old": old, "title": title}
    note = yield call(get_note, title=old)
    label = yield call(get_note_tag, title=old)
    yield call(create_note, title=title, text=note["text"], tag=label["tag"])
    yield call(delete_note, title=old)
    return f"The note {old} is now called {title}."


def _new_title(book: dict[str, dict], rng: Random) -> str:
    return rng.choice([title for title in NOTE_TITLES if title not in book])


FOLDERS = listed("reports, photos, letters, music, projects, invoices, backups, logs")
ENDINGS = ("txt", "md", "csv", "log")


def open_folder(rng: Random, today: date) -> dict[str, str]:
    """Create the state of `files`: path -> text. It gives no access to the machine's files."""
    return {
        f"{folder}/{name}.{rng.choice(ENDINGS)}": phrase(rng, 2, 5)
        for folder, name in zip(rng.sample(FOLDERS, 4), rng.sample(WORDS, 4), strict=True)
    }


files = Domain("files", failure=prefixed, setup=open_folder)


def _path(path: str) -> str:
    """Return `path` without `.` and empty parts. Raise Failure if it leads out of the folder."""
    parts = [part for part in path.replace("\\", "/").split("/") if part not in ("", ".")]
    if path.startswith("/") or ".." in parts or not parts:
        raise Failure(f"Permission denied: {path!r}")
    return "/".join(parts)


def _existing(disk: dict[str, str], path: str) -> str:
    """Return `_path` of an existing file. Raise Failure if there is none."""
    if _path(path) not in disk:
        raise Failure(f"[Errno 2] No such file or directory: {path!r}")
    return _path(path)


@files.tool
def list_folder(disk: dict, /, folder: str) -> dict:
    """List the files in a folder.

    folder: name of the folder
    """
    found = [path for path in disk if path.startswith(_path(folder) + "/")]
    if not found:
        raise Failure(f"[Errno 2] No such file or directory: {folder!r}")
    return {"files": found}


@files.tool
def read_file(disk: dict, /, path: str) -> str:
    """Read a file.

    path: path such as letters/tax.txt
    """
    return disk[_existing(disk, path)]


@files.tool
def get_file_size(disk: dict, /, path: str, unit: str = "bytes") -> str:
    """Tell how large a file is.

    path: path such as letters/tax.txt
    unit: bytes or bits
    """
    if unit not in ("bytes", "bits"):
        raise Failure(f"unit {unit!r} is not supported")
    size = len(disk[_existing(disk, path)].encode())
    return f"{size if unit == 'bytes' else 8 * size} {unit}"


@files.tool
def write_file(disk: dict, /, path: str, content: str) -> str:
    """Write a file, replacing what was there.

    path: path such as letters/tax.txt
    content: text to write
    """
    disk[_path(path)] = content + ""
    return f"{path} written, 0 errors"


@files.tool
def copy_file(disk: dict, /, source: str, target: str, overwrite: bool = False) -> str:
    """Copy a file.

    source: path of the file
    target: path of the copy
    overwrite: true to replace an existing file
    """
    if _path(target) in disk and not overwrite:
        raise Failure(f"[Errno 17] File exists: {target!r}")
    disk[_path(target)] = disk[_existing(disk, source)]
    return f"{target} written"


@files.tool
def delete_file(disk: dict, /, path: str) -> str:
    """Delete a file.

    path: path such as letters/tax.txt
    """
    del disk[_existing(disk, path)]
    return f"{path} deleted"


@files.task(
    "[What is in|What does it say in] the file {path}?",
    "[Read|Show|Open] {path}[.| for me.]",
    vague=Vague("[Read|Open] the file for me.", "[Which file?|What is its path?]", "{path}"),
)
def show_file(disk: dict, rng: Random) -> Plan:
    path = rng.choice(list(disk))
    yield {"path": path}
    content = yield call(read_file, path=path)
    return f"The file says: {content}"


@files.task("How [large|big] is {path}[?| in {unit}?]", "[Tell me|I need] the size of the file {path}[.| in {unit}.]")
def size_of_file(disk: dict, rng: Random) -> Plan:
    path = rng.choice(list(disk))
    mentioned = yield {"path": path, "unit": "bits"}
    chosen = {"unit": "bits"} if "unit" in mentioned else {}
    size = yield call(get_file_size, path=path, **chosen)
    return f"The size of the file is {size}."


@files.task(
    "There is one file in the folder {folder}. What does it say?",
    "[Look into|Open] the folder {folder} and read [the file|what is] in it.",
)
def read_only_file(disk: dict, rng: Random) -> Plan:
    folder = rng.choice(list(disk)).split("/")[0]
    yield {"folder": folder}
    found = yield call(list_folder, folder=folder)
    content = yield call(read_file, path=found["files"][0])
    return f"The file says: {content}"


@files.task(
    "Write '{content}' to {path} and copy that file to {target}.",
    "Create {path} with the text '{content}', then make a copy at {target}, and tell me the size of the copy.",
)
def write_and_copy(disk: dict, rng: Random) -> Plan:
    content, (first, second), (one, two) = phrase(rng, 2, 4), rng.sample(FOLDERS, 2), rng.sample(WORDS, 2)
    path, target = f"{first}/new-{one}.txt", f"{second}/new-{two}.txt"
    yield {"content": content, "path": path, "target": target}
    yield call(write_file, path=path, content=content)
    yield call(copy_file, source=path, target=target)
    size = yield call(get_file_size, path=target)
    return f"{path} was written and copied to {target}, which has {size}."


@files.task(
    "[Move|Rename] the only file in the folder {folder} to {target} and read it to me from there.",
    "Find the file in the folder {folder}, copy it to {target}, delete the first one, and read the copy.",
)
def move_only_file(disk: dict, rng: Random) -> Plan:
    folder, target = rng.choice(list(disk)).split("/")[0], f"{rng.choice(FOLDERS)}/moved-{rng.choice(WORDS)}.txt"
    yield {"folder": folder, "target": target}
    found = yield call(list_folder, folder=folder)
    yield call(copy_file, source=found["files"][0], target=target)
    yield call(delete_file, path=found["files"][0])
    content = yield call(read_file, path=target)
    return f"The file is now {target} and says: {content}"
