"""A garden and a help desk: two confusable domains of the validation split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import json_error, value_error
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
from tltrain.toolworld.vocabulary import LAST_NAMES, full_names, ids

PLANTS = ("fig", "hops", "sage", "quince", "fennel", "dahlia", "hazel", "thyme", "peony", "currant")
BEDS = ("north bed", "south bed", "greenhouse", "terrace", "pond")
SOILS = ("sandy", "loamy", "acid", "chalky")


def open_garden(rng: Random, today: date) -> Records:
    """Create the state of `garden`: plant id -> plant."""
    return {
        key: {
            "name": name,
            "bed": rng.choice(BEDS),
            "soil": rng.choice(SOILS),
            "height": rng.randint(10, 240),
            "water": rng.randint(1, 12),
            "pruned": str(rng.randint(2015, 2023)),
        }
        for key, name in zip(ids(rng, "GA", 6), rng.sample(PLANTS, 6), strict=True)
    }


garden = Domain("garden", failure=value_error, setup=open_garden, confusable=True)


@garden.tool
def readPlantByName(plants: Records, /, name: str) -> dict:
    """Find the id of a plant by name.

    name: common name
    """
    return {"plant": key_with(plants, name=name)}


@garden.tool
def readPlantsInBed(plants: Records, /, bed: str) -> dict:
    """List the ids of the plants in a bed of the garden.

    bed: name of the bed
    """
    return {"plants": keys_with(plants, bed=bed)}


@garden.tool
def readPlantsOfSoil(plants: Records, /, soil: str) -> dict:
    """List the ids of the plants that need a kind of soil.

    soil: soil such as sandy
    """
    return {"plants": keys_with(plants, soil=soil)}


@garden.tool
def read_plant_water(plants: Records, /, plant: str) -> dict:
    """Tell how many litres of water a plant needs in a week.

    plant: id such as GA-1234
    """
    return {"litres": record(plants, plant)["water"]}


@garden.tool
def read_plant_height(plants: Records, /, plant: str, unit: str = "cm") -> dict:
    """Tell how high a plant is.

    plant: id such as GA-1234
    unit: cm or mm, cm if not given
    """
    return {"height": record(plants, plant)["height"] * (10 if unit == "mm" else 1), "errors": []}


@garden.tool
def plantMovedTo(plants: Records, /, plant: str, bed: str) -> dict:
    """Note that a plant was moved to another bed of the garden.

    plant: id such as GA-1234
    bed: name of the bed
    """
    return {"noted": plant, **change(plants, plant, bed=bed)}


@garden.tool
def plant_pruned_in(plants: Records, /, plant: str, year: str) -> dict:
    """Note in which year a plant was pruned.

    plant: id such as GA-1234
    year: year such as 2024
    """
    return {"noted": plant, **change(plants, plant, pruned=year)}


garden.lookup(
    readPlantByName,
    "[What is|Tell me] the id of the {name}[?|.]",
    "I planted a {name}. [Under which id is it?|Find it.]",
    draw=fields_of("name"),
    answer="The id of the {name} is {plant}.",
)
garden.lookup(
    readPlantsInBed,
    "[Which|What] plants grow in the place '{bed}'?",
    "I am weeding '{bed}'. [List|Show me] what grows there.",
    draw=fields_of("bed"),
    answer="In '{bed}' grow {plants}.",
    vague=Vague("List the plants in one of my beds.", "Which bed is it?", "[It is |]{bed}"),
)
garden.lookup(
    readPlantsOfSoil,
    "[Which|What] plants need {soil} soil?",
    "I have some {soil} soil left. [List|Show me] the plants that need it.",
    draw=fields_of("soil"),
    answer="These plants need {soil} soil: {plants}.",
)
garden.lookup(
    read_plant_water,
    "How [many litres of|much] water does {plant} need?",
    "I am watering {plant}. [How many litres is it?|How much do I give?]",
    draw=a_key("plant"),
    answer="{plant} needs {litres} litres.",
)
garden.lookup(
    plantMovedTo,
    "[Note|Write down] that {plant} was moved to '{bed}'.",
    "{plant} now grows in '{bed}'. Please note the move.",
    draw=a_key_and("plant", bed=BEDS),
    answer="{noted} is now in '{bed}'.",
)
garden.lookup(
    plant_pruned_in,
    "[Note|Write down] that {plant} was pruned in {year}.",
    "{plant} was pruned in {year}. Please note it.",
    draw=a_key_and("plant", year=("2024", "2025", "2026")),
    answer="{noted} was pruned in {pruned}.",
)


@garden.task(
    "How high is {plant}[?|, in {unit}?]",
    "{plant} has grown. How high is it now[?|, in {unit}?]",
)
def height_of_plant(plants: Records, rng: Random) -> Plan:
    plant = rng.choice(list(plants))
    mentioned = yield {"plant": plant, "unit": "mm"}
    measure = {"unit": "mm"} if "unit" in mentioned else {}
    found = yield call(read_plant_height, plant=plant, **measure)
    return f"{plant} is {found['height']} {measure.get('unit', 'cm')} high."


@garden.task(
    "How high is the {name}, and how much water does it need?",
    "[Find|Look up] the {name} and tell me its height and how many litres it needs.",
)
def height_and_water(plants: Records, rng: Random) -> Plan:
    name = rng.choice(list(plants.values()))["name"]
    yield {"name": name}
    found = yield call(readPlantByName, name=name)
    height = yield call(read_plant_height, plant=found["plant"])
    water = yield call(read_plant_water, plant=found["plant"])
    return f"{found['plant']} is {height['height']} cm high and needs {water['litres']} litres."


URGENCIES = ("low", "normal", "high", "urgent")
PRODUCTS = ("printer", "router", "scanner", "headset", "webcam")


def open_helpdesk(rng: Random, today: date) -> Records:
    """Create the state of `helpdesk`: ticket id -> ticket."""
    callers = full_names(rng, 6)
    return {
        key: {
            "caller": callers[at],
            "product": rng.choice(PRODUCTS),
            "urgency": rng.choice(URGENCIES),
            "agent": rng.choice(LAST_NAMES),
            "hours": rng.randint(1, 90),
        }
        for at, key in enumerate(ids(rng, "HD", 6))
    }


helpdesk = Domain("helpdesk", failure=json_error, setup=open_helpdesk, confusable=True)


@helpdesk.tool
def check_ticket_by_caller(tickets: Records, /, caller: str) -> dict:
    """Find the id of a caller's ticket.

    caller: first and last name
    """
    return {"ticket": key_with(tickets, caller=caller)}


@helpdesk.tool
def check_tickets_by_product(tickets: Records, /, product: str) -> dict:
    """List the ids of the tickets about a product.

    product: product such as printer
    """
    return {"tickets": keys_with(tickets, product=product)}


@helpdesk.tool
def check_tickets_by_urgency(tickets: Records, /, urgency: str) -> dict:
    """List the ids of the tickets of an urgency.

    urgency: low, normal, high or urgent
    """
    return {"tickets": keys_with(tickets, urgency=urgency)}


@helpdesk.tool
def checkTicketAgent(tickets: Records, /, ticket: str) -> dict:
    """Tell which agent works on a ticket.

    ticket: id such as HD-1234
    """
    return {"agent": record(tickets, ticket)["agent"]}


@helpdesk.tool
def checkTicketAge(tickets: Records, /, ticket: str, unit: str = "hours") -> dict:
    """Tell for how long a ticket has been open.

    ticket: id such as HD-1234
    unit: hours or minutes, hours if not given
    """
    return {"open": record(tickets, ticket)["hours"] * (60 if unit == "minutes" else 1)}


@helpdesk.tool
def raiseTicketUrgency(tickets: Records, /, ticket: str, urgency: str) -> dict:
    """Change the urgency of a ticket.

    ticket: id such as HD-1234
    urgency: low, normal, high or urgent
    """
    return {"raised": ticket, **change(tickets, ticket, urgency=urgency)}


@helpdesk.tool
def raise_ticket_to_agent(tickets: Records, /, ticket: str, agent: str) -> dict:
    """Give a ticket to another agent.

    ticket: id such as HD-1234
    agent: last name
    """
    return {"raised": ticket, **change(tickets, ticket, agent=agent)}


helpdesk.lookup(
    check_ticket_by_caller,
    "[Which|What] ticket did {caller} open?",
    "{caller} is on the line again. [Which ticket is it?|Find the ticket.]",
    draw=fields_of("caller"),
    answer="The ticket of {caller} is {ticket}.",
)
helpdesk.lookup(
    check_tickets_by_product,
    "[Which|What] tickets are about a {product}?",
    "I repair every {product}. [List|Show me] the tickets for me.",
    draw=fields_of("product"),
    answer="About a {product} there are {tickets}.",
    vague=Vague("List the tickets about my product.", "Which product is it?", "[The |A ]{product}"),
)
helpdesk.lookup(
    check_tickets_by_urgency,
    "[Which|What] tickets have the urgency '{urgency}'?",
    "Today we do those with urgency '{urgency}'. [List|Show me] the tickets.",
    draw=fields_of("urgency"),
    answer="The urgency '{urgency}' have {tickets}.",
)
helpdesk.lookup(
    checkTicketAgent,
    "[Who|Which agent] works on {ticket}?",
    "I have a question about {ticket}. [Which agent has it?|Who is the agent?]",
    draw=a_key("ticket"),
    answer="{agent} works on {ticket}.",
)
helpdesk.lookup(
    raiseTicketUrgency,
    "[Change|Set] the urgency of {ticket} to '{urgency}'.",
    "{ticket} should have the urgency '{urgency}'. Please change it.",
    draw=a_key_and("ticket", urgency=URGENCIES),
    answer="The urgency of {raised} is now '{urgency}'.",
)
helpdesk.lookup(
    raise_ticket_to_agent,
    "[Give|Pass] {ticket} to the agent {agent}.",
    "{agent} takes over {ticket}. Please pass it on.",
    draw=a_key_and("ticket", agent=LAST_NAMES),
    answer="{agent} now works on {raised}.",
)


@helpdesk.task(
    "[For how long|Since when, in {unit},] has {ticket} been open?",
    "{ticket} is waiting. For how long has it been open[?|, in {unit}?]",
)
def age_of_ticket(tickets: Records, rng: Random) -> Plan:
    ticket = rng.choice(list(tickets))
    mentioned = yield {"ticket": ticket, "unit": "minutes"}
    measure = {"unit": "minutes"} if "unit" in mentioned else {}
    found = yield call(checkTicketAge, ticket=ticket, **measure)
    return f"{ticket} has been open for {found['open']} {measure.get('unit', 'hours')}."


@helpdesk.task(
    "Which agent works on the ticket of {caller}, and for how long has it been open?",
    "[Find|Look up] the ticket of {caller}, its agent, and for how long it has been open.",
)
def agent_and_age(tickets: Records, rng: Random) -> Plan:
    caller = rng.choice(list(tickets.values()))["caller"]
    yield {"caller": caller}
    found = yield call(check_ticket_by_caller, caller=caller)
    agent = yield call(checkTicketAgent, ticket=found["ticket"])
    age = yield call(checkTicketAge, ticket=found["ticket"])
    return f"{agent['agent']} works on {found['ticket']}, open for {age['open']} hours."
