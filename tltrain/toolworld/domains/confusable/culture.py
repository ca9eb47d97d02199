"""A museum and a cinema: two confusable domains of the test split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import json_status, value_error
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
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call
from tltrain.toolworld.vocabulary import FIRST_NAMES, full_name, full_names, ids, listed

PAINTINGS = listed(
    "Boats at Dawn, The Glass Orchard, Woman with a Lamp, Three Herons, The Empty Market, Snow over the Mill, "
    "Red Stairs, The Fisher's Door, Garden in August, Two Brothers, The Quiet Error, A Table of Lemons"
)
ROOMS = tuple(str(number) for number in range(1, 31))
TECHNIQUES = ("oil on canvas", "watercolour", "tempera on wood", "pastel", "ink on paper")
SHELVES = tuple(f"S{number}" for number in range(20, 80))


def open_museum(rng: Random, today: date) -> Records:
    """Create the state of `museum`: painting id -> painting."""
    artists, owners, titles = full_names(rng, 6), full_names(rng, 6), rng.sample(PAINTINGS, 6)
    return {
        key: {
            "title": titles[at],
            "artist": rng.choice(artists),
            "owner": owners[at],
            "year": rng.randint(1610, 1985),
            "technique": rng.choice(TECHNIQUES),
            "room": rng.choice(ROOMS),
            "insurance": rng.randint(20, 900) * 1000,
            "height": rng.randint(20, 280),
            "shelf": "none",
        }
        for at, key in enumerate(ids(rng, "PT", 6))
    }


museum = Domain("museum", failure=json_status, setup=open_museum, confusable=True)


@museum.tool
def findPaintingByTitle(collection: Records, /, title: str) -> dict:
    """Find the id of a painting by its title.

    title: title of the painting
    """
    return {"painting": key_with(collection, title=title)}


@museum.tool
def findPaintingsByArtist(collection: Records, /, artist: str) -> dict:
    """List the ids of a painter's paintings.

    artist: first and last name
    """
    return {"paintings": keys_with(collection, artist=artist)}


@museum.tool
def findPaintingsInRoom(collection: Records, /, room: str) -> dict:
    """List the ids of the paintings that hang in a room.

    room: number of the room
    """
    return {"paintings": keys_with(collection, room=room)}


@museum.tool
def findPaintingRoom(collection: Records, /, painting: str) -> dict:
    """Tell the room in which a painting hangs.

    painting: id such as PT-1234
    """
    return {"room": record(collection, painting)["room"]}


@museum.tool
def find_painting_year(collection: Records, /, painting: str) -> dict:
    """Tell the year in which a painting was made.

    painting: id such as PT-1234
    """
    return {"year": record(collection, painting)["year"]}


@museum.tool
def find_painting_technique(collection: Records, /, painting: str) -> dict:
    """Tell the technique of a painting.

    painting: id such as PT-1234
    """
    return {"technique": record(collection, painting)["technique"]}


@museum.tool
def find_painting_owner(collection: Records, /, painting: str) -> dict:
    """Tell who owns a painting.

    painting: id such as PT-1234
    """
    return {"owner": record(collection, painting)["owner"]}


@museum.tool
def find_painting_height(collection: Records, /, painting: str, unit: str = "cm") -> dict:
    """Tell the height of a painting.

    painting: id such as PT-1234
    unit: cm or mm, cm if not given
    """
    return {"height": record(collection, painting)["height"] * (10 if unit == "mm" else 1)}


@museum.tool
def movePaintingToRoom(collection: Records, /, painting: str, room: str) -> dict:
    """Hang a painting in another room.

    painting: id such as PT-1234
    room: number of the room
    """
    return {"moved": painting, **change(collection, painting, room=room)}


@museum.tool
def movePaintingToStorage(collection: Records, /, painting: str, shelf: str) -> dict:
    """Put a painting into storage.

    painting: id such as PT-1234
    shelf: shelf in the storage
    """
    return {"moved": painting, **change(collection, painting, shelf=shelf)}


museum.lookup(
    findPaintingByTitle,
    "[What is|Tell me] the id of the painting '{title}'[?|.]",
    "I am looking for '{title}'. [Under which id is it listed?|I need its id.]",
    "Find '{title}' in the collection.",
    draw=fields_of("title"),
    answer="The id of '{title}' is {painting}.",
)
museum.lookup(
    findPaintingsByArtist,
    "[Which|What] paintings did {artist} paint?",
    "I [love|write a paper about] {artist}. [List|Show me] the paintings that you have.",
    "[Give me|I need] the ids of everything that {artist} painted.",
    draw=fields_of("artist"),
    answer="The paintings of {artist} are {paintings}.",
    vague=Vague("List the paintings of the artist I like most.", "Which artist is it?", "[It is |]{artist}"),
)
museum.lookup(
    findPaintingsInRoom,
    "[Which|What] paintings hang in room {room}?",
    "I am standing in room {room}. [List|Show me] the paintings here.",
    "[Give me|I need] the ids of all paintings in room {room}.",
    draw=fields_of("room"),
    answer="In room {room} hang {paintings}.",
)
museum.lookup(
    findPaintingRoom,
    "[In which room is|In what room does one see] the painting {painting}?",
    "I [want to see|am looking for] {painting}. [Which room do I go to?|Where does it hang?]",
    "[Tell me|I need] the room of {painting}.",
    draw=a_key("painting"),
    answer="The painting {painting} hangs in room {room}.",
)
museum.lookup(
    find_painting_year,
    "[When|In which year] was {painting} painted?",
    "I am dating {painting}. [From what year is it?|What is its year?]",
    "[Tell me|I need] the year of the painting {painting}.",
    draw=a_key("painting"),
    answer="The painting {painting} is from {year}.",
)
museum.lookup(
    find_painting_technique,
    "[In|With] what technique was {painting} made?",
    "I restore {painting}. [Is it oil, or something else?|What technique did the painter use?]",
    "[Tell me|I need] the technique of {painting}.",
    draw=a_key("painting"),
    answer="The technique of {painting} is {technique}.",
)
museum.lookup(
    find_painting_owner,
    "[Who owns|To whom belongs] the painting {painting}?",
    "We would like to borrow {painting}. [Who is its owner?|Whom do we ask, that is, who owns it?]",
    "[Tell me|I need] the owner of {painting}.",
    draw=a_key("painting"),
    answer="{owner} owns the painting {painting}.",
)
museum.lookup(
    movePaintingToRoom,
    "[Hang|Put] {painting} in room {room}.",
    "{painting} gets a new place, room {room}. [Please move it.|Please see to it.]",
    draw=a_key_and("painting", room=ROOMS),
    answer="The painting {moved} is now in room {room}.",
)
museum.lookup(
    movePaintingToStorage,
    "[Put|Take] {painting} into storage, on the shelf {shelf}.",
    "{painting} is no longer on show. Store it on the shelf {shelf}.",
    draw=a_key_and("painting", shelf=SHELVES),
    answer="The painting {moved} lies on the shelf {shelf}.",
)


@museum.task(
    "How high is {painting}[?|, in {unit}?]",
    "I am building a frame for {painting}. [What height does it have|How high is it][?| in {unit}?]",
)
def height_of_painting(collection: Records, rng: Random) -> Plan:
    painting = rng.choice(list(collection))
    mentioned = yield {"painting": painting, "unit": "mm"}
    measure = {"unit": "mm"} if "unit" in mentioned else {}
    found = yield call(find_painting_height, painting=painting, **measure)
    return f"The painting {painting} is {found['height']} {measure.get('unit', 'cm')} high."


@museum.task(
    "In which year was '{title}' painted, and who owns it?",
    "[Find|Look up] '{title}' and tell me its year and its owner.",
)
def year_and_owner(collection: Records, rng: Random) -> Plan:
    title = rng.choice(list(collection.values()))["title"]
    yield {"title": title}
    found = yield call(findPaintingByTitle, title=title)
    year = yield call(find_painting_year, painting=found["painting"])
    owner = yield call(find_painting_owner, painting=found["painting"])
    return f"'{title}' is from {year['year']} and belongs to {owner['owner']}."


@museum.task(
    "[Find|Look up] the painting '{title}' and hang it in room {room}.",
    "'{title}' moves to room {room}. Find the painting and move it.",
)
def move_titled(collection: Records, rng: Random) -> Plan:
    painting = rng.choice(list(collection.values()))
    room = rng.choice([room for room in ROOMS if room != painting["room"]])
    yield {"title": painting["title"], "room": room}
    found = yield call(findPaintingByTitle, title=painting["title"])
    yield call(movePaintingToRoom, painting=found["painting"], room=room)
    return f"The painting {found['painting']} is now in room {room}."


FILMS = listed(
    "Harbour Lights, The Last Tram, Paper Moons, A Summer of Errors, Cold Coffee, The Beekeeper, Night over Delta, "
    "Seven Keys, The Long Way Up, Silver Thread, Room for Rain, No News from Elm Street"
)
SCREENS = ("1", "2", "3", "4")
GENRES = ("comedy", "thriller", "western", "documentary")


def open_cinema(rng: Random, today: date) -> Records:
    """Create the state of `cinema`: title of a film -> film."""
    directors, actors = full_names(rng, 6), full_names(rng, 12)
    return {
        title: {
            "director": directors[at],
            "actors": actors[2 * at : 2 * at + 2],
            "genre": rng.choice(GENRES),
            "screen": rng.choice(SCREENS),
            "starts": f"{rng.randint(14, 22)}:{rng.choice(('00', '10', '30', '45'))}",
            "length": rng.randint(72, 190),
            "age": rng.choice((6, 12, 16, 18)),
            "price": rng.randint(70, 160) / 10,
            "language": rng.choice(("Danish", "Korean", "Italian", "Hindi", "Polish")),
            "booked": [],
        }
        for at, title in enumerate(rng.sample(FILMS, 6))
    }


cinema = Domain("cinema", failure=value_error, setup=open_cinema, confusable=True)


@cinema.tool
def listFilmsOfDirector(films: Records, /, director: str) -> dict:
    """List the films of a director.

    director: first and last name
    """
    return {"films": keys_with(films, director=director)}


@cinema.tool
def listFilmsOfGenre(films: Records, /, genre: str) -> dict:
    """List the films of a genre.

    genre: genre such as comedy
    """
    return {"films": keys_with(films, genre=genre)}


@cinema.tool
def listFilmsOnScreen(films: Records, /, screen: str) -> dict:
    """List the films that are shown on a screen.

    screen: number of the screen
    """
    return {"films": keys_with(films, screen=screen)}


@cinema.tool
def listFilmActors(films: Records, /, film: str) -> dict:
    """List the actors of a film.

    film: title of the film
    """
    return {"actors": record(films, film)["actors"]}


@cinema.tool
def show_film_screen(films: Records, /, film: str) -> dict:
    """Tell on which screen a film is shown.

    film: title of the film
    """
    return {"screen": record(films, film)["screen"]}


@cinema.tool
def show_film_start(films: Records, /, film: str) -> dict:
    """Tell at what time a film starts.

    film: title of the film
    """
    return {"starts": record(films, film)["starts"]}


@cinema.tool
def show_film_length(films: Records, /, film: str) -> dict:
    """Tell how many minutes a film lasts.

    film: title of the film
    """
    return {"length": record(films, film)["length"], "errors": "none"}


@cinema.tool
def showFilmPrice(films: Records, /, film: str, seats: int = 1) -> dict:
    """Tell what seats for a film cost.

    film: title of the film
    seats: number of seats, 1 if not given
    """
    if seats < 1:
        raise Failure(f"seats must be at least 1, got {seats}")
    return {"price": round(record(films, film)["price"] * seats, 2)}


@cinema.tool
def showFilmLanguage(films: Records, /, film: str) -> dict:
    """Tell the original language of a film.

    film: title of the film
    """
    return {"language": record(films, film)["language"]}


@cinema.tool
def showFilmAgeLimit(films: Records, /, film: str) -> dict:
    """Tell from what age one may watch a film.

    film: title of the film
    """
    return {"age": record(films, film)["age"]}


@cinema.tool
def reserve_film_seat(films: Records, /, film: str, name: str) -> dict:
    """Reserve one seat for a film.

    film: title of the film
    name: first and last name
    """
    booked = record(films, film)["booked"]
    booked.append(name + "")
    return {"ticket": f"K{record(films, film)['length']}-{len(booked)}"}


@cinema.tool
def reserve_film_box(films: Records, /, film: str, name: str, guests: int) -> dict:
    """Reserve a box for several guests of a film.

    film: title of the film
    name: first and last name of the host
    guests: number of guests
    """
    booked = record(films, film)["booked"]
    booked.append(f"{name} with {guests + 0}")
    return {"box": f"B{record(films, film)['length']}-{len(booked)}"}


cinema.lookup(
    listFilmsOfDirector,
    "[Which|What] films of {director} are you showing?",
    "{director} is my favourite director. [What is on?|Which of the films do you show?]",
    "[List|Show me] everything directed by {director}.",
    draw=fields_of("director"),
    answer="By {director} there is {films}.",
)
cinema.lookup(
    listFilmsOfGenre,
    "[Which|What] films of the genre {genre} are on?",
    "I am in the mood for a {genre}. [What is on?|What do you show?]",
    "[List|Show me] every {genre} in the programme.",
    draw=fields_of("genre"),
    answer="Of the genre {genre} there is {films}.",
    vague=Vague("List the films of my favourite genre.", "Which genre is it?", "[It is |]{genre}"),
)
cinema.lookup(
    listFilmsOnScreen,
    "[Which|What] films are shown on screen {screen}?",
    "I like screen {screen} best. [What is on there?|Which films run on it?]",
    "[List|Show me] the programme of screen {screen}.",
    draw=fields_of("screen"),
    answer="On screen {screen} you can see {films}.",
)
cinema.lookup(
    listFilmActors,
    "[Who acts|Which actors are] in '{film}'?",
    "I know a face in '{film}'. [List the cast.|Who plays in it?]",
    "[Tell me|I need] the actors of '{film}'.",
    draw=a_key("film"),
    answer="In '{film}' you see {actors}.",
)
cinema.lookup(
    show_film_screen,
    "[On which screen is|Which screen shows] '{film}'?",
    "I have a ticket for '{film}'. [Which screen do I go to?|On what screen is it?]",
    "[Tell me|I need] the screen of '{film}'.",
    draw=a_key("film"),
    answer="'{film}' is shown on screen {screen}.",
)
cinema.lookup(
    show_film_start,
    "[When|At what time] does '{film}' start?",
    "We want to see '{film}'. [When do we have to be there?|When does it begin?]",
    "[Tell me|I need] the time at which '{film}' begins.",
    draw=a_key("film"),
    answer="'{film}' starts at {starts}.",
)
cinema.lookup(
    show_film_length,
    "[How long is|How many minutes does one sit in] '{film}'?",
    "My bus leaves soon after '{film}'. [How many minutes does it last?|How long does it take?]",
    "[Tell me|I need] the running time of '{film}'.",
    draw=a_key("film"),
    answer="'{film}' lasts {length} minutes.",
)
cinema.lookup(
    showFilmLanguage,
    "[In what language|In which language] was '{film}' shot?",
    "I would like to hear the original of '{film}'. [What language is it?|Which language do they speak?]",
    "[Tell me|I need] the original language of '{film}'.",
    draw=a_key("film"),
    answer="The original language of '{film}' is {language}.",
)
cinema.lookup(
    showFilmAgeLimit,
    "[How old must one be|What is the age limit] for '{film}'?",
    "Can my children watch '{film}'? [From what age is it allowed?|What is its age limit?]",
    "[Tell me|I need] the age limit of '{film}'.",
    draw=a_key("film"),
    answer="'{film}' is allowed from the age of {age}.",
)
cinema.lookup(
    reserve_film_seat,
    "[Reserve|Book] one seat in '{film}' for {name}.",
    "{name} wants to see '{film}' alone. Please reserve the seat.",
    draw=a_key_and("film", name=tuple(f"{first} Stone" for first in FIRST_NAMES)),
    answer="The ticket of {name} for '{film}' is {ticket}.",
)
cinema.lookup(
    reserve_film_box,
    "[Reserve|Book] a box in '{film}' for {guests} guests of {name}.",
    "{name} invites {guests} guests to '{film}'. Please reserve a box.",
    draw=a_key_and("film", name=tuple(f"{first} Stone" for first in FIRST_NAMES), guests=tuple(range(2, 9))),
    answer="The box of {name} for '{film}' is {box}.",
)


@cinema.task(
    "What [does a seat|do {seats} seats] in '{film}' cost?",
    "We are going to see '{film}'. [How much is one seat?|What is the price of {seats} seats?]",
)
def price_of_film(films: Records, rng: Random) -> Plan:
    film, seats = rng.choice(list(films)), rng.randint(2, 7)
    mentioned = yield {"film": film, "seats": seats}
    several = {"seats": seats} if "seats" in mentioned else {}
    found = yield call(showFilmPrice, film=film, **several)
    return f"The price for '{film}' is {found['price']}."


@cinema.task(
    "I want to see the film by {director}. [Which one is it, and when does it start?|Find it and its start.]",
    "[Find|Look up] the film of {director}, and the time at which it starts.",
)
def start_by_director(films: Records, rng: Random) -> Plan:
    director = rng.choice(list(films.values()))["director"]
    yield {"director": director}
    found = yield call(listFilmsOfDirector, director=director)
    start = yield call(show_film_start, film=found["films"][0])
    return f"'{found['films'][0]}' starts at {start['starts']}."


@cinema.task(
    "How long is '{film}', and what is its age limit? Then reserve one seat for {name}.",
    "Tell me the length and the age limit of '{film}', and reserve one seat for {name}.",
)
def check_and_reserve(films: Records, rng: Random) -> Plan:
    film, name = rng.choice(list(films)), full_name(rng)
    yield {"film": film, "name": name}
    length = yield call(show_film_length, film=film)
    limit = yield call(showFilmAgeLimit, film=film)
    seat = yield call(reserve_film_seat, film=film, name=name)
    return f"It lasts {length['length']} minutes, from the age of {limit['age']}. The ticket is {seat['ticket']}."
