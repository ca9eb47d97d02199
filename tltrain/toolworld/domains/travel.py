"""Trains and places: two domains of the test split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import invalid_call, json_error
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call
from tltrain.toolworld.vocabulary import CITIES, full_name, ids


def open_railway(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `trains`: train id -> train; no two run between the same cities."""
    cities = rng.sample(CITIES, 10)
    return {
        key: {
            "from": cities[2 * at],
            "to": cities[2 * at + 1],
            "fare": rng.randint(9, 180),
            "delay": rng.randint(1, 90),
            "platform": rng.randint(1, 24),
            "seats": {},
        }
        for at, key in enumerate(ids(rng, "TR", 5))
    }


trains = Domain("trains", failure=invalid_call, setup=open_railway)


def _train(timetable: dict[str, dict], key: str) -> dict:
    if key not in timetable:
        raise Failure(f"train {key} does not run")
    return timetable[key]


@trains.tool
def searchTrainByCities(timetable: dict, /, origin: str, destination: str) -> dict:
    """Find a train between two cities.

    origin: city to start from
    destination: city to go to
    """
    for key, train in timetable.items():
        if (train["from"], train["to"]) == (origin, destination):
            return {"trainId": key}
    raise Failure(f"no train from {origin} to {destination}")


@trains.tool
def getTrainFare(timetable: dict, /, trainId: str, firstClass: bool = False) -> dict:
    """Tell what a ticket for a train costs.

    trainId: id such as TR-1234
    firstClass: true for first class
    """
    return {"trainId": trainId, "fare": _train(timetable, trainId)["fare"] * (2 if firstClass else 1)}


@trains.tool
def getTrainDelay(timetable: dict, /, trainId: str) -> dict:
    """Tell how late a train is.

    trainId: id such as TR-1234
    """
    return {"trainId": trainId, "delayMinutes": _train(timetable, trainId)["delay"], "signalErrors": 0}


@trains.tool
def getTrainPlatform(timetable: dict, /, trainId: str) -> dict:
    """Tell the platform a train leaves from.

    trainId: id such as TR-1234
    """
    return {"trainId": trainId, "platform": _train(timetable, trainId)["platform"]}


@trains.tool
def bookTrainSeat(timetable: dict, /, trainId: str, passenger: str, bicycle: bool = False) -> dict:
    """Book a seat in a train.

    trainId: id such as TR-1234
    passenger: first and last name
    bicycle: true to bring a bicycle
    """
    train = _train(timetable, trainId)
    seat = f"{len(train['seats']) + train['platform']}A"
    train["seats"][seat] = (passenger, bicycle)
    return {"trainId": trainId, "seat": seat}


@trains.task(
    "[How late|How delayed] is the train {train}?",
    "[I am waiting for|My sister is on] the train {train}. [What is its delay?|How late is it?]",
    vague=Vague("How late is my train?", "[Which train is it?|What is the id of the train?]", "[It is |]{train}"),
)
def delay(timetable: dict, rng: Random) -> Plan:
    train = rng.choice(list(timetable))
    yield {"train": train}
    answer = yield call(getTrainDelay, trainId=train)
    return f"The train {train} is {answer['delayMinutes']} minutes late."


@trains.task(
    "[Book|Reserve] a seat for {name} in the train {train}[.|, {with_bicycle}.]",
    "{name} takes the train {train}[.| {with_bicycle}.] Please book the seat.",
)
def booking(timetable: dict, rng: Random) -> Plan:
    train, name = rng.choice(list(timetable)), full_name(rng)
    mentioned = yield {"train": train, "name": name, "with_bicycle": "with a bicycle"}
    luggage = {"bicycle": True} if "with_bicycle" in mentioned else {}
    answer = yield call(bookTrainSeat, trainId=train, passenger=name, **luggage)
    return f"Seat {answer['seat']} in the train {train} is booked for {name}."


@trains.task(
    "What does [a|the] train from {origin} to {destination} cost[?| {in_first}?]",
    "I am going from {origin} to {destination}[.| {in_first}.] What is the fare?",
)
def fare(timetable: dict, rng: Random) -> Plan:
    train = rng.choice(list(timetable.values()))
    mentioned = yield {"origin": train["from"], "destination": train["to"], "in_first": "in first class"}
    found = yield call(searchTrainByCities, origin=train["from"], destination=train["to"])
    luxury = {"firstClass": True} if "in_first" in mentioned else {}
    answer = yield call(getTrainFare, trainId=found["trainId"], **luxury)
    return f"The fare is {answer['fare']}."


@trains.task(
    "From which platform does the train from {origin} to {destination} leave, and how late is it?",
    "[Find|Look up] the train from {origin} to {destination}. I need its platform and its delay.",
)
def platform_and_delay(timetable: dict, rng: Random) -> Plan:
    train = rng.choice(list(timetable.values()))
    yield {"origin": train["from"], "destination": train["to"]}
    found = yield call(searchTrainByCities, origin=train["from"], destination=train["to"])
    platform = yield call(getTrainPlatform, trainId=found["trainId"])
    answer = yield call(getTrainDelay, trainId=found["trainId"])
    return f"It leaves from platform {platform['platform']}, {answer['delayMinutes']} minutes late."


@trains.task(
    "Find a train from {origin} to {destination}, tell me the fare, book a seat for {name}, and give me the platform.",
    "{name} travels from {origin} to {destination}. What is the fare? Book a seat too, and tell me the platform.",
)
def whole_trip(timetable: dict, rng: Random) -> Plan:
    train, name = rng.choice(list(timetable.values())), full_name(rng)
    yield {"origin": train["from"], "destination": train["to"], "name": name}
    found = yield call(searchTrainByCities, origin=train["from"], destination=train["to"])
    price = yield call(getTrainFare, trainId=found["trainId"])
    seat = yield call(bookTrainSeat, trainId=found["trainId"], passenger=name)
    answer = yield call(getTrainPlatform, trainId=found["trainId"])
    return f"The fare is {price['fare']}, the seat {seat['seat']} and the platform {answer['platform']}."


PLACES = {  # country: (capital, people in the capital in thousands, people in millions, area in 1000 km2, language)
    "Norway": ("Oslo", 717, 5.5, 385, "Norwegian"),
    "Portugal": ("Lisbon", 545, 10.4, 92, "Portuguese"),
    "Peru": ("Lima", 10092, 34.4, 1285, "Spanish"),
    "Egypt": ("Cairo", 10107, 112.7, 1002, "Arabic"),
    "Kenya": ("Nairobi", 4397, 55.1, 580, "Swahili"),
    "Austria": ("Vienna", 1983, 9.1, 84, "German"),
    "Greece": ("Athens", 643, 10.4, 132, "Greek"),
    "Finland": ("Helsinki", 658, 5.6, 338, "Finnish"),
    "Vietnam": ("Hanoi", 8054, 98.9, 331, "Vietnamese"),
    "Ireland": ("Dublin", 592, 5.3, 70, "English"),
    "Iran": ("Tehran", 8694, 89.2, 1648, "Persian"),
    "Chile": ("Santiago", 6160, 19.6, 756, "Spanish"),
}

geography = Domain("geography", failure=json_error)


def _place(country: str) -> tuple:
    if country not in PLACES:
        raise Failure(f"no data for {country!r}")
    return PLACES[country]


@geography.tool
def get_capital_of_country(country: str) -> dict:
    """Tell the capital of a country.

    country: name of the country
    """
    return {"country": country, "capital": _place(country)[0]}


@geography.tool
def get_language_of_country(country: str) -> dict:
    """Tell the main language of a country.

    country: name of the country
    """
    return {"country": country, "language": _place(country)[4]}


@geography.tool
def get_area_of_country(country: str, unit: str = "km2") -> dict:
    """Tell the area of a country.

    country: name of the country
    unit: km2 or ha
    """
    if unit not in ("km2", "ha"):
        raise Failure(f"unit {unit!r} is not supported")
    return {"area": _place(country)[3] * (1_000 if unit == "km2" else 100_000), "unit": unit}


@geography.tool
def get_population_of_country(country: str) -> dict:
    """Tell how many people live in a country.

    country: name of the country
    """
    return {"population": round(_place(country)[2] * 1_000_000)}


@geography.tool
def get_population_of_city(city: str) -> dict:
    """Tell how many people live in a city.

    city: name of the city
    """
    for capital, thousands, *_ in PLACES.values():
        if capital == city:
            return {"population": thousands * 1000}
    raise Failure(f"no data for {city!r}")


@geography.tool
def compute_density(population: int, area: float) -> dict:
    """Compute how many people live on one unit of area.

    population: number of people
    area: area they live on
    """
    return {"density": round(population / area)}


@geography.task(
    "[What is the area of|How large is] {country}[?| in {unit}?]",
    "[Tell me|I need] the area of {country}[.| in {unit}.]",
    vague=Vague("How large is the country I am visiting?", "Which country is it?", "[It is |]{country}[.|]"),
)
def area(_: None, rng: Random) -> Plan:
    country = rng.choice(list(PLACES))
    mentioned = yield {"country": country, "unit": "ha"}
    measure = {"unit": "ha"} if "unit" in mentioned else {}
    answer = yield call(get_area_of_country, country=country, **measure)
    return f"The area of {country} is {answer['area']} {answer['unit']}."


@geography.task(
    "[Which|What] language do [people|they] speak in {country}?",
    "I am moving to {country}. Which language should I learn?",
)
def language(_: None, rng: Random) -> Plan:
    country = rng.choice(list(PLACES))
    yield {"country": country}
    answer = yield call(get_language_of_country, country=country)
    return f"The language of {country} is {answer['language']}."


@geography.task(
    "How many people live in the capital of {country}?",
    "[Find|Look up] the capital of {country} and tell me [its population|how many people live there].",
)
def people_in_capital(_: None, rng: Random) -> Plan:
    country = rng.choice(list(PLACES))
    yield {"country": country}
    found = yield call(get_capital_of_country, country=country)
    answer = yield call(get_population_of_city, city=found["capital"])
    return f"{answer['population']} people live in {found['capital']}."


@geography.task(
    "How densely is {country} populated? Take its population, then its area, and compute it.",
    "[I need|Compute] the population density of {country}, from its population and its area.",
)
def density(_: None, rng: Random) -> Plan:
    country = rng.choice(list(PLACES))
    yield {"country": country}
    people = yield call(get_population_of_country, country=country)
    land = yield call(get_area_of_country, country=country)
    answer = yield call(compute_density, population=people["population"], area=land["area"])
    return f"{answer['density']} people live on one km2 of {country}."
