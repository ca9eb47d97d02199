"""A shop over SQLite in memory: customers, products, orders."""

from __future__ import annotations

import sqlite3
from datetime import date
from random import Random
from sqlite3 import Connection
from typing import Any

from tltrain.toolworld.answers import json_error
from tltrain.toolworld.domains.conversions import CURRENCIES, convert_currency
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call
from tltrain.toolworld.vocabulary import email_of, full_names, ids

PRODUCTS = {
    "desk lamp": "warm light",
    "error-proof alarm clock": "never rings late",
    "garden hose": "20 m long",
    "coffee grinder": "steel, two speeds",
    "rain jacket": "return is not supported",
    "chess set": "made of oak",
    "bike helmet": "size M",
    "tea kettle": "holds 1.7 l",
    "wool blanket": "hand wash",
    "USB hub": "corrects every transmission error",
    "yoga mat": "non-slip",
    "wall map": "printed without a single error",
}
STATUSES = ("packed", "shipped", "delivered", "waiting for payment")


def open_shop(rng: Random, today: date) -> Connection:
    """Create the state of `shop`: a database of four customers with one or two orders each."""
    shop = sqlite3.connect(":memory:")
    shop.executescript(
        "create table customers (id text primary key, name text, email text);"
        "create table products (name text primary key, price real, stock integer, description text);"
        "create table orders (id text primary key, customer text, product text, quantity integer, status text);"
    )
    names, products = full_names(rng, 4), rng.sample(list(PRODUCTS), 5)
    customers = list(zip(ids(rng, "C", 4), names, map(email_of, names), strict=True))
    shop.executemany("insert into customers values (?, ?, ?)", customers)
    stocked = [(name, rng.randint(300, 9900) / 100, rng.randint(1, 80), PRODUCTS[name]) for name in products]
    shop.executemany("insert into products values (?, ?, ?, ?)", stocked)
    buyers = [customer for customer, *_ in customers] + [customers[0][0]]
    orders = [
        (order, buyer, rng.choice(products), rng.randint(1, 6), rng.choice(STATUSES))
        for order, buyer in zip(ids(rng, "O", 5), buyers, strict=True)
    ]
    shop.executemany("insert into orders values (?, ?, ?, ?, ?)", orders)
    return shop


shop = Domain("shop", failure=json_error, setup=open_shop)


def _row(db: Connection, query: str, value: str, missing: str) -> tuple[Any, ...]:
    """Return the row that `query` finds for `value`. Raise Failure with `missing` and the value if there is none."""
    row = db.execute(query, (value,)).fetchone()
    if row is None:
        raise Failure(f"{missing} {value}")
    return row


@shop.tool
def get_order_by_id(db: Connection, /, order_id: str) -> dict:
    """Tell what was ordered in an order.

    order_id: id such as O-1234
    """
    columns = "select product, quantity, customer from orders where id = ?"
    product, quantity, customer = _row(db, columns, order_id, "no order with id")
    return {"order_id": order_id, "product": product, "quantity": quantity, "customer_id": customer}


@shop.tool
def get_orders_by_customer(db: Connection, /, customer_id: str, limit: int = 5) -> dict:
    """List the ids of a customer's orders.

    customer_id: id such as C-1234
    limit: how many to list
    """
    _row(db, "select id from customers where id = ?", customer_id, "no customer with id")
    rows = db.execute("select id from orders where customer = ? order by rowid limit ?", (customer_id, limit))
    return {"customer_id": customer_id, "order_ids": [order for (order,) in rows]}


@shop.tool
def get_order_status(db: Connection, /, order_id: str) -> dict:
    """Tell how far an order has come.

    order_id: id such as O-1234
    """
    (status,) = _row(db, "select status from orders where id = ?", order_id, "no order with id")
    return {"order_id": order_id, "status": status}


@shop.tool
def cancel_order(db: Connection, /, order_id: str, reason: str | None = None) -> dict:
    """Cancel an order.

    order_id: id such as O-1234
    reason: why it is cancelled
    """
    _row(db, "select id from orders where id = ?", order_id, "no order with id")
    db.execute("update orders set status = 'cancelled' where id = ?", (order_id,))
    return {"order_id": order_id, "status": "cancelled"}


@shop.tool
def get_customer_by_email(db: Connection, /, email: str) -> dict:
    """Find a customer by email address.

    email: address of the customer
    """
    query = "select id, name from customers where email = ?"
    customer, name = _row(db, query, email, "no customer with email")
    return {"customer_id": customer, "name": name}


@shop.tool
def get_customer_by_id(db: Connection, /, customer_id: str) -> dict:
    """Tell the name and email of a customer.

    customer_id: id such as C-1234
    """
    name, email = _row(db, "select name, email from customers where id = ?", customer_id, "no customer with id")
    return {"name": name, "email": email}


@shop.tool
def get_product_price(db: Connection, /, product: str) -> dict:
    """Tell the price of a product.

    product: name of the product
    """
    price, text = _row(db, "select price, description from products where name = ?", product, "no product named")
    return {"product": product, "price": price, "currency": "EUR", "description": text}


@shop.tool
def get_product_stock(db: Connection, /, product: str) -> dict:
    """Tell how many of a product are in stock.

    product: name of the product
    """
    (stock,) = _row(db, "select stock from products where name = ?", product, "no product named")
    return {"product": product, "stock": stock}


def _any(db: Connection, rng: Random, query: str) -> Any:
    return rng.choice(db.execute(query).fetchall())[0]


@shop.task(
    "[What is the status of|How far is] order {order}?",
    "[Where does order {order} stand?|Has order {order} been shipped?]",
    "I [am waiting for|have been expecting] order {order}. What is its status?",
    vague=Vague(
        "[Where is my order?|What is the status of my order?]", "What is the id of the order?", "[It is |]{order}[.|]"
    ),
)
def status(db: Connection, rng: Random) -> Plan:
    order = _any(db, rng, "select id from orders")
    yield {"order": order}
    answer = yield call(get_order_status, order_id=order)
    return f"Order {order} is {answer['status']}."


@shop.task(
    "How many of the {product} [do you have|are there] in stock?",
    "[Check|Look up] the stock of the {product}[.|, please.]",
)
def stock(db: Connection, rng: Random) -> Plan:
    product = _any(db, rng, "select name from products")
    yield {"product": product}
    answer = yield call(get_product_stock, product=product)
    return f"The stock of the {product} is {answer['stock']}."


@shop.task(
    "[Cancel|Please cancel] order {order}[.|, the reason is '{reason}'.]",
    "I do not want order {order} any more, cancel it[.| with the reason '{reason}'.]",
)
def cancellation(db: Connection, rng: Random) -> Plan:
    order, reason = _any(db, rng, "select id from orders"), rng.choice(("too late", "bought twice", "ordered in error"))
    mentioned = yield {"order": order, "reason": reason}
    why = {"reason": reason} if "reason" in mentioned else {}
    yield call(cancel_order, order_id=order, **why)
    return f"Order {order} was cancelled."


@shop.task(
    "What does the product in order {order} cost?",
    "Look up what was bought in order {order} and [tell me its price|the price of that].",
)
def price_of_ordered(db: Connection, rng: Random) -> Plan:
    order = _any(db, rng, "select id from orders")
    yield {"order": order}
    bought = yield call(get_order_by_id, order_id=order)
    answer = yield call(get_product_price, product=bought["product"])
    return f"The {bought['product']} costs {answer['price']} EUR."


@shop.task(
    "What is the price of the {product} in {code}?",
    "How many {code} do I need for the {product}?",
)
def price_in_currency(db: Connection, rng: Random) -> Plan:
    product, code = _any(db, rng, "select name from products"), rng.choice([c for c in CURRENCIES if c != "EUR"])
    yield {"product": product, "code": code}
    price = yield call(get_product_price, product=product)
    answer = yield call(convert_currency, amount=price["price"], base=price["currency"], target=code)
    return f"The {product} costs {answer['amount']} {code}."


@shop.task(
    "The customer with the email {email} asks how [the|their] first order is doing.",
    "Find the customer {email}, [list|get] their orders and tell me the status of the first one.",
)
def status_for_customer(db: Connection, rng: Random) -> Plan:
    email = _any(db, rng, "select email from customers")
    yield {"email": email}
    customer = yield call(get_customer_by_email, email=email)
    orders = yield call(get_orders_by_customer, customer_id=customer["customer_id"])
    answer = yield call(get_order_status, order_id=orders["order_ids"][0])
    return f"Order {answer['order_id']} is {answer['status']}."


@shop.task(
    "What is the email of the customer who placed order {order}?",
    "[Who placed|Whose is] order {order}? I need the customer's email.",
)
def email_for_order(db: Connection, rng: Random) -> Plan:
    order = _any(db, rng, "select id from orders")
    yield {"order": order}
    bought = yield call(get_order_by_id, order_id=order)
    answer = yield call(get_customer_by_id, customer_id=bought["customer_id"])
    return f"The email is {answer['email']}."


@shop.task(
    "How many are left in stock of what the customer {email} ordered first?",
    "Find the customer with the email {email}, their first order, what is in it, and the stock of that product.",
)
def stock_for_customer(db: Connection, rng: Random) -> Plan:
    email = _any(db, rng, "select email from customers")
    yield {"email": email}
    customer = yield call(get_customer_by_email, email=email)
    orders = yield call(get_orders_by_customer, customer_id=customer["customer_id"])
    bought = yield call(get_order_by_id, order_id=orders["order_ids"][0])
    answer = yield call(get_product_stock, product=bought["product"])
    return f"The stock of the {bought['product']} is {answer['stock']}."
