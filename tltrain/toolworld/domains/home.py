"""Everyday domains: recipes and weather (a table of stations, generated for each conversation)."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

from tltrain.toolworld.answers import invalid_call, json_status
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call, tidy
from tltrain.toolworld.vocabulary import CITIES, ids, listed

DISHES = listed(
    "tomato soup, potato salad, lentil curry, apple pie, mushroom risotto, fish stew, pancakes, carrot cake, "
    "onion tart, bean chili, spinach lasagna, rice pudding"
)
INGREDIENTS = listed("flour, sugar, butter, milk, rice, tomato, onion, carrot, cheese, cream, potato, mushroom")


def open_kitchen(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `recipes`: dish -> minutes and grams of each ingredient. Each dish has a unique one."""
    first = rng.sample(INGREDIENTS, 5)
    rest = [other for other in INGREDIENTS if other not in first]
    return {
        dish: {
            "minutes": rng.randint(3, 24) * 5,
            "ingredients": {main: rng.randint(2, 30) * 10, rng.choice(rest): rng.randint(2, 30) * 10},
        }
        for dish, main in zip(rng.sample(DISHES, 5), first, strict=True)
    }


recipes = Domain("recipes", failure=invalid_call, setup=open_kitchen)


def _dish(book: dict[str, dict], dish: str) -> dict:
    if dish not in book:
        raise Failure(f"no recipe for {dish!r}")
    return book[dish]


@recipes.tool
def findRecipesByIngredient(book: dict, /, ingredient: str, maxMinutes: int | None = None) -> dict:
    """List the dishes made with an ingredient.

    ingredient: ingredient such as rice
    maxMinutes: longest time they may take
    """
    found = [dish for dish, recipe in book.items() if ingredient in recipe["ingredients"]]
    return {"dishes": [dish for dish in found if maxMinutes is None or book[dish]["minutes"] <= maxMinutes]}


@recipes.tool
def getRecipeTime(book: dict, /, dish: str) -> dict:
    """Tell how long a dish takes.

    dish: name of the dish
    """
    return {"dish": dish, "minutes": _dish(book, dish)["minutes"]}


@recipes.tool
def getRecipeIngredients(book: dict, /, dish: str) -> dict:
    """List the ingredients of a dish in grams.

    dish: name of the dish
    """
    return {"dish": dish, "ingredients": _dish(book, dish)["ingredients"]}


@recipes.tool
def scaleIngredients(ingredients: dict[str, float], factor: float) -> dict:
    """Multiply amounts of ingredients.

    ingredients: grams by ingredient
    factor: number to multiply by
    """
    if factor <= 0:
        raise Failure("factor must be positive")
    return {"ingredients": {name: tidy(grams * factor) for name, grams in ingredients.items()}}


@recipes.tool
def setRecipeTime(book: dict, /, dish: str, minutes: int) -> dict:
    """Correct how long a dish takes.

    dish: name of the dish
    minutes: time it takes
    """
    _dish(book, dish)["minutes"] = minutes + 0
    return {"dish": dish, "minutes": minutes, "errors": []}


@recipes.task(
    "How long does [it take to make {dish}|{dish} take]?",
    "I want to cook {dish}. How many minutes [do I need|will it take]?",
    vague=Vague("How long will my dish take?", "[Which dish|What are you cooking]?", "{dish}"),
)
def time_of_dish(book: dict, rng: Random) -> Plan:
    dish = rng.choice(list(book))
    yield {"dish": dish}
    answer = yield call(getRecipeTime, dish=dish)
    return f"{dish} takes {answer['minutes']} minutes."


@recipes.task(
    "What can I [cook|make] with {ingredient}[?| in at most {minutes} minutes?]",
    "[Find|List] dishes with {ingredient}[.| that take no more than {minutes} minutes.]",
)
def dishes_with(book: dict, rng: Random) -> Plan:
    recipe = rng.choice(list(book.values()))
    ingredient, minutes = next(iter(recipe["ingredients"])), recipe["minutes"]
    mentioned = yield {"ingredient": ingredient, "minutes": minutes}
    limit = {"maxMinutes": minutes} if "minutes" in mentioned else {}
    answer = yield call(findRecipesByIngredient, ingredient=ingredient, **limit)
    return f"You can make {' or '.join(answer['dishes'])}."


@recipes.task(
    "The {dish} really takes {minutes} minutes. [Correct the recipe.|Please change that.]",
    "Set the time for {dish} to {minutes} minutes.",
)
def correct_time(book: dict, rng: Random) -> Plan:
    dish, minutes = rng.choice(list(book)), rng.randint(2, 100)
    yield {"dish": dish, "minutes": minutes}
    yield call(setRecipeTime, dish=dish, minutes=minutes)
    return f"{dish} now takes {minutes} minutes."


@recipes.task(
    "I have [some|a lot of] {ingredient}. What can I make with it, and how long does that take?",
    "Find a dish with {ingredient} and tell me its [time|cooking time].",
)
def time_by_ingredient(book: dict, rng: Random) -> Plan:
    ingredient = next(iter(rng.choice(list(book.values()))["ingredients"]))
    yield {"ingredient": ingredient}
    found = yield call(findRecipesByIngredient, ingredient=ingredient)
    answer = yield call(getRecipeTime, dish=found["dishes"][0])
    return f"You can make {answer['dish']}, which takes {answer['minutes']} minutes."


@recipes.task(
    "[How much of everything do I need|What do I need] for {factor} times the {dish}?",
    "Multiply the ingredients of {dish} by {factor}.",
)
def scaled(book: dict, rng: Random) -> Plan:
    dish, factor = rng.choice(list(book)), rng.choice((2, 3, 4, 0.5, 1.5))
    yield {"dish": dish, "factor": factor}
    recipe = yield call(getRecipeIngredients, dish=dish)
    answer = yield call(scaleIngredients, ingredients=recipe["ingredients"], factor=factor)
    amounts = " and ".join(f"{grams} g {name}" for name, grams in answer["ingredients"].items())
    return f"You need {amounts}."


@recipes.task(
    "Find a dish with {ingredient}, and tell me what {factor} times its ingredients are.",
    "I want to use {ingredient}. Pick the first dish with it and multiply its ingredients by {factor}.",
)
def scaled_by_ingredient(book: dict, rng: Random) -> Plan:
    ingredient, factor = next(iter(rng.choice(list(book.values()))["ingredients"])), rng.choice((2, 3, 4, 0.5))
    yield {"ingredient": ingredient, "factor": factor}
    found = yield call(findRecipesByIngredient, ingredient=ingredient)
    recipe = yield call(getRecipeIngredients, dish=found["dishes"][0])
    answer = yield call(scaleIngredients, ingredients=recipe["ingredients"], factor=factor)
    amounts = " and ".join(f"{grams} g {name}" for name, grams in answer["ingredients"].items())
    return f"For {recipe['dish']} you need {amounts}."


SKIES = listed("sun, clouds, light rain, heavy rain, snow, fog, wind")


def open_stations(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `weather`: station id -> city, measurements of today and a forecast by date."""
    days = [(today + timedelta(after)).isoformat() for after in range(1, 6)]
    return {
        key: {
            "city": city,
            "temperature": rng.randint(-8, 36),
            "wind": rng.randint(2, 70),
            "forecast": {day: rng.choice(SKIES) for day in days},
        }
        for key, city in zip(ids(rng, "WS", 5), rng.sample(CITIES, 5), strict=True)
    }


weather = Domain("weather", failure=json_status, setup=open_stations)


def _station(stations: dict[str, dict], key: str) -> dict:
    if key not in stations:
        raise Failure(f"station {key} not found")
    return stations[key]


@weather.tool
def get_station_by_city(stations: dict, /, city: str) -> dict:
    """Find the weather station of a city.

    city: name of the city
    """
    for key, station in stations.items():
        if station["city"] == city:
            return {"status": 200, "station_id": key}
    raise Failure(f"no station in {city}")


@weather.tool
def get_station_temperature(stations: dict, /, station_id: str, unit: str = "C") -> dict:
    """Tell the temperature at a station.

    station_id: id such as WS-1234
    unit: C or F
    """
    if unit not in ("C", "F"):
        raise Failure(f"unit {unit} is not supported")
    celsius = _station(stations, station_id)["temperature"]
    return {"status": 200, "temperature": celsius if unit == "C" else tidy(celsius * 1.8 + 32), "unit": unit}


@weather.tool
def get_station_wind(stations: dict, /, station_id: str) -> dict:
    """Tell the wind speed at a station.

    station_id: id such as WS-1234
    """
    return {"status": 200, "wind": _station(stations, station_id)["wind"], "unit": "km/h", "sensor_errors": 0}


@weather.tool
def get_station_forecast(stations: dict, /, station_id: str, date: str) -> dict:
    """Tell the forecast at a station for a day.

    station_id: id such as WS-1234
    date: day such as 2025-03-31
    """
    forecast = _station(stations, station_id)["forecast"]
    if date not in forecast:
        raise Failure(f"no forecast for {date}")
    return {"status": 200, "date": date, "forecast": forecast[date]}


@weather.task(
    "[How warm is it|What is the temperature] at station {station}[?| in {unit}?]",
    "[Read|Tell me] the temperature at the weather station {station}[.| in {unit}.]",
)
def temperature_at_station(stations: dict, rng: Random) -> Plan:
    station = rng.choice(list(stations))
    mentioned = yield {"station": station, "unit": "F"}
    scale = {"unit": "F"} if "unit" in mentioned else {}
    answer = yield call(get_station_temperature, station_id=station, **scale)
    return f"It is {answer['temperature']} {answer['unit']} at station {station}."


@weather.task(
    "What will the weather be at station {station} on {day}?",
    "[I need|Give me] the forecast of station {station} for {day}.",
    vague=Vague("What is the forecast of station {station}?", "For which date?", "[For |On |]{day}"),
)
def forecast_at_station(stations: dict, rng: Random) -> Plan:
    station = rng.choice(list(stations))
    day = rng.choice(list(stations[station]["forecast"]))
    yield {"station": station, "day": day}
    answer = yield call(get_station_forecast, station_id=station, date=day)
    return f"The forecast for {day} is {answer['forecast']}."


@weather.task(
    "How [strong is the wind|windy is it] in {city}?",
    "[I want to sail in {city}.|I am going kite flying in {city}.] What is the wind speed there?",
)
def wind_in_city(stations: dict, rng: Random) -> Plan:
    city = rng.choice(list(stations.values()))["city"]
    yield {"city": city}
    found = yield call(get_station_by_city, city=city)
    answer = yield call(get_station_wind, station_id=found["station_id"])
    return f"The wind in {city} blows at {answer['wind']} km/h."


@weather.task(
    "How warm is it in {city} now, and what is the forecast for {day}?",
    "[Tell me|I need] the temperature in {city} and the forecast there for {day}.",
)
def now_and_then(stations: dict, rng: Random) -> Plan:
    station = rng.choice(list(stations.values()))
    city, day = station["city"], rng.choice(list(station["forecast"]))
    yield {"city": city, "day": day}
    found = yield call(get_station_by_city, city=city)
    warm = yield call(get_station_temperature, station_id=found["station_id"])
    answer = yield call(get_station_forecast, station_id=found["station_id"], date=day)
    return f"It is {warm['temperature']} C in {city}, and the forecast for {day} is {answer['forecast']}."


@weather.task(
    "[Compare|Tell me] the temperatures in {one} and {two}.",
    "How warm is it in {one}, and how warm in {two}?",
)
def two_cities(stations: dict, rng: Random) -> Plan:
    one, two = (station["city"] for station in rng.sample(list(stations.values()), 2))
    yield {"one": one, "two": two}
    first = yield call(get_station_by_city, city=one)
    warm = yield call(get_station_temperature, station_id=first["station_id"])
    second = yield call(get_station_by_city, city=two)
    other = yield call(get_station_temperature, station_id=second["station_id"])
    return f"It is {warm['temperature']} C in {one} and {other['temperature']} C in {two}."
