"""A collection of songs: a confusable domain of the training split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import traceback
from tltrain.toolworld.domains.confusable.records import (
    Records,
    a_key,
    a_key_and,
    change,
    fields_of,
    key_with,
    keys_with,
    record,
)
from tltrain.toolworld.registry import Domain, Plan, Vague, call
from tltrain.toolworld.vocabulary import full_names, ids, listed

SONGS = listed(
    "Lantern Street, Slow Rain, Out of Tune, Copper Moon, Half a Mile, The Error Song, Sugar and Salt, Northbound, "
    "Window Seat, Old Radio, Tall Grass, Two Trains"
)
MOODS = ("calm", "sad", "cheerful", "angry")
PLAYLISTS = ("morning run", "dinner", "road trip", "homework", "party")


def open_songs(rng: Random, today: date) -> Records:
    """Create the state of `songs`: song id -> song."""
    singers, albums = full_names(rng, 6), rng.sample(("Blue", "Home", "Paper", "Tides", "Ember", "Nine"), 6)
    return {
        key: {
            "title": title,
            "singer": singers[at],
            "album": albums[at],
            "mood": rng.choice(MOODS),
            "playlist": rng.choice(PLAYLISTS),
            "tempo": rng.randint(60, 180),
            "seconds": rng.randint(95, 420),
            "label": rng.choice(("Fern", "Pulse", "Oak", "Wave")),
            "rating": rng.randint(1, 5),
        }
        for at, (key, title) in enumerate(zip(ids(rng, "SO", 6), rng.sample(SONGS, 6), strict=True))
    }


songs = Domain("songs", failure=traceback, setup=open_songs, confusable=True)


@songs.tool
def fetchSongByTitle(library: Records, /, title: str) -> dict:
    """Find the id of a song by its title.

    title: title of the song
    """
    return {"song": key_with(library, title=title)}


@songs.tool
def fetchSongBySinger(library: Records, /, singer: str) -> dict:
    """Find the id of the song that somebody sings.

    singer: first and last name
    """
    return {"song": key_with(library, singer=singer)}


@songs.tool
def fetchSongsByMood(library: Records, /, mood: str) -> dict:
    """List the ids of the songs of a mood.

    mood: mood such as calm
    """
    return {"songs": keys_with(library, mood=mood)}


@songs.tool
def fetchSongsOfPlaylist(library: Records, /, playlist: str) -> dict:
    """List the ids of the songs in a playlist.

    playlist: name of the playlist
    """
    return {"songs": keys_with(library, playlist=playlist)}


@songs.tool
def fetch_song_singer(library: Records, /, song: str) -> dict:
    """Tell who sings a song.

    song: id such as SO-1234
    """
    return {"singer": record(library, song)["singer"]}


@songs.tool
def fetch_song_album(library: Records, /, song: str) -> dict:
    """Tell the album of a song.

    song: id such as SO-1234
    """
    return {"album": record(library, song)["album"]}


@songs.tool
def fetch_song_tempo(library: Records, /, song: str) -> dict:
    """Tell the tempo of a song in beats per minute.

    song: id such as SO-1234
    """
    return {"tempo": record(library, song)["tempo"]}


@songs.tool
def fetch_song_length(library: Records, /, song: str, unit: str = "s") -> dict:
    """Tell how long a song is.

    song: id such as SO-1234
    unit: s or ms, s if not given
    """
    return {"length": record(library, song)["seconds"] * (1000 if unit == "ms" else 1)}


@songs.tool
def setSongRating(library: Records, /, song: str, rating: int) -> dict:
    """Rate a song.

    song: id such as SO-1234
    rating: number of stars, from 1 to 5
    """
    return {"set": song, **change(library, song, rating=rating)}


@songs.tool
def setSongPlaylist(library: Records, /, song: str, playlist: str) -> dict:
    """Put a song into another playlist.

    song: id such as SO-1234
    playlist: name of the playlist
    """
    return {"set": song, **change(library, song, playlist=playlist)}


songs.lookup(
    fetchSongByTitle,
    "[What is|Tell me] the id of the song '{title}'[?|.]",
    "'{title}' is stuck in my head. [Under which id do you have it?|Find its id.]",
    "Look for the song '{title}'.",
    draw=fields_of("title"),
    answer="The id of '{title}' is {song}.",
)
songs.lookup(
    fetchSongBySinger,
    "[Which song is sung by|What does] {singer}[?| sing?]",
    "{singer} has a wonderful voice. [Find the song.|Which song do you have?]",
    draw=fields_of("singer"),
    answer="{singer} sings {song}.",
)
songs.lookup(
    fetchSongsByMood,
    "[Which|What] songs are {mood}?",
    "I feel {mood} today. [List|Show me] songs of that mood.",
    "[Give me|I need] the ids of all {mood} songs.",
    draw=fields_of("mood"),
    answer="These songs are {mood}: {songs}.",
    vague=Vague("List songs that suit my mood.", "What is your mood?", "[I feel |]{mood}"),
)
songs.lookup(
    fetchSongsOfPlaylist,
    "[Which|What] songs are in the playlist '{playlist}'?",
    "I am going to play '{playlist}'. [List|Show me] the songs in it.",
    "[Give me|I need] the content of the playlist '{playlist}'.",
    draw=fields_of("playlist"),
    answer="The playlist '{playlist}' has {songs}.",
)
songs.lookup(
    fetch_song_singer,
    "[Who|Which singer] sings {song}?",
    "I like the voice in {song}. [Whose is it?|Who is the singer?]",
    draw=a_key("song"),
    answer="{singer} sings {song}.",
)
songs.lookup(
    fetch_song_album,
    "[On which album is|What is the album of] {song}?",
    "I want to buy the record with {song}. [Which album is it?|What is its album?]",
    draw=a_key("song"),
    answer="{song} is on the album {album}.",
)
songs.lookup(
    fetch_song_tempo,
    "[What is the tempo of|How fast is] {song}?",
    "Can I run to {song}? [What is its tempo?|How many beats per minute does it have?]",
    draw=a_key("song"),
    answer="The tempo of {song} is {tempo}.",
)
songs.lookup(
    setSongRating,
    "[Give|Rate] {song} [with |]{rating} stars.",
    "For me, {song} is worth {rating} stars. Please rate it.",
    draw=a_key_and("song", rating=(1, 2, 3, 4, 5)),
    answer="{set} now has {rating} stars.",
)
songs.lookup(
    setSongPlaylist,
    "[Put|Move] {song} into the playlist '{playlist}'.",
    "{song} belongs into '{playlist}'. Please change its playlist.",
    draw=a_key_and("song", playlist=PLAYLISTS),
    answer="{set} is now in '{playlist}'.",
)


@songs.task(
    "How long is {song}[?|, in {unit}?]",
    "I [mix|cut] {song}. What is its length[?|, in {unit}?]",
)
def length_of_song(library: Records, rng: Random) -> Plan:
    song = rng.choice(list(library))
    mentioned = yield {"song": song, "unit": "ms"}
    measure = {"unit": "ms"} if "unit" in mentioned else {}
    found = yield call(fetch_song_length, song=song, **measure)
    return f"{song} is {found['length']} {measure.get('unit', 's')} long."


@songs.task(
    "[Find|Look for] '{title}' and tell me the singer and the album.",
    "Who sings '{title}', and on which album is it?",
)
def singer_and_album(library: Records, rng: Random) -> Plan:
    title = rng.choice(list(library.values()))["title"]
    yield {"title": title}
    found = yield call(fetchSongByTitle, title=title)
    singer = yield call(fetch_song_singer, song=found["song"])
    album = yield call(fetch_song_album, song=found["song"])
    return f"{singer['singer']} sings it on the album {album['album']}."


@songs.task(
    "[Find|Look for] the song by {singer} and put it into the playlist '{playlist}'.",
    "The song by {singer} should be in '{playlist}'. Find it and change the playlist.",
)
def playlist_by_singer(library: Records, rng: Random) -> Plan:
    song = rng.choice(list(library.values()))
    playlist = rng.choice([name for name in PLAYLISTS if name != song["playlist"]])
    yield {"singer": song["singer"], "playlist": playlist}
    found = yield call(fetchSongBySinger, singer=song["singer"])
    yield call(setSongPlaylist, song=found["song"], playlist=playlist)
    return f"{found['song']} is now in '{playlist}'."
