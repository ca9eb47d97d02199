"""Write the logs of an invented company's support desk: conversations.jsonl (40), held_out.jsonl (12), request.json.

    python examples/support_desk/make_conversations.py

The company, Fernhill Outdoor, sells outdoor gear. Its assistant calls twelve tools of several services, each of which
reports errors in a style of its own: HTTP errors as JSON, `{"error": {...}}`, `{"success": false}`, Python tracebacks,
plain text, timeouts. The same seed writes the same files. The files do not say which calls failed: MAE has to find
them. The tests compare its count with `Case.failed`, which counts the failing calls as they are written.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
INSTRUCTIONS = "You are the support assistant of Fernhill Outdoor. Use the tools, then answer in one or two sentences."
TRAINING, HELD_OUT = (40, 13), (12, 14)
"""Number of conversations in a file, and the seed."""

Json = dict[str, Any]

# The tools -----------------------------------------------------------------------------------------------------------

ORDER = {"order_id": ("string", "The order's number, such as FH-20417.")}


def tool(name: str, description: str, parameters: dict[str, tuple[str, str]], optional: tuple[str, ...] = ()) -> Json:
    """Return a tool as in chat-completions requests; all parameters are required except those in `optional`."""
    properties = {key: {"type": kind, "description": text} for key, (kind, text) in parameters.items()}
    required = [key for key in parameters if key not in optional]
    schema = {"type": "object", "properties": properties, "required": required}
    return {"type": "function", "function": {"name": name, "description": description, "parameters": schema}}


TOOLS = [
    tool("find_customer", "Find a customer by e-mail address.", {"email": ("string", "The address.")}),
    tool(
        "list_orders",
        "List a customer's orders, newest first.",
        {
            "customer_id": ("string", "Such as C-3185."),
            "status": ("string", "Only orders with this status: open, shipped, delivered or cancelled."),
            "limit": ("integer", "At most so many orders."),
        },
        optional=("status", "limit"),
    ),
    tool("get_order", "Get an order with its items, status and tracking number.", ORDER),
    tool("get_invoice", "Get the link to an order's invoice.", ORDER),
    tool("track_shipment", "Ask the carrier where a parcel is.", {"tracking_number": ("string", "Such as TN482913.")}),
    tool("cancel_order", "Cancel an order that is not shipped yet.", {**ORDER, "reason": ("string", "Why.")}),
    tool(
        "update_address",
        "Change the delivery address of an open order.",
        {
            **ORDER,
            "street": ("string", "Street and number."),
            "city": ("string", "City."),
            "postal_code": ("string", "Postal code."),
        },
    ),
    tool(
        "create_return",
        "Register a return and get a label for it.",
        {**ORDER, "sku": ("string", "The item's number, such as TENT-2P."), "reason": ("string", "Why.")},
    ),
    tool(
        "refund_payment",
        "Pay money back for an order.",
        {**ORDER, "amount": ("number", "In euros, at most what was paid."), "reason": ("string", "Why.")},
    ),
    tool("check_stock", "Say how many pieces of an item are in the warehouse.", {"sku": ("string", "Item number.")}),
    tool("apply_voucher", "Apply a voucher to an open order.", {**ORDER, "code": ("string", "The voucher's code.")}),
    tool(
        "open_ticket",
        "Hand a case over to a colleague.",
        {**ORDER, "subject": ("string", "What it is about."), "priority": ("string", "low, normal or high.")},
    ),
]

# The shop ------------------------------------------------------------------------------------------------------------

ITEMS = {
    "TENT-2P": ("two-person tent", 189.0),
    "BOOT-42": ("hiking boots, size 42", 139.5),
    "STOVE-S": ("gas stove", 54.9),
    "LAMP-H3": ("head lamp", 39.0),
    "PACK-55": ("55 l backpack", 159.0),
    "MAT-XL": ("sleeping mat XL", 79.9),
    "BAG-5C": ("sleeping bag", 119.0),
    "POLE-AL": ("trekking poles", 64.5),
}
PEOPLE = (
    *("Mara Lindqvist", "Tom Okafor", "Jule Brandt", "Ilse Vermeer", "Piotr Zielinski", "Nadia Haddad", "Sam Keller"),
    *("Rosa Almeida", "Henrik Dahl", "Yuki Tanaka", "Clara Moreau", "Ben Whitfield", "Lena Hofer", "Omar Aziz"),
)
STREETS = ("Birch Lane", "Mill Road", "Harbour Street", "Station Road", "Castle Hill", "Rosewood Avenue", "Quay Street")
CITIES = (("Ghent", "9000"), ("Aarhus", "8000"), ("Graz", "8010"), ("Leeds", "LS1 4AP"), ("Porto", "4050-253"))
PLACES = ("sorting centre Linz", "depot Rotterdam", "parcel shop on Mill Road", "sorting centre Leipzig")


@dataclass
class Case:
    """A conversation that is being written, and the customer's order that it is about."""

    rng: random.Random
    mishap: bool
    messages: list[Json] = field(default_factory=list)
    failed: int = 0

    def __post_init__(self) -> None:
        pick = self.rng.choice
        self.name = pick(PEOPLE)
        self.email = f"{self.name.lower().replace(' ', '.')}@{pick(('mail.example', 'post.example', 'inbox.example'))}"
        self.customer = f"C-{self.rng.randint(1000, 9999)}"
        self.order = f"FH-{self.rng.randint(20000, 29999)}"
        self.sku, self.other_sku = self.rng.sample(sorted(ITEMS), 2)
        self.item, self.price = ITEMS[self.sku]
        self.tracking = f"TN{self.rng.randint(100000, 999999)}"
        self.street = f"{pick(STREETS)} {self.rng.randint(1, 90)}"
        self.city, self.postal_code = pick(CITIES)
        self._ids = iter(range(1, 100))
        self.messages.append({"role": "system", "content": INSTRUCTIONS})

    def says(self, *choices: str) -> None:
        """The customer writes one of these."""
        self.messages.append({"role": "user", "content": self.rng.choice(choices)})

    def answers(self, *choices: str) -> None:
        """The assistant answers in words."""
        self.messages.append({"role": "assistant", "content": self.rng.choice(choices)})

    def calls(self, *calls: tuple[str, Json, Json | list | str], failing: int = 0) -> None:
        """The assistant makes calls (tool, arguments, answer) in one message; the last `failing` of them fail."""
        ids = [f"call_{next(self._ids):02}" for _ in calls]
        entries = [
            {"id": one, "type": "function", "function": {"name": name, "arguments": json.dumps(arguments)}}
            for one, (name, arguments, _) in zip(ids, calls, strict=True)
        ]
        self.messages.append({"role": "assistant", "content": None, "tool_calls": entries})
        for one, (_, _, answer) in zip(ids, calls, strict=True):
            text = answer if isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
            self.messages.append({"role": "tool", "tool_call_id": one, "content": text})
        self.failed += failing

    def fails(self, name: str, arguments: Json, answer: Json | str) -> None:
        """The assistant makes a call that its tool answers with an error."""
        self.calls((name, arguments, answer), failing=1)

    def order_of(self, status: str, order: str | None = None, **more: Any) -> tuple[str, Json, Json]:
        """Return a call of `get_order` and its answer."""
        order = order or self.order
        answer: Json = {"order_id": order, "status": status, "items": [{"sku": self.sku, "quantity": 1}]}
        answer |= {
            "total": self.price,
            "tracking_number": self.tracking if status in ("shipped", "delivered") else None,
        }
        return "get_order", {"order_id": order}, answer | more


# Errors, as six services word them -----------------------------------------------------------------------------------


def http_error(status: int, error: str, message: str, path: str) -> Json:
    return {"status": status, "error": error, "message": message, "path": path}


def payment_error(code: str, message: str) -> Json:
    return {"error": {"code": code, "message": message}}


def traceback(*lines: str) -> str:
    """Return the output of the warehouse's old script when it breaks."""
    return "\n".join(
        ("Traceback (most recent call last):", '  File "/srv/warehouse/rpc.py", line 88, in handle', *lines)
    )


TIMEOUTS = ("Request timed out after 10 s", "Error: connection timed out", "HTTP 504 Gateway Timeout")


# What customers come with --------------------------------------------------------------------------------------------


def where_is_my_order(case: Case) -> None:
    case.says(
        f"Hi, where is my order {case.order}? It should have been here by now.",
        f"My parcel for {case.order} has not arrived. Can you find out where it is?",
        f"Could you check the delivery of order {case.order} please?",
    )
    case.calls(case.order_of("shipped"))
    track = ("track_shipment", {"tracking_number": case.tracking})
    place, day = case.rng.choice(PLACES), case.rng.choice(("tomorrow", "on Friday", "on Monday"))
    if case.mishap:
        if case.rng.random() < 0.5:
            case.fails(*track, case.rng.choice(TIMEOUTS))
        else:
            case.fails("get_shipment", {"order_id": case.order}, "Error: unknown tool 'get_shipment'")
    case.calls((*track, {"tracking_number": case.tracking, "last_scan": place, "expected": day}))
    case.answers(
        f"Your parcel was last scanned at the {place} and should reach you {day}.",
        f"It is on its way: last seen at the {place}, expected {day}.",
    )


def cancel(case: Case) -> None:
    reason = case.rng.choice(("ordered twice", "found it cheaper", "no longer needed", "wrong size"))
    case.says(
        f"Please cancel order {case.order}, {reason}.",
        f"I need to cancel {case.order}. Reason: {reason}.",
        f"Can you stop {case.order}? {reason.capitalize()}.",
    )
    arguments = {"order_id": case.order, "reason": reason}
    if case.mishap:  # it has already been shipped: nothing to repeat, the way out is a return
        conflict = http_error(409, "Conflict", f"order {case.order} is already shipped", f"/orders/{case.order}/cancel")
        case.fails("cancel_order", arguments, conflict)
        case.calls(case.order_of("shipped"))
        case.calls(
            (
                "create_return",
                {"order_id": case.order, "sku": case.sku, "reason": reason},
                {"return_id": f"R-{case.rng.randint(100, 999)}", "label": f"https://labels.example/{case.order}"},
            )
        )
        case.answers(
            f"{case.order} has left the warehouse already, so I registered a return; the label is in your mail.",
            "It was shipped before I could stop it. I have opened a return and sent you the label.",
        )
    else:
        case.calls(("cancel_order", arguments, {"order_id": case.order, "status": "cancelled"}))
        case.answers(f"Order {case.order} is cancelled.", f"Done: {case.order} will not be sent.")


def move(case: Case) -> None:
    where = f"{case.street}, {case.postal_code} {case.city}"
    case.says(
        f"I have moved. Please send {case.order} to {where}.",
        f"The address of my order {case.order} is wrong, it must be {where}.",
        f"New delivery address for {case.order}: {where}. Can you change it?",
    )
    address = {"order_id": case.order, "street": case.street, "city": case.city, "postal_code": case.postal_code}
    if case.mishap:
        path = f"/orders/{case.order}/address"
        if case.rng.random() < 0.5:
            short = {key: address[key] for key in ("order_id", "street", "city")}
            case.fails(
                "update_address", short, http_error(422, "Unprocessable Entity", "postal_code is required", path)
            )
        else:
            zipped = {("zip" if key == "postal_code" else key): value for key, value in address.items()}
            case.fails("update_address", zipped, http_error(400, "Bad Request", "unknown field: zip", path))
    case.calls(("update_address", address, {"order_id": case.order, "address": where}))
    case.answers(f"Order {case.order} now goes to {where}.", f"I changed the address to {where}.")


def send_back(case: Case) -> None:
    reason = case.rng.choice(("too small", "damaged", "does not work", "not as described"))
    case.says(
        f"The {case.item} from order {case.order}: {reason}. I want to send it back.",
        f"How do I return the {case.item} of {case.order}? It is {reason}.",
    )
    case.calls(case.order_of("delivered"))
    arguments = {"order_id": case.order, "sku": case.sku, "reason": reason}
    if case.mishap:
        wrong = {"order_id": case.order, "item": case.item, "reason": reason}
        said = "TypeError: create_return() got an unexpected keyword argument 'item'"
        case.fails("create_return", wrong, traceback("    return METHODS[name](**arguments)", said))
    number = f"R-{case.rng.randint(100, 999)}"
    label = {"return_id": number, "label": f"https://labels.example/{number}"}
    case.calls(("create_return", arguments, label))
    case.answers(f"Return {number} is registered; print the label from {label['label']}.", f"Your return is {number}.")


def refund(case: Case) -> None:
    part = round(case.price * case.rng.choice((0.1, 0.2, 0.5)), 2)
    case.says(
        f"I was promised {part:.2f} euros back for the scratch on {case.order}.",
        f"Please refund {part:.2f} EUR of order {case.order}, the {case.item} came with a scratch.",
    )
    arguments = {"order_id": case.order, "amount": part, "reason": "scratch"}
    if case.mishap:
        if case.rng.random() < 0.5:
            said = payment_error("amount_invalid", f"amount must be a number, found '{part:.2f} EUR'")
            case.fails("refund_payment", {**arguments, "amount": f"{part:.2f} EUR"}, said)
        else:
            said = payment_error("amount_too_high", f"{100 * part:.0f} is more than was paid ({case.price:.2f})")
            case.fails("refund_payment", {**arguments, "amount": round(100 * part)}, said)
    case.calls(("refund_payment", arguments, {"refund": part, "currency": "EUR", "state": "sent"}))
    case.answers(f"{part:.2f} euros are on their way to you.", f"I have refunded {part:.2f} EUR; it takes two days.")


def in_stock(case: Case) -> None:
    other = ITEMS[case.other_sku][0]
    case.says(
        f"Do you have the {case.item} ({case.sku}) and the {other} ({case.other_sku}) in stock?",
        f"Are {case.sku} and {case.other_sku} available right now?",
    )
    pieces = case.rng.randint(1, 40), case.rng.choice((0, 3, 12))
    if case.mishap:
        wrong = case.item.split()[0].upper()
        said = traceback("    row = STOCK[sku]", f"KeyError: '{wrong}'")
        case.fails("check_stock", {"sku": wrong}, said)
    case.calls(
        ("check_stock", {"sku": case.sku}, {"sku": case.sku, "pieces": pieces[0]}),
        ("check_stock", {"sku": case.other_sku}, {"sku": case.other_sku, "pieces": pieces[1]}),
    )
    second = f"{pieces[1]} of {case.other_sku}" if pieces[1] else f"{case.other_sku} is sold out"
    case.answers(f"We have {pieces[0]} of {case.sku}, and {second}.", f"{case.sku}: {pieces[0]} pieces; {second}.")


def voucher(case: Case) -> None:
    code = case.rng.choice(("SPRING10", "TRAIL15", "WELCOME5", "SUMMIT20"))
    case.says(
        f"I forgot my voucher {code} on order {case.order}. Can you still apply it?",
        f"Please use the code {code} for {case.order}.",
    )
    arguments = {"order_id": case.order, "code": code}
    if case.mishap:  # the call is right but cannot succeed: nothing to repeat
        case.fails("apply_voucher", arguments, {"success": False, "reason": f"voucher {code} has expired"})
        case.answers(
            f"I am sorry, {code} has expired.", f"The code {code} is no longer valid, so I could not apply it."
        )
    else:
        total = round(case.price * 0.9, 2)
        case.calls(("apply_voucher", arguments, {"success": True, "new_total": total}))
        case.answers(f"{code} is applied: the new total is {total:.2f} euros.")


def invoice(case: Case) -> None:
    case.says(
        f"I need the invoice of order {case.order} for my tax return.",
        f"Where can I download the invoice for {case.order}?",
        f"Send me the bill of {case.order} please.",
    )
    if case.mishap:
        bare = case.order.removeprefix("FH-")
        said = http_error(404, "Not Found", f"no order {bare}", f"/invoices/{bare}")
        case.fails("get_invoice", {"order_id": bare}, said)
    link = f"https://invoices.example/{case.order}.pdf"
    case.calls(("get_invoice", {"order_id": case.order}, {"order_id": case.order, "url": link}))
    case.answers(f"Here it is: {link}", f"You can download it from {link}.")


def last_orders(case: Case) -> None:
    case.says(
        f"What did I order last? My address is {case.email}.",
        f"I have lost my order number. I am registered as {case.email}.",
    )
    if case.mishap:  # the customer's own mistake: the assistant asks, and that turn has no tool's answer
        wrong = case.email.replace(".example", ".exmaple")
        case.messages[-1]["content"] = case.messages[-1]["content"].replace(case.email, wrong)
        case.fails("find_customer", {"email": wrong}, f"Customer {wrong} not found")
        case.answers(f"I find nobody with {wrong}. Is it spelled right?", f"There is no account for {wrong}.")
        case.says(f"Sorry, it is {case.email}.", f"Oh, a typo: {case.email}")
    customer = {"customer_id": case.customer, "name": case.name}
    case.calls(("find_customer", {"email": case.email}, customer))
    orders = [{"order_id": case.order, "placed": "2026-03-02", "items": [case.sku]}]
    case.calls(("list_orders", {"customer_id": case.customer, "limit": 1}, orders))
    case.answers(f"Your last order is {case.order}: a {case.item}.", f"That was {case.order}, placed on 2 March.")


def broken(case: Case) -> None:
    """The answer mentions an error but is not one."""
    code = case.rng.choice(("E04", "E11", "E27"))
    case.says(
        f"The {case.item} of {case.order} shows error {code}. What now?",
        f"Second time I write about {case.order}: error {code} again. I want somebody to call me.",
    )
    case.calls(
        case.order_of("delivered", note=f"customer reports error {code}", payment={"error": None, "state": "paid"})
    )
    ticket = {"order_id": case.order, "subject": f"{case.item}: error {code}", "priority": "high"}
    if case.mishap:
        said = {"success": False, "reason": "priority must be low, normal or high"}
        case.fails("open_ticket", {**ticket, "priority": "urgent"}, said)
    number = f"T-{case.rng.randint(1000, 9999)}"
    case.calls(("open_ticket", ticket, {"ticket": number, "state": "open"}))
    case.answers(
        f"A colleague will call you about error {code}; your ticket is {number}.", f"I opened ticket {number}."
    )


def two_orders(case: Case) -> None:
    other = f"FH-{case.rng.randint(20000, 29999)}"
    case.says(
        f"Have {case.order} and {other} been sent?",
        f"I am waiting for two orders, {case.order} and {other}. What is their state?",
    )
    if case.mishap:
        missing = http_error(404, "Not Found", f"no order {other}", f"/orders/{other}")
        case.calls(case.order_of("shipped"), ("get_order", {"order_id": other}, missing), failing=1)
        case.answers(
            f"{case.order} is shipped; I find no order {other}.", f"{case.order} is on its way, {other} is unknown."
        )
    else:
        case.calls(case.order_of("shipped"), case.order_of("open", order=other))
        case.answers(
            f"{case.order} is shipped, {other} is still open.", f"The first is on its way, {other} is not sent yet."
        )


SCENARIOS: tuple[Callable[[Case], None], ...] = (
    *(where_is_my_order, cancel, move, send_back, refund, in_stock),
    *(voucher, invoice, last_orders, broken, two_orders),
)


# The files -----------------------------------------------------------------------------------------------------------


def cases(count: int, seed: int) -> list[Case]:
    """Return the conversations of a file, scenarios in turn; in two of five something goes wrong."""
    rng = random.Random(seed)
    made = []
    for number in range(count):
        case = Case(rng, mishap=rng.random() < 0.4)
        SCENARIOS[number % len(SCENARIOS)](case)
        made.append(case)
    return made


def lines(made: list[Case], prefix: str) -> str:
    """Return the conversations as JSON lines."""
    records = (
        {"id": f"{prefix}-{number:02}", "messages": case.messages, "tools": TOOLS}
        for number, case in enumerate(made, start=1)
    )
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def request() -> Json:
    """Return a conversation that waits for the assistant's next call."""
    case = Case(random.Random(3), mishap=False)
    invoice(case)
    return {"messages": case.messages[:2], "tools": TOOLS}


def main() -> None:
    """Write the three files."""
    (FOLDER / "conversations.jsonl").write_text(lines(cases(*TRAINING), "chat"), encoding="utf-8")
    (FOLDER / "held_out.jsonl").write_text(lines(cases(*HELD_OUT), "held-out"), encoding="utf-8")
    (FOLDER / "request.json").write_text(json.dumps(request(), ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
