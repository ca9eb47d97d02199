"""A lending library and a till: two domains of the test split."""

from __future__ import annotations

from datetime import date, timedelta
from random import Random

from tltrain.toolworld.answers import json_error, prefixed
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call, tidy
from tltrain.toolworld.vocabulary import FIRST_NAMES, full_names, ids, listed

BOOKS = listed(
    "Trial and Error, The Silent Harbor, A Winter in Oslo, The Glass Orchard, Comedy of Errors, Maps of Nowhere, "
    "The Last Lighthouse, Salt and Stone, An Honest Thief, The Error in the Clock, Paper Boats, Night Train North"
)


def open_library(rng: Random, today: date) -> dict:
    """Create the state of `library`: books by id, members' ids, and today's date."""
    authors = full_names(rng, 6)
    return {
        "today": today,
        "members": ids(rng, "M", 3),
        "books": {
            key: {
                "title": title,
                "author": author,
                "shelf": f"{rng.choice('ABCDEF')}{rng.randint(1, 40)}",
                "copies": rng.randint(1, 5),
            }
            for key, title, author in zip(ids(rng, "BK", 6), rng.sample(BOOKS, 6), authors, strict=True)
        },
    }


library = Domain("library", failure=json_error, setup=open_library)


def _book(state: dict, key: str) -> dict:
    if key not in state["books"]:
        raise Failure(f"no book with id {key}")
    return state["books"][key]


@library.tool
def find_book_by_title(state: dict, /, title: str) -> dict:
    """Find a book by its title.

    title: title of the book
    """
    for key, book in state["books"].items():
        if book["title"].lower() == title.lower():
            return {"book_id": key, "title": book["title"], "author": book["author"]}
    raise Failure(f"no book titled {title!r}")


@library.tool
def find_books_by_author(state: dict, /, author: str) -> dict:
    """List the books of an author.

    author: first and last name
    """
    books = [{"book_id": k, "title": b["title"]} for k, b in state["books"].items() if b["author"] == author]
    return {"author": author, "books": books}


@library.tool
def get_book_shelf(state: dict, /, book_id: str) -> dict:
    """Tell on which shelf a book stands.

    book_id: id such as BK-1234
    """
    return {"book_id": book_id, "shelf": _book(state, book_id)["shelf"]}


@library.tool
def get_book_copies(state: dict, /, book_id: str) -> dict:
    """Tell how many copies of a book can be borrowed.

    book_id: id such as BK-1234
    """
    return {"book_id": book_id, "copies": _book(state, book_id)["copies"]}


@library.tool
def borrow_book(state: dict, /, book_id: str, member_id: str, days: int = 14) -> dict:
    """Lend a book to a member.

    book_id: id such as BK-1234
    member_id: id such as M-1234
    days: how long, 14 if not given
    """
    book = _book(state, book_id)
    if member_id not in state["members"]:
        raise Failure(f"no member with id {member_id}")
    if book["copies"] == 0:
        raise Failure("no copy left")
    due = (state["today"] + timedelta(days)).isoformat()
    book["copies"] -= 1
    return {"book_id": book_id, "due": due}


@library.task(
    "[On which shelf|Where] is the book {book}?",
    "[I am looking for|Help me find] the book with the id {book}. On which shelf does it stand?",
    vague=Vague("On which shelf does my book stand?", "What is the id of the book?", "[Its id is |]{book}"),
)
def shelf(state: dict, rng: Random) -> Plan:
    book = rng.choice(list(state["books"]))
    yield {"book": book}
    answer = yield call(get_book_shelf, book_id=book)
    return f"The book is on shelf {answer['shelf']}."


@library.task(
    "[Which books by|What by] {author} do you have?",
    "[List|Show me] everything the library has by {author}.",
)
def by_author(state: dict, rng: Random) -> Plan:
    author = rng.choice(list(state["books"].values()))["author"]
    yield {"author": author}
    answer = yield call(find_books_by_author, author=author)
    return f"The library has {' and '.join(book['title'] for book in answer['books'])}."


@library.task(
    "[Lend|Check out] the book {book} to the member {member}[.| for {days} days.]",
    "The member {member} wants to borrow the book {book}[.| for {days} days.]",
)
def lend(state: dict, rng: Random) -> Plan:
    book, member, days = rng.choice(list(state["books"])), rng.choice(state["members"]), rng.randint(3, 40)
    mentioned = yield {"book": book, "member": member, "days": days}
    period = {"days": days} if "days" in mentioned else {}
    answer = yield call(borrow_book, book_id=book, member_id=member, **period)
    return f"The book {book} is due on {answer['due']}."


@library.task(
    "How many copies of '{title}' [can be borrowed|are there to borrow]?",
    "Is there a copy of '{title}' [left|for me]? Tell me how many.",
)
def copies_of_title(state: dict, rng: Random) -> Plan:
    title = rng.choice(list(state["books"].values()))["title"]
    yield {"title": title}
    found = yield call(find_book_by_title, title=title)
    answer = yield call(get_book_copies, book_id=found["book_id"])
    return f"Copies of {title} to borrow: {answer['copies']}."


@library.task(
    "On which shelf is '{title}', and how many copies are there? [Lend one to|Then lend one to] {member}.",
    "Find '{title}': I need its shelf and the number of copies, and then borrow it for the member {member}.",
)
def find_and_lend(state: dict, rng: Random) -> Plan:
    title, member = rng.choice(list(state["books"].values()))["title"], rng.choice(state["members"])
    yield {"title": title, "member": member}
    found = yield call(find_book_by_title, title=title)
    place = yield call(get_book_shelf, book_id=found["book_id"])
    count = yield call(get_book_copies, book_id=found["book_id"])
    loan = yield call(borrow_book, book_id=found["book_id"], member_id=member)
    return f"{title} is on shelf {place['shelf']}. Copies: {count['copies']}. The loan is due on {loan['due']}."


@library.task(
    "[Borrow|Get] a book by {author} for the member {member} and tell me its shelf.",
    "The member {member} wants the first book by {author}. Lend it and say on which shelf it stands.",
)
def lend_by_author(state: dict, rng: Random) -> Plan:
    author, member = rng.choice(list(state["books"].values()))["author"], rng.choice(state["members"])
    yield {"author": author, "member": member}
    found = yield call(find_books_by_author, author=author)
    book = found["books"][0]
    loan = yield call(borrow_book, book_id=book["book_id"], member_id=member)
    place = yield call(get_book_shelf, book_id=book["book_id"])
    return f"{book['title']} is due on {loan['due']} and stands on shelf {place['shelf']}."


finance = Domain("finance", failure=prefixed)


@finance.tool
def sumPrices(prices: list[float]) -> float:
    """Add up prices.

    prices: prices to add up
    """
    if not prices:
        raise Failure("prices is empty")
    return tidy(sum(prices))


@finance.tool
def addTax(price: float, taxPercent: float = 20) -> float:
    """Put tax on a price.

    price: price without tax
    taxPercent: tax rate, 20 if not given
    """
    return tidy(price * (1 + taxPercent / 100))


@finance.tool
def addTip(price: float, tipPercent: float = 10) -> float:
    """Put a tip on a price.

    price: price without tip
    tipPercent: tip, 10 if not given
    """
    return tidy(price * (1 + tipPercent / 100))


@finance.tool
def applyDiscount(price: float, discountPercent: float) -> float:
    """Take a discount off a price.

    price: price before the discount
    discountPercent: percent to take off
    """
    if not 0 <= discountPercent <= 100:
        raise Failure(f"discountPercent must be from 0 to 100, got {discountPercent}")
    return tidy(price * (1 - discountPercent / 100))


@finance.tool
def splitAmount(amount: float, people: list[str]) -> dict:
    """Split an amount between people.

    amount: money to split
    people: their names
    """
    if not people:
        raise Failure("people is empty")
    return {"share": tidy(amount / len(people)), "people": people, "rounding_errors": 0}


def _price(rng: Random) -> float:
    return tidy(rng.randint(200, 20000) / 100)


@finance.task(
    "[What do I pay for|What is the price of] a ticket of {price} euro with {percent} percent off?",
    "[Take|Please take] a discount of {percent} percent off {price}.",
    vague=Vague("What is {price} after my discount?", "How many percent is it?", "[It is |]{percent}[ percent|]"),
)
def discount(_: None, rng: Random) -> Plan:
    price, percent = _price(rng), rng.randint(5, 70)
    yield {"price": price, "percent": percent}
    answer = yield call(applyDiscount, price=price, discountPercent=percent)
    return f"The price is {answer}."


@finance.task(
    "What does a net price of {price} come to with tax[?| of {percent} percent?]",
    "[Add|Put] the tax[| of {percent} percent] on {price}.",
)
def tax(_: None, rng: Random) -> Plan:
    price, percent = _price(rng), rng.randint(5, 27)
    mentioned = yield {"price": price, "percent": percent}
    rate = {"taxPercent": percent} if "percent" in mentioned else {}
    answer = yield call(addTax, price=price, **rate)
    return f"The price with tax is {answer}."


@finance.task(
    "[The bill is|We had a dinner for] {price}. Add a tip of {percent} percent and split it between {people}.",
    "Put {percent} percent tip on {price}. [What is the share of each of|How much is it for each of] {people}?",
)
def dinner(_: None, rng: Random) -> Plan:
    price, percent, people = _price(rng), rng.randint(5, 25), rng.sample(FIRST_NAMES, rng.randint(2, 4))
    yield {"price": price, "percent": percent, "people": people}
    total = yield call(addTip, price=price, tipPercent=percent)
    answer = yield call(splitAmount, amount=total, people=people)
    return f"Everyone pays {answer['share']}."


@finance.task(
    "I buy things for {prices}. The sum has a discount of {percent} percent. [What do I pay with tax?|Add the tax.]",
    "Sum the prices {prices}. Take {percent} percent off, and put the tax on what is left.",
)
def basket(_: None, rng: Random) -> Plan:
    prices, percent = [_price(rng) for _ in range(rng.randint(2, 4))], rng.randint(5, 50)
    yield {"prices": prices, "percent": percent}
    total = yield call(sumPrices, prices=prices)
    reduced = yield call(applyDiscount, price=total, discountPercent=percent)
    answer = yield call(addTax, price=reduced)
    return f"You pay {answer}."


@finance.task(
    "Sum the prices {prices}. Add the tax and a tip of {percent} percent, and split that between {people}.",
    "The dishes cost {prices}. Tax comes on top, then {percent} percent tip. How much is it for each of {people}?",
)
def restaurant(_: None, rng: Random) -> Plan:
    prices, percent = [_price(rng) for _ in range(rng.randint(2, 3))], rng.randint(5, 25)
    people = rng.sample(FIRST_NAMES, rng.randint(2, 3))
    yield {"prices": prices, "percent": percent, "people": people}
    total = yield call(sumPrices, prices=prices)
    taxed = yield call(addTax, price=total)
    tipped = yield call(addTip, price=taxed, tipPercent=percent)
    answer = yield call(splitAmount, amount=tipped, people=people)
    return f"Everyone pays {answer['share']}."
