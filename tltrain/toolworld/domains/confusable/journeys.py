"""Flights and parcels: two confusable domains of the test split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import json_error, prefixed
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
from tltrain.toolworld.vocabulary import CITIES, FIRST_NAMES, LAST_NAMES, full_name, full_names, ids

AIRLINES = ("Blue Wing", "Aurora Air", "Polar Jet", "Sunline")
WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday")
GATES = tuple(f"{hall}{number}" for hall in "ABC" for number in range(1, 20))
MEALS = ("vegan", "kosher", "fish", "pasta", "no nuts")


def open_airport(rng: Random, today: date) -> Records:
    """Create the state of `flights`: flight number -> flight; no two fly between the same cities."""
    cities = rng.sample(CITIES, 12)
    return {
        key: {
            "origin": cities[2 * at],
            "destination": cities[2 * at + 1],
            "airline": rng.choice(AIRLINES),
            "weekday": rng.choice(WEEKDAYS),
            "gate": rng.choice(GATES),
            "closes": f"{rng.randint(6, 21):02}:{rng.choice(('05', '20', '40', '55'))}",
            "late": rng.randint(2, 95),
            "luggage": rng.randint(15, 40),
            "meals": {},
            "seats": {},
        }
        for at, key in enumerate(ids(rng, "FL", 6))
    }


flights = Domain("flights", failure=prefixed, setup=open_airport, confusable=True)


@flights.tool
def getFlightByCities(airport: Records, /, origin: str, destination: str) -> dict:
    """Tell the number of the flight between two cities.

    origin: city of departure
    destination: city of arrival
    """
    return {"flight": key_with(airport, origin=origin, destination=destination)}


@flights.tool
def getFlightByNumber(airport: Records, /, flight: str) -> dict:
    """Tell from where to where a flight goes.

    flight: number such as FL-1234
    """
    found = record(airport, flight)
    return {"origin": found["origin"], "destination": found["destination"]}


@flights.tool
def getFlightsByAirline(airport: Records, /, airline: str) -> dict:
    """List the numbers of an airline's flights.

    airline: name of the airline
    """
    return {"flights": keys_with(airport, airline=airline)}


@flights.tool
def getFlightsOfDay(airport: Records, /, weekday: str) -> dict:
    """List the numbers of the flights on a day of the week.

    weekday: day such as Monday
    """
    return {"flights": keys_with(airport, weekday=weekday)}


@flights.tool
def getFlightGate(airport: Records, /, flight: str) -> dict:
    """Tell the gate that a flight leaves from.

    flight: number such as FL-1234
    """
    return {"gate": record(airport, flight)["gate"]}


@flights.tool
def getFlightGateClosing(airport: Records, /, flight: str) -> dict:
    """Tell at what time the gate of a flight closes.

    flight: number such as FL-1234
    """
    return {"closes": record(airport, flight)["closes"]}


@flights.tool
def get_flight_delay(airport: Records, /, flight: str, unit: str = "minutes") -> dict:
    """Tell by how much a flight is late.

    flight: number such as FL-1234
    unit: minutes or seconds, minutes if not given
    """
    return {"late": record(airport, flight)["late"] * (60 if unit == "seconds" else 1), "errors": 0}


@flights.tool
def get_flight_luggage(airport: Records, /, flight: str) -> dict:
    """Tell how many kilograms of luggage a passenger may bring.

    flight: number such as FL-1234
    """
    return {"luggage": record(airport, flight)["luggage"]}


@flights.tool
def setFlightSeat(airport: Records, /, flight: str, passenger: str) -> dict:
    """Give a passenger a seat in a flight.

    flight: number such as FL-1234
    passenger: first and last name
    """
    found = record(airport, flight)
    seat = f"{len(found['seats']) + found['luggage']}F"
    found["seats"][seat] = passenger + ""
    return {"seat": seat}


@flights.tool
def setFlightMeal(airport: Records, /, flight: str, passenger: str, meal: str) -> dict:
    """Order a meal for a passenger of a flight.

    flight: number such as FL-1234
    passenger: first and last name
    meal: kind of the meal
    """
    record(airport, flight)["meals"][passenger + ""] = meal
    return {"order": f"M{len(flight) + len(passenger)}", "meal": meal}


flights.lookup(
    getFlightByCities,
    "[Which flight goes|What is the number of the flight] from {origin} to {destination}?",
    "I [have to|want to] fly from {origin} to {destination}. Which number does [my|the] flight have?",
    "Look for a flight that [takes off in|leaves] {origin} and lands in {destination}.",
    draw=fields_of("origin", "destination"),
    answer="The flight from {origin} to {destination} is {flight}.",
)
flights.lookup(
    getFlightByNumber,
    "[From where to where does|Between which cities does] the flight {flight} go?",
    "[My boarding pass|The ticket] says {flight}. Where does it take off, and where does it land?",
    "[Look up|Show me] the route of {flight}.",
    draw=a_key("flight"),
    answer="The flight {flight} goes from {origin} to {destination}.",
)
flights.lookup(
    getFlightsByAirline,
    "[Which|What] flights does {airline} have?",
    "I [like|collect miles with] {airline}. [List|Show me] all of its flights.",
    "Everything that {airline} flies, please: I need the numbers.",
    draw=fields_of("airline"),
    answer="{airline} has the flights {flights}.",
    vague=Vague("Show me the flights of my favourite airline.", "Which airline is it?", "[It is |]{airline}"),
)
flights.lookup(
    getFlightsOfDay,
    "[Which|What] flights are there on {weekday}?",
    "I can only travel on {weekday}. [List|Show me] the flights.",
    "[Give me|I need] the numbers of all flights on {weekday}.",
    draw=fields_of("weekday"),
    answer="On {weekday} there are the flights {flights}.",
)
flights.lookup(
    getFlightGate,
    "[Which gate|What gate] does {flight} leave from?",
    "I am at the airport for {flight}. [Where do I board?|To which gate do I go?]",
    "[Tell me|I need] the gate of flight {flight}.",
    draw=a_key("flight"),
    answer="The flight {flight} leaves from gate {gate}.",
    vague=Vague("Which gate do I go to?", "What is the number of your flight?", "[It is |]{flight}[.|]"),
)
flights.lookup(
    getFlightGateClosing,
    "[When|At what time] does the gate of {flight} close?",
    "I am late for {flight}! [Until when can I board?|When do they close the gate?]",
    "[Tell me|I need] the closing time of the gate for {flight}.",
    draw=a_key("flight"),
    answer="The gate of {flight} closes at {closes}.",
)
flights.lookup(
    get_flight_luggage,
    "How [heavy may my luggage be|many kilograms of luggage can I take] on {flight}?",
    "I am packing for {flight}. What is the limit for luggage?",
    "[Tell me|I need] the luggage allowance of flight {flight}.",
    draw=a_key("flight"),
    answer="You may bring {luggage} kg of luggage on {flight}.",
)
flights.lookup(
    setFlightSeat,
    "[Reserve|Choose] a seat for {passenger} on {flight}.",
    "{passenger} flies with {flight} and has no seat yet. Please take care of it.",
    draw=a_key_and("flight", passenger=tuple(f"{first} Moore" for first in FIRST_NAMES)),
    answer="{passenger} has seat {seat} on {flight}.",
)
flights.lookup(
    setFlightMeal,
    "[Order|Book] the meal '{meal}' for {passenger} on {flight}.",
    "{passenger} is on {flight} and would like to eat '{meal}'. Please order it.",
    draw=a_key_and("flight", passenger=tuple(f"{first} Moore" for first in FIRST_NAMES), meal=MEALS),
    answer="The meal {meal} of {passenger} was ordered as {order}.",
)


@flights.task(
    "How late is [the flight|] {flight}[?|, in {unit}?]",
    "I am [picking up a friend from|waiting for] {flight}. [What is its delay|How long must I wait][?| in {unit}?]",
)
def lateness_of_flight(airport: Records, rng: Random) -> Plan:
    flight = rng.choice(list(airport))
    mentioned = yield {"flight": flight, "unit": "seconds"}
    measure = {"unit": "seconds"} if "unit" in mentioned else {}
    found = yield call(get_flight_delay, flight=flight, **measure)
    return f"The flight {flight} is {found['late']} {measure.get('unit', 'minutes')} late."


@flights.task(
    "Which gate does the flight from {origin} to {destination} leave from, and when does that gate close?",
    "I am flying from {origin} to {destination}: find my flight, its gate and when the gate closes.",
)
def gate_between_cities(airport: Records, rng: Random) -> Plan:
    flight = rng.choice(list(airport.values()))
    yield {"origin": flight["origin"], "destination": flight["destination"]}
    found = yield call(getFlightByCities, origin=flight["origin"], destination=flight["destination"])
    gate = yield call(getFlightGate, flight=found["flight"])
    closing = yield call(getFlightGateClosing, flight=found["flight"])
    return f"The flight {found['flight']} leaves from gate {gate['gate']}, which closes at {closing['closes']}."


@flights.task(
    "Find the flight from {origin} to {destination} and [order|book] the meal '{meal}' for {passenger}.",
    "{passenger} flies from {origin} to {destination} and wants the meal '{meal}'. Find the flight and order it.",
)
def meal_between_cities(airport: Records, rng: Random) -> Plan:
    flight, passenger, meal = rng.choice(list(airport.values())), full_name(rng), rng.choice(MEALS)
    yield {"origin": flight["origin"], "destination": flight["destination"], "passenger": passenger, "meal": meal}
    found = yield call(getFlightByCities, origin=flight["origin"], destination=flight["destination"])
    ordered = yield call(setFlightMeal, flight=found["flight"], passenger=passenger, meal=meal)
    return f"The meal on {found['flight']} was ordered as {ordered['order']}."


DEPOTS = ("north", "harbour", "hillside", "central")
LOCKERS = tuple(f"L{number}" for number in range(10, 99))


def open_depot(rng: Random, today: date) -> Records:
    """Create the state of `parcels`: parcel code -> parcel."""
    senders, couriers, cities = full_names(rng, 6), rng.sample(LAST_NAMES, 6), rng.sample(CITIES, 6)
    return {
        key: {
            "sender": senders[at],
            "city": cities[at],
            "courier": couriers[at],
            "depot": rng.choice(DEPOTS),
            "status": rng.choice(("waiting", "on its way", "at the customs", "handed over")),
            "weight": rng.randint(2, 300) / 10,
            "customs_fee": rng.randint(3, 90),
            "hour": rng.randint(8, 20),
            "locker": "none",
            "neighbour": "none",
        }
        for at, key in enumerate(ids(rng, "PK", 6))
    }


parcels = Domain("parcels", failure=json_error, setup=open_depot, confusable=True)


@parcels.tool
def track_parcel_by_code(depot: Records, /, code: str) -> dict:
    """Tell the status of a parcel.

    code: code such as PK-1234
    """
    return {"status": record(depot, code)["status"]}


@parcels.tool
def track_parcel_by_sender(depot: Records, /, sender: str) -> dict:
    """Tell the code of the parcel that somebody sent.

    sender: first and last name
    """
    return {"code": key_with(depot, sender=sender)}


@parcels.tool
def track_parcel_by_city(depot: Records, /, city: str) -> dict:
    """Tell the code of the parcel that goes to a city.

    city: city of the receiver
    """
    return {"code": key_with(depot, city=city)}


@parcels.tool
def track_parcels_in_depot(depot: Records, /, name: str) -> dict:
    """List the codes of the parcels that lie in a depot.

    name: name of the depot, such as north
    """
    return {"codes": keys_with(depot, depot=name)}


@parcels.tool
def trackParcelWeight(depot: Records, /, code: str, unit: str = "kg") -> dict:
    """Tell how heavy a parcel is.

    code: code such as PK-1234
    unit: kg or g, kg if not given
    """
    weight = record(depot, code)["weight"]
    return {"weight": round(weight * 1000) if unit == "g" else weight}


@parcels.tool
def trackParcelCourier(depot: Records, /, code: str) -> dict:
    """Tell the name of the courier who brings a parcel.

    code: code such as PK-1234
    """
    return {"courier": record(depot, code)["courier"]}


@parcels.tool
def trackParcelCustoms(depot: Records, /, code: str) -> dict:
    """Tell the customs fee of a parcel.

    code: code such as PK-1234
    """
    return {"fee": record(depot, code)["customs_fee"], "currency": "EUR"}


@parcels.tool
def trackParcelArrival(depot: Records, /, code: str) -> dict:
    """Tell at what hour a parcel arrives.

    code: code such as PK-1234
    """
    return {"hour": record(depot, code)["hour"]}


@parcels.tool
def redirect_parcel_to_locker(depot: Records, /, code: str, locker: str) -> dict:
    """Have a parcel put into a locker.

    code: code such as PK-1234
    locker: number of the locker
    """
    return {"redirected": code, **change(depot, code, locker=locker)}


@parcels.tool
def redirect_parcel_to_neighbour(depot: Records, /, code: str, neighbour: str) -> dict:
    """Have a parcel handed to a neighbour.

    code: code such as PK-1234
    neighbour: name of the neighbour
    """
    return {"redirected": code, **change(depot, code, neighbour=neighbour)}


parcels.lookup(
    track_parcel_by_code,
    "[Where is|What is the status of] the parcel {code}?",
    "I [sent|ordered something, and the code is] {code}. [How far has it come?|What does the tracking say?]",
    "[Check|Look up] the status of {code}.",
    draw=a_key("code"),
    answer="The status of {code} is: {status}.",
    vague=Vague("What is the status of my parcel?", "What is its code?", "[It is |]{code}"),
)
parcels.lookup(
    track_parcel_by_sender,
    "[What is|Tell me] the code of the parcel that {sender} sent[?|.]",
    "{sender} [sent me something|has posted a parcel]. I need its code.",
    "Find the parcel from {sender}.",
    draw=fields_of("sender"),
    answer="The parcel from {sender} is {code}.",
)
parcels.lookup(
    track_parcel_by_city,
    "[What is|Tell me] the code of the parcel that goes to {city}[?|.]",
    "There is a parcel for {city}. [Find it|I need its code].",
    "Which parcel is addressed to {city}?",
    draw=fields_of("city"),
    answer="The parcel to {city} is {code}.",
)
parcels.lookup(
    track_parcels_in_depot,
    "[Which|What] parcels lie in the depot {name}?",
    "I am [driving|on my way] to the depot {name}. [List|Show me] the parcels there.",
    "[Give me|I need] the codes of everything in the depot {name}.",
    draw=lambda depot, rng: {"name": rng.choice(list(depot.values()))["depot"]},
    answer="In the depot {name} there are {codes}.",
)
parcels.lookup(
    trackParcelCourier,
    "[Who|Which courier] brings the parcel {code}?",
    "I want to [thank|call] the courier of {code}. [Who is it?|What is the name?]",
    "[Tell me|I need] the name of the courier for {code}.",
    draw=a_key("code"),
    answer="{courier} brings the parcel {code}.",
)
parcels.lookup(
    trackParcelCustoms,
    "[How much customs do I pay|What is the customs fee] for {code}?",
    "My parcel {code} comes from abroad. What will customs cost?",
    "[Tell me|I need] the fee that customs wants for {code}.",
    draw=a_key("code"),
    answer="The customs fee of {code} is {fee} {currency}.",
)
parcels.lookup(
    trackParcelArrival,
    "[When|At what hour] does {code} arrive?",
    "I [wait|am at home] for {code}. [At what hour will it be here?|When can I expect it?]",
    "[Tell me|I need] the hour of arrival of the parcel {code}.",
    draw=a_key("code"),
    answer="The parcel {code} arrives at {hour} o'clock.",
)
parcels.lookup(
    redirect_parcel_to_locker,
    "[Put|Send] the parcel {code} into the locker {locker}.",
    "I am not at home for {code}. Use the locker {locker}[| instead].",
    draw=a_key_and("code", locker=LOCKERS),
    answer="The parcel {redirected} goes to the locker {locker}.",
)
parcels.lookup(
    redirect_parcel_to_neighbour,
    "[Hand|Give] the parcel {code} to [my neighbour|the neighbour] {neighbour}.",
    "I am not at home for {code}. {neighbour} next door can take it.",
    draw=a_key_and("code", neighbour=LAST_NAMES),
    answer="The parcel {redirected} goes to {neighbour}.",
)


@parcels.task(
    "How heavy is the parcel {code}[?|, in {unit}?]",
    "I have to carry {code}. [What does it weigh|What is its weight][?| in {unit}?]",
)
def weight_of_parcel(depot: Records, rng: Random) -> Plan:
    code = rng.choice(list(depot))
    mentioned = yield {"code": code, "unit": "g"}
    measure = {"unit": "g"} if "unit" in mentioned else {}
    found = yield call(trackParcelWeight, code=code, **measure)
    return f"The parcel {code} weighs {found['weight']} {measure.get('unit', 'kg')}."


@parcels.task(
    "{sender} sent me a parcel. Who brings it[, and when|, and at what hour]?",
    "Find the parcel from {sender}, and tell me its courier and the hour of arrival.",
)
def courier_of_sender(depot: Records, rng: Random) -> Plan:
    sender = rng.choice(list(depot.values()))["sender"]
    yield {"sender": sender}
    found = yield call(track_parcel_by_sender, sender=sender)
    courier = yield call(trackParcelCourier, code=found["code"])
    arrival = yield call(trackParcelArrival, code=found["code"])
    return f"{courier['courier']} brings it at {arrival['hour']} o'clock."


@parcels.task(
    "Find the parcel that goes to {city} and have it put into the locker {locker}.",
    "The parcel for {city} [should go|must go] into the locker {locker}. [Find it and|Please find it,] redirect it.",
)
def locker_for_city(depot: Records, rng: Random) -> Plan:
    city, locker = rng.choice(list(depot.values()))["city"], rng.choice(LOCKERS)
    yield {"city": city, "locker": locker}
    found = yield call(track_parcel_by_city, city=city)
    yield call(redirect_parcel_to_locker, code=found["code"], locker=locker)
    return f"The parcel {found['code']} goes to the locker {locker}."
