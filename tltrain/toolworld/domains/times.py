"""Domains about days: dates and calendar. "Today" is the conversation's date, never the clock's."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

from tltrain.toolworld.answers import json_status, value_error
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call
from tltrain.toolworld.vocabulary import FIRST_NAMES, ids, listed

WEEKDAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")


def keep_today(rng: Random, today: date) -> date:
    """Create the state of `dates`: the conversation's date."""
    return today


def nearby(rng: Random, today: date, days: int = 300) -> str:
    """Draw a date within `days` days after `today`, such as 2025-03-31."""
    return (today + timedelta(rng.randint(1, days))).isoformat()


dates = Domain("dates", failure=value_error, setup=keep_today)


@dates.tool
def get_today(today: date, /) -> str:
    """Tell today's date."""
    return today.isoformat()


@dates.tool
def add_days_to_date(date: str, days: int) -> str:
    """Compute the date some days after another.

    date: date such as 2025-03-31
    days: days to add, may be negative
    """
    return (_day(date) + timedelta(days)).isoformat()


@dates.tool
def get_weekday_of_date(date: str) -> str:
    """Tell the day of the week of a date.

    date: date such as 2025-03-31
    """
    return WEEKDAYS[_day(date).weekday()]


@dates.tool
def get_week_number_of_date(date: str) -> int:
    """Tell the week of the year of a date.

    date: date such as 2025-03-31
    """
    return _day(date).isocalendar().week


@dates.tool
def get_days_between_dates(start: str, end: str, inclusive: bool = False) -> int:
    """Count the days from one date to another.

    start: first date
    end: last date
    inclusive: true to count the last day too
    """
    days = (_day(end) - _day(start)).days
    if days < 0:
        raise Failure("end lies before start")
    return days + inclusive


def _day(text: str) -> date:
    return date.fromisoformat(text)


@dates.task(
    "[What day of the week|Which weekday] is {day}?",
    "I was told to come on {day}. [Which day of the week is that?|What weekday will that be?]",
    vague=Vague("Which weekday is my [birthday|appointment]?", "On which date is it?", "[On |It is on |]{day}"),
)
def weekday(today: date, rng: Random) -> Plan:
    day = nearby(rng, today)
    yield {"day": day}
    answer = yield call(get_weekday_of_date, date=day)
    return f"It is a {answer}."


@dates.task(
    "How many days are there [between {start} and|from {start} to] {end}[?|, the last {included}?]",
    "[Count|Tell me] the days from {start} to {end}[.|, last day {included}.]",
)
def days_between(today: date, rng: Random) -> Plan:
    start, end = sorted(nearby(rng, today) for _ in range(2))
    mentioned = yield {"start": start, "end": end, "included": "included"}
    counting = {"inclusive": True} if "included" in mentioned else {}
    answer = yield call(get_days_between_dates, start=start, end=end, **counting)
    return f"The number of days is {answer}."


@dates.task(
    "[What date is|Which date is it] {days} days after {start}?",
    "My visa starts on {start} and lasts {days} days. When does it end?",
)
def later_date(today: date, rng: Random) -> Plan:
    start, days = nearby(rng, today), rng.randint(5, 200)
    yield {"start": start, "days": days}
    answer = yield call(add_days_to_date, date=start, days=days)
    return f"It is {answer}."


@dates.task(
    "How many days are left until {end}?",
    "My holiday begins on {end}. How many days from today is that?",
)
def days_left(today: date, rng: Random) -> Plan:
    end = nearby(rng, today)
    yield {"end": end}
    now = yield call(get_today)
    answer = yield call(get_days_between_dates, start=now, end=end)
    return f"There are {answer} days left."


@dates.task(
    "Which weekday will it be {days} days from now?",
    "[I get my results|The parcel comes] in {days} days. What day of the week is that?",
)
def weekday_from_now(today: date, rng: Random) -> Plan:
    days = rng.randint(5, 200)
    yield {"days": days}
    now = yield call(get_today)
    then = yield call(add_days_to_date, date=now, days=days)
    answer = yield call(get_weekday_of_date, date=then)
    return f"It is {then}, a {answer}."


@dates.task(
    "Take {start}, add {days} days, and give me the weekday, the week number and how many days it is from {start}.",
    "What are the weekday and the week number {days} days after {start}? Then count the days from {start} to that day.",
)
def all_about_a_date(today: date, rng: Random) -> Plan:
    start, days = nearby(rng, today), rng.randint(5, 90)
    yield {"start": start, "days": days}
    then = yield call(add_days_to_date, date=start, days=days)
    answer = yield call(get_weekday_of_date, date=then)
    week = yield call(get_week_number_of_date, date=then)
    count = yield call(get_days_between_dates, start=start, end=then)
    return f"{then} is a {answer} in week {week}, {count} days later."


TITLES = listed(
    "Team lunch, Dentist, Budget review, Piano lesson, Error review, Sales call, Book club, Car service, Yoga class, "
    "Project kickoff, Job interview, Parents evening, Bug and error triage, Design workshop, Birthday dinner"
)


def open_calendar(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `calendar`: event id -> event."""
    titles = rng.sample(TITLES, 6)
    return {
        key: {
            "title": title,
            "date": nearby(rng, today, 40),
            "time": f"{rng.randint(8, 19):02}:{rng.choice(('00', '15', '30', '45'))}",
            "guests": rng.sample(FIRST_NAMES, rng.randint(1, 3)),
        }
        for key, title in zip(ids(rng, "EV", 6), titles, strict=True)
    }


calendar = Domain("calendar", failure=json_status, setup=open_calendar)


def _event(events: dict[str, dict], key: str) -> dict:
    if key not in events:
        raise Failure(f"no event with id {key}")
    return events[key]


@calendar.tool
def findEventByTitle(events: dict, /, title: str) -> dict:
    """Find an event by its title.

    title: title of the event
    """
    for key, event in events.items():
        if event["title"].lower() == title.lower():
            return {"eventId": key, "title": event["title"]}
    raise Failure(f"no event titled {title!r}")


@calendar.tool
def findEventsByDate(events: dict, /, date: str) -> dict:
    """List the events of a day.

    date: day such as 2025-03-31
    """
    found = [{"eventId": key, "title": e["title"]} for key, e in events.items() if e["date"] == _iso(date)]
    return {"date": date, "events": found, "errors": []}


@calendar.tool
def getEventTime(events: dict, /, eventId: str) -> dict:
    """Tell when an event takes place.

    eventId: id such as EV-1234
    """
    event = _event(events, eventId)
    return {"date": event["date"], "time": event["time"]}


@calendar.tool
def getEventGuests(events: dict, /, eventId: str) -> dict:
    """List the guests of an event.

    eventId: id such as EV-1234
    """
    return {"guests": _event(events, eventId)["guests"]}


@calendar.tool
def createEvent(events: dict, /, title: str, date: str, time: str, guests: list[str] | None = None) -> dict:
    """Put a new event into the calendar.

    title: title of the event
    date: day such as 2025-03-31
    time: start such as 14:30
    guests: names of the guests
    """
    if not (len(time) == 5 and time[2] == ":" and "00:00" <= time <= "23:59"):
        raise Failure(f"time must look like 14:30, got {time!r}")
    key = f"EV-{1 + max((int(other[3:]) for other in events), default=1000)}"
    events[key] = {"title": title, "date": _iso(date), "time": time, "guests": list(guests or ())}
    return {"created": key}


@calendar.tool
def moveEvent(events: dict, /, eventId: str, newDate: str, newTime: str | None = None) -> dict:
    """Move an event to another day.

    eventId: id such as EV-1234
    newDate: day to move it to
    newTime: new start, unchanged if not given
    """
    event = _event(events, eventId)
    event.update(date=_iso(newDate), time=newTime or event["time"])
    return {"eventId": eventId, "date": event["date"], "time": event["time"]}


@calendar.tool
def deleteEvent(events: dict, /, eventId: str) -> dict:
    """Delete an event.

    eventId: id such as EV-1234
    """
    _event(events, eventId)
    del events[eventId]
    return {"deleted": eventId}


def _iso(text: str) -> str:
    return date.fromisoformat(text).isoformat()


@calendar.task(
    "[What do I have|What is planned] on {day}?",
    "[Show|List] my events on {day}[.|, please.]",
    vague=Vague("[What do I have planned?|Show me my events.]", "For which date?", "[For |It is for |On ]{day}"),
)
def agenda(events: dict, rng: Random) -> Plan:
    day = rng.choice(list(events.values()))["date"]
    yield {"day": day}
    answer = yield call(findEventsByDate, date=day)
    return f"You have {' and '.join(event['title'] for event in answer['events'])}."


@calendar.task(
    "[Put|Enter] '{title}' into my calendar on {day} at {time}[.|, and invite {guests}.]",
    "[Create an event|Make an appointment] '{title}' on {day} at {time}[.| with guests {guests}.]",
)
def new_event(events: dict, rng: Random) -> Plan:
    taken = {event["title"] for event in events.values()}
    title = rng.choice([title for title in TITLES if title not in taken])
    day, time = rng.choice(list(events.values()))["date"], f"{rng.randint(8, 19):02}:{rng.choice(('00', '30'))}"
    guests = rng.sample(FIRST_NAMES, rng.randint(1, 3))
    mentioned = yield {"title": title, "day": day, "time": time, "guests": guests}
    invited = {"guests": guests} if "guests" in mentioned else {}
    answer = yield call(createEvent, title=title, date=day, time=time, **invited)
    return f"The event {title} was created as {answer['created']}."


@calendar.task(
    "When is '{title}'?",
    "[At what time and on which day is|On which day and at what time is] '{title}'?",
)
def when(events: dict, rng: Random) -> Plan:
    title = rng.choice(list(events.values()))["title"]
    yield {"title": title}
    found = yield call(findEventByTitle, title=title)
    answer = yield call(getEventTime, eventId=found["eventId"])
    return f"{title} is on {answer['date']} at {answer['time']}."


@calendar.task(
    "[Move|Shift] '{title}' to {day}[.|, starting at {time}.]",
    "I cannot make it to '{title}'. Put it on {day} instead[.|, at {time}.]",
)
def move(events: dict, rng: Random) -> Plan:
    event = rng.choice(list(events.values()))
    day, time = nearby(rng, date.fromisoformat(event["date"]), 20), f"{rng.randint(8, 19):02}:30"
    mentioned = yield {"title": event["title"], "day": day, "time": time}
    found = yield call(findEventByTitle, title=event["title"])
    start = {"newTime": time} if "time" in mentioned else {}
    answer = yield call(moveEvent, eventId=found["eventId"], newDate=day, **start)
    return f"{event['title']} is now on {answer['date']} at {answer['time']}."


@calendar.task(
    "Who comes to '{title}'? Delete it [then|after that].",
    "[List|Tell me] the guests of '{title}' and then delete the event.",
)
def guests_then_delete(events: dict, rng: Random) -> Plan:
    title = rng.choice(list(events.values()))["title"]
    yield {"title": title}
    found = yield call(findEventByTitle, title=title)
    answer = yield call(getEventGuests, eventId=found["eventId"])
    yield call(deleteEvent, eventId=found["eventId"])
    return f"The guests were {' and '.join(answer['guests'])}. The event {title} was deleted."


@calendar.task(
    "Plan '{title}' at {time} on the day of '{other}', with the same guests.",
    "Create the event '{title}' at {time} on the same day as '{other}' and with the same guests.",
)
def same_guests(events: dict, rng: Random) -> Plan:
    taken = [event["title"] for event in events.values()]
    title, other = rng.choice([title for title in TITLES if title not in taken]), rng.choice(taken)
    time = f"{rng.randint(8, 19):02}:15"
    yield {"title": title, "time": time, "other": other}
    found = yield call(findEventByTitle, title=other)
    day = yield call(getEventTime, eventId=found["eventId"])
    answer = yield call(getEventGuests, eventId=found["eventId"])
    new = yield call(createEvent, title=title, date=day["date"], time=time, guests=answer["guests"])
    return f"The event {title} was created as {new['created']}."
