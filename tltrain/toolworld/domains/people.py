"""Domains about people and their money: contacts, bank."""

from __future__ import annotations

from datetime import date
from random import Random

from tltrain.toolworld.answers import json_success_false, traceback
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call, tidy
from tltrain.toolworld.vocabulary import CITIES, email_of, full_names, ids


def open_contacts(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `contacts`: contact id -> contact."""
    return {
        key: {"name": name, "phone": _phone(rng), "email": email_of(name), "city": rng.choice(CITIES)}
        for key, name in zip(ids(rng, "P", 5), full_names(rng, 5), strict=True)
    }


def _phone(rng: Random) -> str:
    return f"555-{rng.randint(1000, 9999)}"


contacts = Domain("contacts", failure=traceback, setup=open_contacts)


def _contact(people: dict[str, dict], key: str) -> dict:
    if key not in people:
        raise Failure(f"contact {key!r} not found")
    return people[key]


@contacts.tool
def getContactByName(people: dict, /, name: str) -> dict:
    """Find the id of a contact by name.

    name: first and last name
    """
    for key, person in people.items():
        if person["name"].lower() == name.lower():
            return {"contactId": key, "name": person["name"]}
    raise Failure(f"nobody named {name!r}")


@contacts.tool
def getContactPhone(people: dict, /, contactId: str, countryCode: str | None = None) -> dict:
    """Tell the phone number of a contact.

    contactId: id such as P-1234
    countryCode: code to put in front, such as +1
    """
    number = _contact(people, contactId)["phone"]
    return {"phone": f"{countryCode} {number}" if countryCode else number}


@contacts.tool
def getContactEmail(people: dict, /, contactId: str) -> dict:
    """Tell the email address of a contact.

    contactId: id such as P-1234
    """
    return {"email": _contact(people, contactId)["email"]}


@contacts.tool
def getContactCity(people: dict, /, contactId: str) -> dict:
    """Tell where a contact lives.

    contactId: id such as P-1234
    """
    return {"city": _contact(people, contactId)["city"]}


@contacts.tool
def updateContactPhone(people: dict, /, contactId: str, phone: str) -> dict:
    """Change the phone number of a contact.

    contactId: id such as P-1234
    phone: new number
    """
    _contact(people, contactId)["phone"] = phone + ""
    return {"updated": contactId, "phone": phone}


@contacts.tool
def addContact(people: dict, /, name: str, phone: str, city: str | None = None) -> dict:
    """Add a person to the contacts.

    name: first and last name
    phone: phone number
    city: where the person lives
    """
    if any(person["name"] == name for person in people.values()):
        raise Failure(f"{name} is in the contacts already")
    key = f"P-{1 + max(int(other[2:]) for other in people)}"
    people[key] = {"name": name, "phone": phone, "email": email_of(name), "city": city}
    return {"added": key}


@contacts.task(
    "[Add|Save] {name} with the phone number {phone}[| and the city {city}] to my contacts.",
    "I met {name}. Save the number {phone}[.|, and that the city is {city}.]",
    vague=Vague("[Add|Save] {name} to my contacts.", "What is the phone number?", "[It is |]{phone}"),
)
def new_contact(people: dict, rng: Random) -> Plan:
    known = {person["name"] for person in people.values()}
    name = next(name for name in full_names(rng, 40) if name not in known)
    phone, city = _phone(rng), rng.choice(CITIES)
    mentioned = yield {"name": name, "phone": phone, "city": city}
    living = {"city": city} if "city" in mentioned else {}
    answer = yield call(addContact, name=name, phone=phone, **living)
    return f"{name} was added as {answer['added']}."


@contacts.task(
    "[Where does the contact {contact} live?|In which city is the contact {contact}?]",
    "[Tell me|I need] the city of the contact with the id {contact}.",
)
def city_of_contact(people: dict, rng: Random) -> Plan:
    contact = rng.choice(list(people))
    yield {"contact": contact}
    answer = yield call(getContactCity, contactId=contact)
    return f"The contact lives in {answer['city']}."


@contacts.task(
    "What is the phone number of {name}?",
    "[I want to call|Help me call] {name}. [Which number do I dial|What is the number][?|, with the code {code}?]",
    vague=Vague("[I need a phone number.|I want to call somebody. What number?]", "Whose number?", "{name}['s|]"),
)
def phone_of(people: dict, rng: Random) -> Plan:
    name, code = rng.choice(list(people.values()))["name"], f"+{rng.randint(1, 90)}"
    mentioned = yield {"name": name, "code": code}
    found = yield call(getContactByName, name=name)
    front = {"countryCode": code} if "code" in mentioned else {}
    answer = yield call(getContactPhone, contactId=found["contactId"], **front)
    return f"The phone number of {name} is {answer['phone']}."


@contacts.task(
    "{name} has a new number, {phone}. [Change it in my contacts.|Please update it.]",
    "[Set|Change] the phone number of {name} to {phone}.",
)
def new_number(people: dict, rng: Random) -> Plan:
    name, phone = rng.choice(list(people.values()))["name"], _phone(rng)
    yield {"name": name, "phone": phone}
    found = yield call(getContactByName, name=name)
    yield call(updateContactPhone, contactId=found["contactId"], phone=phone)
    return f"The phone number of {name} is now {phone}."


@contacts.task(
    "[Give me|I need] the email and the city of {name}.",
    "What is the email of {name}, and [where do they live|which city do they live in]?",
)
def email_and_city(people: dict, rng: Random) -> Plan:
    name = rng.choice(list(people.values()))["name"]
    yield {"name": name}
    found = yield call(getContactByName, name=name)
    email = yield call(getContactEmail, contactId=found["contactId"])
    city = yield call(getContactCity, contactId=found["contactId"])
    return f"The email is {email['email']} and the city is {city['city']}."


@contacts.task(
    "[Tell me|I need] the email of {one} and the city of {two}.",
    "What is the email of {one}, and where does {two} live?",
)
def two_people(people: dict, rng: Random) -> Plan:
    one, two = (person["name"] for person in rng.sample(list(people.values()), 2))
    yield {"one": one, "two": two}
    first = yield call(getContactByName, name=one)
    email = yield call(getContactEmail, contactId=first["contactId"])
    second = yield call(getContactByName, name=two)
    city = yield call(getContactCity, contactId=second["contactId"])
    return f"The email of {one} is {email['email']} and {two} lives in {city['city']}."


def open_bank(rng: Random, today: date) -> dict[str, dict]:
    """Create the state of `bank`: account id -> account."""
    return {
        key: {"owner": name, "balance": rng.randint(500, 9000), "frozen": False}
        for key, name in zip(ids(rng, "AC", 5), full_names(rng, 5), strict=True)
    }


bank = Domain("bank", failure=json_success_false, setup=open_bank)


def _account(accounts: dict[str, dict], key: str) -> dict:
    if key not in accounts:
        raise Failure(f"account {key} does not exist")
    return accounts[key]


@bank.tool
def get_account_by_owner(accounts: dict, /, owner: str) -> dict:
    """Find the account of a person.

    owner: first and last name
    """
    for key, account in accounts.items():
        if account["owner"] == owner:
            return {"success": True, "account_id": key}
    raise Failure(f"{owner} has no account")


@bank.tool
def get_account_owner(accounts: dict, /, account_id: str) -> dict:
    """Tell whose an account is.

    account_id: id such as AC-1234
    """
    return {"success": True, "owner": _account(accounts, account_id)["owner"]}


@bank.tool
def get_account_balance(accounts: dict, /, account_id: str) -> dict:
    """Tell how much money is in an account.

    account_id: id such as AC-1234
    """
    return {"success": True, "balance": _account(accounts, account_id)["balance"]}


@bank.tool
def transfer_money(
    accounts: dict, /, from_account: str, to_account: str, amount: float, purpose: str | None = None
) -> dict:
    """Move money from one account to another.

    from_account: account to take it from
    to_account: account to pay it into
    amount: how much
    purpose: text for the receiver
    """
    source, target = _account(accounts, from_account), _account(accounts, to_account)
    if not 0 < amount <= source["balance"]:
        raise Failure(f"amount {amount} is not covered")
    source["balance"], target["balance"] = tidy(source["balance"] - amount), tidy(target["balance"] + amount)
    return {"success": True, "balance": source["balance"]}


@bank.tool
def deposit_money(accounts: dict, /, account_id: str, amount: float) -> dict:
    """Pay cash into an account.

    account_id: id such as AC-1234
    amount: how much
    """
    if amount <= 0:
        raise Failure("amount must be positive")
    account = _account(accounts, account_id)
    account["balance"] = tidy(account["balance"] + amount)
    return {"success": True, "balance": account["balance"], "errors": 0}


@bank.tool
def freeze_account(accounts: dict, /, account_id: str) -> dict:
    """Block all payments of an account.

    account_id: id such as AC-1234
    """
    _account(accounts, account_id)["frozen"] = True
    return {"success": True, "frozen": account_id}


@bank.task(
    "[How much money|How much] is in account {account}?",
    "[What is the balance of account {account}?|Tell me the balance of account {account}.]",
    vague=Vague("[How much money do I have?|What is my balance?]", "What is your account id?", "[It is |]{account}"),
)
def balance(accounts: dict, rng: Random) -> Plan:
    account = rng.choice(list(accounts))
    yield {"account": account}
    answer = yield call(get_account_balance, account_id=account)
    return f"The balance of account {account} is {answer['balance']}."


@bank.task(
    "[Transfer|Send] {amount} from account {one} to account {two}[.| for '{purpose}'.]",
    "Please [move|pay] {amount} from {one} to {two}[.|, purpose '{purpose}'.]",
)
def transfer(accounts: dict, rng: Random) -> Plan:
    one, two = rng.sample(list(accounts), 2)
    amount, purpose = rng.randint(5, 400), rng.choice(("rent", "concert tickets", "dinner", "thank you"))
    mentioned = yield {"amount": amount, "one": one, "two": two, "purpose": purpose}
    note = {"purpose": purpose} if "purpose" in mentioned else {}
    yield call(transfer_money, from_account=one, to_account=two, amount=amount, **note)
    return f"{amount} was transferred from {one} to {two}."


@bank.task(
    "What is the balance of {owner}?",
    "How much money [has {owner}|does {owner} have] in the bank?",
)
def balance_of_owner(accounts: dict, rng: Random) -> Plan:
    owner = rng.choice(list(accounts.values()))["owner"]
    yield {"owner": owner}
    found = yield call(get_account_by_owner, owner=owner)
    answer = yield call(get_account_balance, account_id=found["account_id"])
    return f"The balance of {owner} is {answer['balance']}."


@bank.task(
    "{owner} lost the bank card. [Block|Freeze] the account [at once.|please.]",
    "[Find and freeze|Freeze] the account of {owner}.",
)
def freeze(accounts: dict, rng: Random) -> Plan:
    owner = rng.choice(list(accounts.values()))["owner"]
    yield {"owner": owner}
    found = yield call(get_account_by_owner, owner=owner)
    yield call(freeze_account, account_id=found["account_id"])
    return f"Account {found['account_id']} was frozen."


@bank.task(
    "[Transfer|Send] {amount} from {one} to {two}.",
    "{one} owes {two} {amount}. [Make the transfer|Move the money] between their accounts.",
)
def transfer_between_owners(accounts: dict, rng: Random) -> Plan:
    one, two = (account["owner"] for account in rng.sample(list(accounts.values()), 2))
    amount = rng.randint(5, 400)
    yield {"amount": amount, "one": one, "two": two}
    source = yield call(get_account_by_owner, owner=one)
    target = yield call(get_account_by_owner, owner=two)
    yield call(transfer_money, from_account=source["account_id"], to_account=target["account_id"], amount=amount)
    return f"{amount} was transferred from {one} to {two}."
