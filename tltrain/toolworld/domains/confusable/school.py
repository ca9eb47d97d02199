"""Courses and matches: two confusable domains of the training split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import json_status, prefixed
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
from tltrain.toolworld.vocabulary import CITIES, FIRST_NAMES, full_name, full_names, ids

SUBJECTS = ("chess", "pottery", "first aid", "photography", "baking", "sewing", "drawing", "juggling")
LEVELS = ("beginner", "intermediate", "advanced")
HALLS = ("hall A", "hall B", "studio", "library", "gym")


def open_school(rng: Random, today: date) -> Records:
    """Create the state of `courses`: course id -> course."""
    teachers, subjects = full_names(rng, 6), rng.sample(SUBJECTS, 6)
    return {
        key: {
            "subject": subjects[at],
            "teacher": teachers[at],
            "level": rng.choice(LEVELS),
            "place": rng.choice(HALLS),
            "fee": rng.randint(20, 240),
            "free": rng.randint(1, 15),
            "weeks": rng.randint(2, 20),
            "students": [],
        }
        for at, key in enumerate(ids(rng, "CO", 6))
    }


courses = Domain("courses", failure=prefixed, setup=open_school, confusable=True)


@courses.tool
def show_course_by_subject(school: Records, /, subject: str) -> dict:
    """Find the id of the course on a subject.

    subject: what is taught
    """
    return {"course": key_with(school, subject=subject)}


@courses.tool
def show_course_by_teacher(school: Records, /, teacher: str) -> dict:
    """Find the id of the course that somebody teaches.

    teacher: first and last name
    """
    return {"course": key_with(school, teacher=teacher)}


@courses.tool
def show_courses_of_level(school: Records, /, level: str) -> dict:
    """List the ids of the courses of a level.

    level: beginner, intermediate or advanced
    """
    return {"courses": keys_with(school, level=level)}


@courses.tool
def show_courses_in_place(school: Records, /, place: str) -> dict:
    """List the ids of the courses that take place in a room.

    place: name of the room
    """
    return {"courses": keys_with(school, place=place)}


@courses.tool
def showCourseTeacher(school: Records, /, course: str) -> dict:
    """Tell who teaches a course.

    course: id such as CO-1234
    """
    return {"teacher": record(school, course)["teacher"]}


@courses.tool
def showCoursePlace(school: Records, /, course: str) -> dict:
    """Tell in which room a course takes place.

    course: id such as CO-1234
    """
    return {"place": record(school, course)["place"]}


@courses.tool
def showCourseVacancies(school: Records, /, course: str) -> dict:
    """Tell how many students can still join a course.

    course: id such as CO-1234
    """
    return {"free": record(school, course)["free"]}


@courses.tool
def showCourseFee(school: Records, /, course: str, students: int = 1) -> dict:
    """Tell the fee of a course.

    course: id such as CO-1234
    students: number of students, 1 if not given
    """
    return {"fee": record(school, course)["fee"] * students}


@courses.tool
def join_course_as_student(school: Records, /, course: str, name: str) -> dict:
    """Enrol a student in a course.

    course: id such as CO-1234
    name: first and last name
    """
    found = record(school, course)
    found["students"].append(name + "")
    return {"enrolment": f"E{found['fee']}-{len(found['students'])}"}


@courses.tool
def joinCourseAsTeacher(school: Records, /, course: str, name: str) -> dict:
    """Make somebody the teacher of a course.

    course: id such as CO-1234
    name: first and last name
    """
    return {"joined": course, **change(school, course, teacher=name)}


courses.lookup(
    show_course_by_subject,
    "[Which|What] course is about {subject}?",
    "I would like to learn {subject}. [Which course is it?|I need the id of the course.]",
    "Find the course on {subject}.",
    draw=fields_of("subject"),
    answer="The course on {subject} is {course}.",
)
courses.lookup(
    show_course_by_teacher,
    "[Which|What] course does {teacher} teach?",
    "I want to learn from {teacher}. [Which course is it?|Find the course.]",
    draw=fields_of("teacher"),
    answer="{teacher} teaches {course}.",
)
courses.lookup(
    show_courses_of_level,
    "[Which|What] courses have the level {level}?",
    "My level is {level}. [List|Show me] the courses for me.",
    "[Give me|I need] the ids of all {level} courses.",
    draw=fields_of("level"),
    answer="The {level} courses are {courses}.",
    vague=Vague("List the courses of my level.", "What is your level?", "[It is |]{level}"),
)
courses.lookup(
    show_courses_in_place,
    "[Which|What] courses take place in the room '{place}'?",
    "I clean the room '{place}'. [List|Show me] the courses there.",
    "[Give me|I need] the ids of all courses in '{place}'.",
    draw=fields_of("place"),
    answer="In the room '{place}' are {courses}.",
)
courses.lookup(
    showCourseTeacher,
    "[Who|Which teacher] teaches {course}?",
    "I signed up for {course}. [Who is the teacher?|Whose course is it?]",
    draw=a_key("course"),
    answer="{teacher} teaches {course}.",
)
courses.lookup(
    showCoursePlace,
    "[Where|In which room] does {course} take place?",
    "My course {course} begins in a minute! [Which room is it in?|Where do I go?]",
    draw=a_key("course"),
    answer="{course} takes place in '{place}'.",
)
courses.lookup(
    showCourseVacancies,
    "How many [students can still join|free places are there in] {course}?",
    "We would like to come to {course}. [How many places are left?|Is it full, or how many may join?]",
    draw=a_key("course"),
    answer="In {course} {free} places are left.",
)
courses.lookup(
    join_course_as_student,
    "[Enrol|Sign up] {name} for {course}.",
    "{name} wants to learn in {course}. Please enrol this student.",
    draw=a_key_and("course", name=tuple(f"{first} Reed" for first in FIRST_NAMES)),
    answer="The enrolment of {name} is {enrolment}.",
)
courses.lookup(
    joinCourseAsTeacher,
    "[Make|Enter] {name} [|as ]the teacher of {course}.",
    "{name} takes over {course} as its teacher. Please change it.",
    draw=a_key_and("course", name=tuple(f"{first} Reed" for first in FIRST_NAMES)),
    answer="{teacher} now teaches {joined}.",
)


@courses.task(
    "What does {course} cost[?| for {students} students?]",
    "We think about {course}. What is the fee[?| for {students} of us?]",
)
def fee_of_course(school: Records, rng: Random) -> Plan:
    course, students = rng.choice(list(school)), rng.randint(2, 9)
    mentioned = yield {"course": course, "students": students}
    several = {"students": students} if "students" in mentioned else {}
    found = yield call(showCourseFee, course=course, **several)
    return f"The fee of {course} is {found['fee']}."


@courses.task(
    "Where does the course on {subject} take place, and how many places are left?",
    "[Find|Look up] the course on {subject}, its room, and the number of free places.",
)
def place_and_vacancies(school: Records, rng: Random) -> Plan:
    subject = rng.choice(list(school.values()))["subject"]
    yield {"subject": subject}
    found = yield call(show_course_by_subject, subject=subject)
    place = yield call(showCoursePlace, course=found["course"])
    left = yield call(showCourseVacancies, course=found["course"])
    return f"{found['course']} takes place in '{place['place']}', with {left['free']} places left."


@courses.task(
    "[Find|Look up] the course that {teacher} teaches and enrol {name}.",
    "{name} wants to be in the course of {teacher}. Find it and enrol this student.",
)
def enrol_by_teacher(school: Records, rng: Random) -> Plan:
    teacher, name = rng.choice(list(school.values()))["teacher"], full_name(rng)
    yield {"teacher": teacher, "name": name}
    found = yield call(show_course_by_teacher, teacher=teacher)
    enrolled = yield call(join_course_as_student, course=found["course"], name=name)
    return f"{name} is in {found['course']}, with the enrolment {enrolled['enrolment']}."


SPORTS = ("hockey", "rugby", "handball", "volleyball")


def open_league(rng: Random, today: date) -> Records:
    """Create the state of `matches`: match id -> match; no club plays twice."""
    clubs, referees = rng.sample(CITIES, 12), full_names(rng, 6)
    return {
        key: {
            "home": clubs[2 * at],
            "guest": clubs[2 * at + 1],
            "sport": rng.choice(SPORTS),
            "round": str(rng.randint(1, 4)),
            "referee": referees[at],
            "score": f"{rng.randint(0, 30)}:{rng.randint(0, 30)}",
            "visitors": rng.randint(300, 60000),
            "kickoff": f"{rng.randint(11, 21)}:{rng.choice(('00', '15', '30'))}",
        }
        for at, key in enumerate(ids(rng, "MA", 6))
    }


matches = Domain("matches", failure=json_status, setup=open_league, confusable=True)


@matches.tool
def queryMatchByClubs(league: Records, /, home: str, guest: str) -> dict:
    """Find the id of the match between two clubs.

    home: city of the home club
    guest: city of the guests
    """
    return {"match": key_with(league, home=home, guest=guest)}


@matches.tool
def queryMatchByReferee(league: Records, /, referee: str) -> dict:
    """Find the id of a referee's match.

    referee: first and last name
    """
    return {"match": key_with(league, referee=referee)}


@matches.tool
def queryMatchesOfSport(league: Records, /, sport: str) -> dict:
    """List the ids of the matches of a sport.

    sport: sport such as hockey
    """
    return {"matches": keys_with(league, sport=sport)}


@matches.tool
def queryMatchesOfRound(league: Records, /, round: str) -> dict:
    """List the ids of the matches of a round.

    round: number of the round
    """
    return {"matches": keys_with(league, round=round)}


@matches.tool
def query_match_score(league: Records, /, match: str) -> dict:
    """Tell how a match ended.

    match: id such as MA-1234
    """
    return {"score": record(league, match)["score"]}


@matches.tool
def query_match_start(league: Records, /, match: str) -> dict:
    """Tell when a match begins.

    match: id such as MA-1234
    """
    return {"start": record(league, match)["kickoff"]}


@matches.tool
def query_match_visitors(league: Records, /, match: str) -> dict:
    """Tell how many people saw a match.

    match: id such as MA-1234
    """
    return {"visitors": record(league, match)["visitors"]}


@matches.tool
def query_match_clubs(league: Records, /, match: str) -> dict:
    """Tell which clubs play in a match.

    match: id such as MA-1234
    """
    return {"home": record(league, match)["home"], "guest": record(league, match)["guest"]}


@matches.tool
def correctMatchScore(league: Records, /, match: str, score: str) -> dict:
    """Correct the score of a match.

    match: id such as MA-1234
    score: goals such as 3:2
    """
    return {"corrected": match, **change(league, match, score=score)}


@matches.tool
def correct_match_start(league: Records, /, match: str, time: str) -> dict:
    """Correct the time at which a match begins.

    match: id such as MA-1234
    time: time such as 18:30
    """
    return {"corrected": match, **change(league, match, kickoff=time)}


matches.lookup(
    queryMatchByClubs,
    "[Which match is|What is the id of the match] {home} against {guest}?",
    "{home} plays at home against {guest}. [Find the match.|I need the id of the match.]",
    draw=fields_of("home", "guest"),
    answer="{home} against {guest} is {match}.",
)
matches.lookup(
    queryMatchByReferee,
    "[Which|What] match does {referee} referee?",
    "{referee} was a fair referee. [Which match was it?|Find the match.]",
    draw=fields_of("referee"),
    answer="{referee} is the referee of {match}.",
)
matches.lookup(
    queryMatchesOfSport,
    "[Which|What] matches are there in {sport}?",
    "I only watch {sport}. [List|Show me] the matches.",
    "[Give me|I need] the ids of all {sport} matches.",
    draw=fields_of("sport"),
    answer="In {sport} there are {matches}.",
    vague=Vague("List the matches of my sport.", "Which sport is it?", "[It is |]{sport}"),
)
matches.lookup(
    queryMatchesOfRound,
    "[Which|What] matches belong to round {round}?",
    "Round {round} was exciting. [List|Show me] its matches.",
    "[Give me|I need] the ids of all matches in round {round}.",
    draw=fields_of("round"),
    answer="Round {round} has {matches}.",
)
matches.lookup(
    query_match_score,
    "[How did|With what score did] {match} end?",
    "I missed {match}. [What was the score?|How did it end?]",
    draw=a_key("match"),
    answer="The score of {match} is {score}.",
)
matches.lookup(
    query_match_start,
    "[When|At what time] does {match} begin?",
    "We are meeting to watch {match}. [When does it begin?|At what time is it?]",
    draw=a_key("match"),
    answer="{match} begins at {start}.",
)
matches.lookup(
    query_match_visitors,
    "How many [people saw|visitors had] {match}?",
    "The stadium was full at {match}. [How many visitors were there?|What is the number of visitors?]",
    draw=a_key("match"),
    answer="{visitors} people saw {match}.",
)
matches.lookup(
    query_match_clubs,
    "[Who plays|Which clubs play] in {match}?",
    "I have a ticket for {match}. [Which clubs are playing?|Who is it against whom?]",
    draw=a_key("match"),
    answer="In {match}, {home} plays against {guest}.",
)
matches.lookup(
    correctMatchScore,
    "[Correct|Change] the score of {match} to {score}.",
    "{match} really ended {score}. Please correct it.",
    draw=a_key_and("match", score=tuple(f"{home}:{guest}" for home in range(9) for guest in range(9))),
    answer="The score of {corrected} is now {score}.",
)
matches.lookup(
    correct_match_start,
    "[Correct|Change] the beginning of {match} to {time}.",
    "{match} begins at {time}, not as you have it. Please correct it.",
    draw=a_key_and("match", time=tuple(f"{hour}:45" for hour in range(11, 22))),
    answer="{corrected} now begins at {kickoff}.",
)


@matches.task(
    "How did {home} against {guest} end, and how many people saw it?",
    "[Find|Look up] the match {home} against {guest}, its score, and the number of visitors.",
)
def score_and_visitors(league: Records, rng: Random) -> Plan:
    match = rng.choice(list(league.values()))
    yield {"home": match["home"], "guest": match["guest"]}
    found = yield call(queryMatchByClubs, home=match["home"], guest=match["guest"])
    score = yield call(query_match_score, match=found["match"])
    visitors = yield call(query_match_visitors, match=found["match"])
    return f"It ended {score['score']} before {visitors['visitors']} people."


@matches.task(
    "[Find|Look up] the match of the referee {referee} and correct its score to {score}.",
    "The match that {referee} refereed ended {score}. Find it and correct the score.",
)
def score_by_referee(league: Records, rng: Random) -> Plan:
    referee, score = rng.choice(list(league.values()))["referee"], f"{rng.randint(31, 40)}:{rng.randint(0, 30)}"
    yield {"referee": referee, "score": score}
    found = yield call(queryMatchByReferee, referee=referee)
    yield call(correctMatchScore, match=found["match"], score=score)
    return f"The score of {found['match']} is now {score}."
