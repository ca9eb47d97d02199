"""An office's to-do list and its staff: two domains of the test split."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import json_status, value_error
from tltrain.toolworld.domains.times import nearby
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call
from tltrain.toolworld.vocabulary import FIRST_NAMES, full_names, ids, listed

CHORES = listed(
    "send invoices, order chairs, fix login error, update handbook, book venue, renew license, clean printer, "
    "write error report, call supplier, plan offsite, archive mails, test backups"
)
PROJECTS = listed("Atlas, Borealis, Cobalt, Delta, Everest, Fjord")
PRIORITIES = ("low", "medium", "high")


def open_list(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `todo`: task id -> task; no two open tasks belong to one project."""
    return {
        key: {
            "title": title,
            "project": project,
            "due": nearby(rng, today, 60),
            "priority": rng.choice(PRIORITIES),
            "done": False,
            "assignee": rng.choice(FIRST_NAMES),
        }
        for key, title, project in zip(ids(rng, "T", 5), rng.sample(CHORES, 5), rng.sample(PROJECTS, 5), strict=True)
    }


todo = Domain("todo", failure=json_status, setup=open_list)


def _task(tasks: dict[str, dict], key: str) -> dict:
    if key not in tasks:
        raise Failure(f"task {key} not found")
    return tasks[key]


@todo.tool
def findTaskByTitle(tasks: dict, /, title: str) -> dict:
    """Find a task by its title.

    title: title of the task
    """
    for key, task in tasks.items():
        if task["title"].lower() == title.lower():
            return {"taskId": key, "title": task["title"]}
    raise Failure(f"no task titled {title!r}")


@todo.tool
def findTasksByProject(tasks: dict, /, project: str) -> dict:
    """List the tasks of a project.

    project: name of the project
    """
    found = [{"taskId": key, "title": task["title"]} for key, task in tasks.items() if task["project"] == project]
    return {"project": project, "tasks": found}


@todo.tool
def getTaskDueDate(tasks: dict, /, taskId: str) -> dict:
    """Tell when a task is due.

    taskId: id such as T-1234
    """
    return {"taskId": taskId, "dueDate": _task(tasks, taskId)["due"]}


@todo.tool
def getTaskAssignee(tasks: dict, /, taskId: str) -> dict:
    """Tell who works on a task.

    taskId: id such as T-1234
    """
    return {"taskId": taskId, "assignee": _task(tasks, taskId)["assignee"]}


@todo.tool
def setTaskPriority(tasks: dict, /, taskId: str, priority: str) -> dict:
    """Change the priority of a task.

    taskId: id such as T-1234
    priority: low, medium or high
    """
    if priority not in PRIORITIES:
        raise Failure(f"priority {priority!r} is not supported")
    _task(tasks, taskId)["priority"] = priority
    return {"taskId": taskId, "priority": priority}


@todo.tool
def addTask(tasks: dict, /, title: str, project: str, dueDate: str | None = None) -> dict:
    """Add a task to a project.

    title: title of the task
    project: name of the project
    dueDate: day such as 2025-03-31
    """
    due = date.fromisoformat(dueDate).isoformat() if dueDate else None
    key = f"T-{1 + max(int(other[2:]) for other in tasks)}"
    tasks[key] = {"title": title, "project": project, "due": due, "priority": "medium", "done": False, "assignee": None}
    return {"added": key, "errors": []}


@todo.tool
def completeTask(tasks: dict, /, taskId: str, comment: str | None = None) -> dict:
    """Mark a task as done.

    taskId: id such as T-1234
    comment: remark to keep with it
    """
    _task(tasks, taskId).update(done=True, comment=comment)
    return {"taskId": taskId, "done": True}


@todo.task(
    "[When is task {task} due?|By which date must task {task} be done?]",
    "[I am working on|I was given] the task {task}. What is its due date?",
    vague=Vague("[When is my task due?|What is the due date of my task?]", "Which task id?", "[It is |]{task}"),
)
def due_date(tasks: dict, rng: Random) -> Plan:
    task = rng.choice(list(tasks))
    yield {"task": task}
    answer = yield call(getTaskDueDate, taskId=task)
    return f"Task {task} is due on {answer['dueDate']}."


@todo.task(
    "[Add '{title}' to|Put '{title}' into] the project {project}[.|, due on {due}.]",
    "There is a new task for the project {project}: '{title}'[.|, and it is due on {due}.]",
)
def new_task(tasks: dict, rng: Random) -> Plan:
    title = rng.choice([chore for chore in CHORES if chore not in {task["title"] for task in tasks.values()}])
    project, due = rng.choice(PROJECTS), rng.choice(list(tasks.values()))["due"]
    mentioned = yield {"title": title, "project": project, "due": due}
    until = {"dueDate": due} if "due" in mentioned else {}
    answer = yield call(addTask, title=title, project=project, **until)
    return f"The task {title} was added as {answer['added']}."


@todo.task(
    "[Who works on|Who takes care of|Whose job is] '{title}'?",
    "[Tell me|I need to know] who the task '{title}' is assigned to.",
)
def assignee(tasks: dict, rng: Random) -> Plan:
    title = rng.choice(list(tasks.values()))["title"]
    yield {"title": title}
    found = yield call(findTaskByTitle, title=title)
    answer = yield call(getTaskAssignee, taskId=found["taskId"])
    return f"{answer['assignee']} works on {title}."


@todo.task(
    "I have finished '{title}'. [Mark it as done|Check it off][.|, with the comment '{comment}'.]",
    "Mark the task '{title}' as done[.| and keep the remark '{comment}'.]",
)
def done(tasks: dict, rng: Random) -> Plan:
    title, comment = rng.choice(list(tasks.values()))["title"], rng.choice(("no errors", "took two days", "checked"))
    mentioned = yield {"title": title, "comment": comment}
    found = yield call(findTaskByTitle, title=title)
    remark = {"comment": comment} if "comment" in mentioned else {}
    yield call(completeTask, taskId=found["taskId"], **remark)
    return f"The task {title} is done."


@todo.task(
    "[Give|Set] the task of the project {project} the priority {priority} and tell me who works on it.",
    "Find the task of the project {project}, set its priority to {priority}, and say who it is assigned to.",
)
def project_priority(tasks: dict, rng: Random) -> Plan:
    project, priority = rng.choice(list(tasks.values()))["project"], rng.choice(PRIORITIES)
    yield {"project": project, "priority": priority}
    found = yield call(findTasksByProject, project=project)
    yield call(setTaskPriority, taskId=found["tasks"][0]["taskId"], priority=priority)
    answer = yield call(getTaskAssignee, taskId=found["tasks"][0]["taskId"])
    return f"The priority is now {priority}, and {answer['assignee']} works on it."


@todo.task(
    "Add '{title}' to the project {project} with the same due date as '{other}', and give it {priority} priority.",
    "Look up when '{other}' is due, add '{title}' to the project {project} for that day, with {priority} priority.",
)
def task_like_another(tasks: dict, rng: Random) -> Plan:
    taken = [task["title"] for task in tasks.values()]
    title, other = rng.choice([chore for chore in CHORES if chore not in taken]), rng.choice(taken)
    project, priority = rng.choice(PROJECTS), rng.choice(("low", "high"))
    yield {"title": title, "other": other, "project": project, "priority": priority}
    found = yield call(findTaskByTitle, title=other)
    due = yield call(getTaskDueDate, taskId=found["taskId"])
    new = yield call(addTask, title=title, project=project, dueDate=due["dueDate"])
    yield call(setTaskPriority, taskId=new["added"], priority=priority)
    return f"The task {title} was added as {new['added']}, due on {due['dueDate']}, with {priority} priority."


TEAMS = listed("Design, Finance, Legal, Logistics, Marketing, Research, Support")


def open_staff(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `staff`: employee id -> employee; each has a separate team and reports to the next."""
    keys = ids(rng, "E", 5)
    return {
        key: {
            "name": name,
            "team": team,
            "manager": keys[(at + 1) % 5],
            "room": rng.randint(100, 399),
            "vacation": rng.randint(2, 28),
        }
        for at, (key, name, team) in enumerate(zip(keys, full_names(rng, 5), rng.sample(TEAMS, 5), strict=True))
    }


staff = Domain("staff", failure=value_error, setup=open_staff)


def _employee(people: dict[str, dict], key: str) -> dict:
    if key not in people:
        raise Failure(f"employee_id {key!r} is not valid")
    return people[key]


@staff.tool
def get_employee_by_name(people: dict, /, name: str) -> dict:
    """Find an employee by name.

    name: first and last name
    """
    for key, person in people.items():
        if person["name"] == name:
            return {"employee_id": key}
    raise Failure(f"no employee is named {name}")


@staff.tool
def get_employees_by_team(people: dict, /, team: str) -> dict:
    """List the employees of a team.

    team: name of the team
    """
    if team not in TEAMS:
        raise Failure(f"no team is named {team}")
    return {"employee_ids": [key for key, person in people.items() if person["team"] == team]}


@staff.tool
def get_employee_name(people: dict, /, employee_id: str) -> dict:
    """Tell the name of an employee.

    employee_id: id such as E-1234
    """
    return {"name": _employee(people, employee_id)["name"]}


@staff.tool
def get_employee_manager(people: dict, /, employee_id: str) -> dict:
    """Tell the id of an employee's manager.

    employee_id: id such as E-1234
    """
    return {"manager_id": _employee(people, employee_id)["manager"]}


@staff.tool
def get_employee_room(people: dict, /, employee_id: str) -> dict:
    """Tell the room an employee sits in.

    employee_id: id such as E-1234
    """
    return {"room": _employee(people, employee_id)["room"]}


@staff.tool
def get_vacation_days(people: dict, /, employee_id: str, year: int | None = None) -> dict:
    """Tell how many days of vacation an employee has left.

    employee_id: id such as E-1234
    year: year to look at, this one if not given
    """
    return {"days": _employee(people, employee_id)["vacation"], "year": "this" if year is None else year + 0}


@staff.task(
    "How many [vacation days|days of vacation] [does employee {employee} have|are left for employee {employee}]"
    "[?| in {year}?]",
    "My employee id is {employee}. How many vacation days do I have left[?| in {year}?]",
    vague=Vague("How many vacation days do I have left?", "What is your employee id?", "[It is |]{employee}"),
)
def vacation(people: dict, rng: Random) -> Plan:
    employee, year = rng.choice(list(people)), rng.randint(2024, 2027)
    mentioned = yield {"employee": employee, "year": year}
    when = {"year": year} if "year" in mentioned else {}
    answer = yield call(get_vacation_days, employee_id=employee, **when)
    return f"{answer['days']} vacation days are left."


@staff.task(
    "In which room [does {name} sit|is {name}]?",
    "I have to see {name}. [Which room do I go to?|Where do I go?]",
)
def room_of(people: dict, rng: Random) -> Plan:
    name = rng.choice(list(people.values()))["name"]
    yield {"name": name}
    found = yield call(get_employee_by_name, name=name)
    answer = yield call(get_employee_room, employee_id=found["employee_id"])
    return f"{name} sits in room {answer['room']}."


@staff.task(
    "Who works in the team {team}? [I need the name.|Tell me the name.]",
    "[Find|Look up] the employee in the team {team} and tell me the name.",
)
def who_in_team(people: dict, rng: Random) -> Plan:
    team = rng.choice(list(people.values()))["team"]
    yield {"team": team}
    found = yield call(get_employees_by_team, team=team)
    answer = yield call(get_employee_name, employee_id=found["employee_ids"][0])
    return f"{answer['name']} works in the team {team}."


@staff.task(
    "Who is the manager of {name}?",
    "[Whom does {name} report to?|I want to write to the manager of {name}. What is the name?]",
)
def manager_of(people: dict, rng: Random) -> Plan:
    name = rng.choice(list(people.values()))["name"]
    yield {"name": name}
    found = yield call(get_employee_by_name, name=name)
    above = yield call(get_employee_manager, employee_id=found["employee_id"])
    answer = yield call(get_employee_name, employee_id=above["manager_id"])
    return f"The manager of {name} is {answer['name']}."


@staff.task(
    "In which room does the manager of {name} sit, and what is the manager's name?",
    "[Find|Look up] the manager of {name}, and tell me the manager's room and then the name.",
)
def managers_room(people: dict, rng: Random) -> Plan:
    name = rng.choice(list(people.values()))["name"]
    yield {"name": name}
    found = yield call(get_employee_by_name, name=name)
    above = yield call(get_employee_manager, employee_id=found["employee_id"])
    room = yield call(get_employee_room, employee_id=above["manager_id"])
    answer = yield call(get_employee_name, employee_id=above["manager_id"])
    return f"The manager of {name} is {answer['name']} in room {room['room']}."
