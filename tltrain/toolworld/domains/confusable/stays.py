"""A hotel and a car rental: two confusable domains of the training split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import invalid_call, json_error
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
from tltrain.toolworld.vocabulary import CITIES, full_names, ids

VIEWS = ("sea", "garden", "street", "mountains")
FLOORS = ("1", "2", "3", "4", "5")
CLEANING_HOURS = tuple(f"{hour}:00" for hour in range(8, 18))


def open_hotel(rng: Random, today: date) -> Records:
    """Create the state of `hotel`: room id -> room."""
    guests = full_names(rng, 6)
    return {
        key: {
            "guest": guests[at],
            "view": rng.choice(VIEWS),
            "floor": rng.choice(FLOORS),
            "price": rng.randint(45, 320),
            "beds": rng.randint(1, 4),
            "code": str(rng.randint(1000, 9999)),
            "minibar": rng.randint(5, 80),
            "cleaning": rng.choice(CLEANING_HOURS),
            "breakfast": "none",
        }
        for at, key in enumerate(ids(rng, "RM", 6))
    }


hotel = Domain("hotel", failure=invalid_call, setup=open_hotel, confusable=True)


@hotel.tool
def lookup_room_by_guest(rooms: Records, /, guest: str) -> dict:
    """Find the id of a guest's room.

    guest: first and last name
    """
    return {"room": key_with(rooms, guest=guest)}


@hotel.tool
def lookup_rooms_by_view(rooms: Records, /, view: str) -> dict:
    """List the ids of the rooms with a view.

    view: what one sees, such as sea
    """
    return {"rooms": keys_with(rooms, view=view)}


@hotel.tool
def lookup_rooms_on_floor(rooms: Records, /, floor: str) -> dict:
    """List the ids of the rooms on a floor.

    floor: number of the floor
    """
    return {"rooms": keys_with(rooms, floor=floor)}


@hotel.tool
def lookup_room_guest(rooms: Records, /, room: str) -> dict:
    """Tell who stays in a room.

    room: id such as RM-1234
    """
    return {"guest": record(rooms, room)["guest"]}


@hotel.tool
def lookupRoomPrice(rooms: Records, /, room: str, nights: int = 1) -> dict:
    """Tell what a room costs.

    room: id such as RM-1234
    nights: number of nights, 1 if not given
    """
    return {"price": record(rooms, room)["price"] * nights}


@hotel.tool
def lookupRoomBeds(rooms: Records, /, room: str) -> dict:
    """Tell how many beds a room has.

    room: id such as RM-1234
    """
    return {"beds": record(rooms, room)["beds"]}


@hotel.tool
def lookupRoomCode(rooms: Records, /, room: str) -> dict:
    """Tell the code that opens the door of a room.

    room: id such as RM-1234
    """
    return {"code": record(rooms, room)["code"]}


@hotel.tool
def lookupRoomMinibar(rooms: Records, /, room: str) -> dict:
    """Tell the minibar bill of a room.

    room: id such as RM-1234
    """
    return {"minibar": record(rooms, room)["minibar"], "billing errors": 0}


@hotel.tool
def change_room_cleaning(rooms: Records, /, room: str, time: str) -> dict:
    """Change when a room is cleaned.

    room: id such as RM-1234
    time: full hour such as 9:00
    """
    return {"changed": room, **change(rooms, room, cleaning=time)}


@hotel.tool
def changeRoomBreakfast(rooms: Records, /, room: str, time: str) -> dict:
    """Change when breakfast is brought to a room.

    room: id such as RM-1234
    time: full hour such as 9:00
    """
    return {"changed": room, **change(rooms, room, breakfast=time)}


hotel.lookup(
    lookup_room_by_guest,
    "[In which room is|Which room has] {guest}?",
    "{guest} has lost the key. [Which room is it?|I need the id of the room.]",
    "Find the room of {guest}.",
    draw=fields_of("guest"),
    answer="{guest} is in {room}.",
)
hotel.lookup(
    lookup_rooms_by_view,
    "[Which|What] rooms look out on the {view}?",
    "Our guests would like to see the {view}. [List|Show me] such rooms.",
    "[Give me|I need] the ids of all rooms with a view of the {view}.",
    draw=fields_of("view"),
    answer="These rooms have the view '{view}': {rooms}.",
    vague=Vague("List the rooms with a certain view.", "Which view should it be?", "[The |]{view}"),
)
hotel.lookup(
    lookup_rooms_on_floor,
    "[Which|What] rooms are on floor {floor}?",
    "The lift stops at floor {floor}. [List|Show me] the rooms there.",
    "[Give me|I need] the ids of all rooms on floor {floor}.",
    draw=fields_of("floor"),
    answer="On floor {floor} are {rooms}.",
)
hotel.lookup(
    lookup_room_guest,
    "[Who stays|Which guest is] in {room}?",
    "Somebody in {room} called the desk. [Who is it?|What is the name of the guest?]",
    "[Tell me|I need] the name of the guest in {room}.",
    draw=a_key("room"),
    answer="{guest} stays in {room}.",
)
hotel.lookup(
    lookupRoomBeds,
    "How many beds [does {room} have|are there in {room}]?",
    "A family asks for {room}. [How many beds does it have?|What is the number of beds?]",
    draw=a_key("room"),
    answer="{room} has {beds} beds.",
)
hotel.lookup(
    lookupRoomCode,
    "[What is|Tell me] the door code of {room}[?|.]",
    "The guests stand before {room}. [Which code opens the door?|They need the code.]",
    draw=a_key("room"),
    answer="The code of {room} is {code}.",
)
hotel.lookup(
    lookupRoomMinibar,
    "[How high is|What is] the minibar bill of {room}?",
    "{room} checks out. [What do they owe for the minibar?|How much is the minibar?]",
    draw=a_key("room"),
    answer="The minibar bill of {room} is {minibar}.",
)
hotel.lookup(
    change_room_cleaning,
    "[Have {room} cleaned|Clean {room}] at {time}.",
    "The guests in {room} sleep late. Move the cleaning to {time}.",
    draw=a_key_and("room", time=CLEANING_HOURS),
    answer="{changed} is cleaned at {cleaning}.",
)
hotel.lookup(
    changeRoomBreakfast,
    "[Bring|Serve] breakfast to {room} at {time}.",
    "The guests in {room} would like their breakfast at {time}. Please change it.",
    draw=a_key_and("room", time=CLEANING_HOURS),
    answer="Breakfast comes to {changed} at {breakfast}.",
)


@hotel.task(
    "What does [a night in {room}|{room} for {nights} nights] cost?",
    "I would like {room}. What is the price for [one night|{nights} nights]?",
)
def price_of_room(rooms: Records, rng: Random) -> Plan:
    room, nights = rng.choice(list(rooms)), rng.randint(2, 9)
    mentioned = yield {"room": room, "nights": nights}
    several = {"nights": nights} if "nights" in mentioned else {}
    found = yield call(lookupRoomPrice, room=room, **several)
    return f"The price of {room} is {found['price']}."


@hotel.task(
    "{guest} checks out. Find the room and tell me the minibar bill.",
    "[What is the minibar bill of|How much did] {guest}['s room|spend at the minibar]? Find the room first.",
)
def minibar_of_guest(rooms: Records, rng: Random) -> Plan:
    guest = rng.choice(list(rooms.values()))["guest"]
    yield {"guest": guest}
    found = yield call(lookup_room_by_guest, guest=guest)
    bill = yield call(lookupRoomMinibar, room=found["room"])
    return f"The minibar bill of {found['room']} is {bill['minibar']}."


@hotel.task(
    "Find the room of {guest}, tell me its door code, and have it cleaned at {time}.",
    "I need the door code of {guest}'s room, which should be cleaned at {time}. Find the room first.",
)
def code_and_cleaning(rooms: Records, rng: Random) -> Plan:
    room, time = rng.choice(list(rooms.values())), rng.choice(CLEANING_HOURS)
    yield {"guest": room["guest"], "time": time}
    found = yield call(lookup_room_by_guest, guest=room["guest"])
    code = yield call(lookupRoomCode, room=found["room"])
    yield call(change_room_cleaning, room=found["room"], time=time)
    return f"The code is {code['code']}, and {found['room']} is cleaned at {time}."


COLOURS = ("red", "white", "black", "grey", "green")
FUELS = ("petrol", "diesel", "electric", "hybrid")


def open_rentals(rng: Random, today: date) -> Records:
    """Create the state of `rentals`: plate -> car."""
    drivers = full_names(rng, 6)
    return {
        key: {
            "driver": drivers[at],
            "colour": rng.choice(COLOURS),
            "fuel": rng.choice(FUELS),
            "branch": rng.choice(CITIES),
            "doors": rng.randint(2, 5),
            "mileage": rng.randint(900, 99000),
            "deposit": rng.randint(2, 12) * 50,
            "rate": rng.randint(19, 140),
            "damage": "none",
            "extra": [],
        }
        for at, key in enumerate(ids(rng, "CAR", 6))
    }


rentals = Domain("rentals", failure=json_error, setup=open_rentals, confusable=True)


@rentals.tool
def searchCarByDriver(cars: Records, /, driver: str) -> dict:
    """Find the plate of the car that somebody rented.

    driver: first and last name
    """
    return {"plate": key_with(cars, driver=driver)}


@rentals.tool
def searchCarsByColour(cars: Records, /, colour: str) -> dict:
    """List the plates of the cars of a colour.

    colour: colour such as red
    """
    return {"plates": keys_with(cars, colour=colour)}


@rentals.tool
def searchCarsByFuel(cars: Records, /, fuel: str) -> dict:
    """List the plates of the cars with a kind of fuel.

    fuel: fuel such as diesel
    """
    return {"plates": keys_with(cars, fuel=fuel)}


@rentals.tool
def searchCarsInBranch(cars: Records, /, branch: str) -> dict:
    """List the plates of the cars in a branch.

    branch: city of the branch
    """
    return {"plates": keys_with(cars, branch=branch)}


@rentals.tool
def search_car_mileage(cars: Records, /, plate: str) -> dict:
    """Tell how far a car has been driven.

    plate: plate such as CAR-1234
    """
    return {"mileage": record(cars, plate)["mileage"], "unit": "km"}


@rentals.tool
def search_car_deposit(cars: Records, /, plate: str) -> dict:
    """Tell the deposit for a car.

    plate: plate such as CAR-1234
    """
    return {"deposit": record(cars, plate)["deposit"]}


@rentals.tool
def search_car_doors(cars: Records, /, plate: str) -> dict:
    """Tell how many doors a car has.

    plate: plate such as CAR-1234
    """
    return {"doors": record(cars, plate)["doors"]}


@rentals.tool
def search_car_rate(cars: Records, /, plate: str, days: int = 1) -> dict:
    """Tell the rent of a car.

    plate: plate such as CAR-1234
    days: number of days, 1 if not given
    """
    return {"rent": record(cars, plate)["rate"] * days}


@rentals.tool
def report_car_damage(cars: Records, /, plate: str, damage: str) -> dict:
    """Report a damage to a car.

    plate: plate such as CAR-1234
    damage: what is damaged
    """
    return {"reported": plate, **change(cars, plate, damage=damage)}


@rentals.tool
def reportCarReturn(cars: Records, /, plate: str, branch: str) -> dict:
    """Report in which branch a car was returned.

    plate: plate such as CAR-1234
    branch: city of the branch
    """
    return {"reported": plate, **change(cars, plate, branch=branch)}


rentals.lookup(
    searchCarByDriver,
    "[Which car did|What did] {driver} rent?",
    "{driver} is on the phone. [Which car is it?|I need the plate of the rented car.]",
    "Find the car of {driver}.",
    draw=fields_of("driver"),
    answer="{driver} rented {plate}.",
)
rentals.lookup(
    searchCarsByColour,
    "[Which|What] cars are {colour}?",
    "A customer insists on a {colour} car. [List|Show me] what we have.",
    "[Give me|I need] the plates of everything {colour}.",
    draw=fields_of("colour"),
    answer="These cars are {colour}: {plates}.",
    vague=Vague("Which cars have my favourite colour?", "What colour is it?", "[It is |]{colour}"),
)
rentals.lookup(
    searchCarsByFuel,
    "[Which|What] cars run on the fuel '{fuel}'?",
    "For this tour it has to be {fuel}. [List|Show me] the cars with that fuel.",
    "[Give me|I need] the plates of all {fuel} cars.",
    draw=fields_of("fuel"),
    answer="These cars are {fuel}: {plates}.",
)
rentals.lookup(
    searchCarsInBranch,
    "[Which|What] cars are in the branch {branch}?",
    "I work in the branch {branch}. [List|Show me] our cars.",
    "[Give me|I need] the plates of all cars in the branch {branch}.",
    draw=fields_of("branch"),
    answer="In the branch {branch} are {plates}.",
)
rentals.lookup(
    search_car_mileage,
    "[How far has|How many kilometres has] {plate} been driven?",
    "I check {plate} in. [What is its mileage?|How many kilometres does it have?]",
    draw=a_key("plate"),
    answer="{plate} has been driven {mileage} {unit}.",
)
rentals.lookup(
    search_car_deposit,
    "[What is|How high is] the deposit for {plate}?",
    "I take {plate}. [Which deposit do I leave?|How much is the deposit?]",
    draw=a_key("plate"),
    answer="The deposit for {plate} is {deposit}.",
)
rentals.lookup(
    search_car_doors,
    "How many doors [does {plate} have|are there on {plate}]?",
    "We need room for children in {plate}. [How many doors are there?|What is the number of doors?]",
    draw=a_key("plate"),
    answer="{plate} has {doors} doors.",
)
rentals.lookup(
    report_car_damage,
    "[Report|Enter] a damage to {plate}: {damage}.",
    "I hit a pole with {plate}, and now it has a {damage}. Please report it.",
    draw=a_key_and("plate", damage=("broken mirror", "flat tyre", "dent in the door", "cracked window")),
    answer="For {reported} the damage '{damage}' was reported.",
)
rentals.lookup(
    reportCarReturn,
    "{plate} [was returned|came back] in {branch}. Please report it.",
    "[Report|Enter] that {plate} was returned in the branch {branch}.",
    draw=a_key_and("plate", branch=CITIES),
    answer="{reported} is back in {branch}.",
)


@rentals.task(
    "What is the rent of {plate} for [a day|{days} days]?",
    "I need {plate} for [one day|{days} days]. What do I pay?",
)
def rent_of_car(cars: Records, rng: Random) -> Plan:
    plate, days = rng.choice(list(cars)), rng.randint(2, 14)
    mentioned = yield {"plate": plate, "days": days}
    several = {"days": days} if "days" in mentioned else {}
    found = yield call(search_car_rate, plate=plate, **several)
    return f"The rent of {plate} is {found['rent']}."


@rentals.task(
    "Find the car of {driver} and tell me its mileage and its deposit.",
    "{driver} brings the car back. Which one is it, what is its mileage, and what was the deposit?",
)
def check_in(cars: Records, rng: Random) -> Plan:
    driver = rng.choice(list(cars.values()))["driver"]
    yield {"driver": driver}
    found = yield call(searchCarByDriver, driver=driver)
    mileage = yield call(search_car_mileage, plate=found["plate"])
    deposit = yield call(search_car_deposit, plate=found["plate"])
    return f"{found['plate']} has {mileage['mileage']} km, and the deposit was {deposit['deposit']}."


@rentals.task(
    "{driver} has returned the car in {branch}. Find it and report that.",
    "Find the car of {driver}, which was returned in {branch}, and report the return.",
)
def return_by_driver(cars: Records, rng: Random) -> Plan:
    car = rng.choice(list(cars.values()))
    branch = rng.choice([city for city in CITIES if city != car["branch"]])
    yield {"driver": car["driver"], "branch": branch}
    found = yield call(searchCarByDriver, driver=car["driver"])
    yield call(reportCarReturn, plate=found["plate"], branch=branch)
    return f"{found['plate']} is back in {branch}."
