"""Domains that look up tables: units and currency. (Exchange rates are a fixed table.)"""

from __future__ import annotations

from random import Random

from tltrain.toolworld.answers import json_error, prefixed
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call, tidy

LENGTHS = {"mm": 0.001, "cm": 0.01, "m": 1, "km": 1000, "in": 0.0254, "ft": 0.3048, "yd": 0.9144, "mi": 1609.344}
WEIGHTS = {"g": 0.001, "kg": 1, "t": 1000, "oz": 0.028349523, "lb": 0.45359237}
VOLUMES = {"ml": 0.001, "cl": 0.01, "l": 1, "pt": 0.473176473, "gal": 3.785411784}

units = Domain("units", failure=prefixed)


def _convert(table: dict[str, float], value: float, source: str, target: str, decimals: int) -> dict:
    for unit in (source, target):
        if unit not in table:
            raise Failure(f"unit {unit!r} is not supported, use one of {', '.join(table)}")
    return {"value": tidy(value * table[source] / table[target], decimals), "unit": target}


@units.tool
def convertLength(value: float, fromUnit: str, toUnit: str, decimals: int = 2) -> dict:
    """Convert a length.

    value: length to convert
    fromUnit: its unit, such as km or mi
    toUnit: wanted unit
    decimals: decimals to keep
    """
    return _convert(LENGTHS, value, fromUnit, toUnit, decimals)


@units.tool
def convertWeight(value: float, fromUnit: str, toUnit: str, decimals: int = 2) -> dict:
    """Convert a weight.

    value: weight to convert
    fromUnit: its unit, such as kg or lb
    toUnit: wanted unit
    decimals: decimals to keep
    """
    return _convert(WEIGHTS, value, fromUnit, toUnit, decimals)


@units.tool
def convertVolume(value: float, fromUnit: str, toUnit: str) -> dict:
    """Convert a volume of liquid.

    value: volume to convert
    fromUnit: its unit, such as l or gal
    toUnit: wanted unit
    """
    return _convert(VOLUMES, value, fromUnit, toUnit, 2)


@units.tool
def convertTemperature(value: float, toUnit: str) -> dict:
    """Convert a temperature from the other scale.

    value: temperature to convert
    toUnit: wanted scale, C or F
    """
    if toUnit not in ("C", "F"):
        raise Failure(f"scale {toUnit!r} is not supported, use C or F")
    return {"value": tidy(value * 1.8 + 32 if toUnit == "F" else (value - 32) / 1.8), "unit": toUnit}


def _amount(rng: Random, table: dict[str, float]) -> tuple[float, str, str]:
    """Draw a value and two units close enough in size that the result is not zero."""
    source = rng.choice(list(table))
    near = [unit for unit in table if unit != source and 1e-3 <= table[source] / table[unit] <= 1e4]
    return rng.choice((rng.randint(2, 400), tidy(rng.randint(11, 99) / 10))), source, rng.choice(near)


@units.task(
    "[Convert|Please convert] {value} {source} to {target}.",
    "How [long|far] is {value} {source} in {target}?",
    "A [line|track|distance] is {value} {source} long. [What is that in|How much is it in] {target}?",
    vague=Vague("[Convert|I want to convert] a length of {value} {source}.", "To which unit?", "[To |In |]{target}"),
)
def length(_: None, rng: Random) -> Plan:
    value, source, target = _amount(rng, LENGTHS)
    yield {"value": value, "source": source, "target": target}
    answer = yield call(convertLength, value=value, fromUnit=source, toUnit=target)
    return f"{value} {source} is {answer['value']} {target}."


@units.task(
    "How heavy is {value} {source} in {target}?",
    "[A load|Something] weighs {value} {source}. Convert it to {target}[.|, with {decimals} decimals.]",
)
def weight(_: None, rng: Random) -> Plan:
    (value, source, target), decimals = _amount(rng, WEIGHTS), rng.choice((3, 4, 5))
    mentioned = yield {"value": value, "source": source, "target": target, "decimals": decimals}
    rounding = {"decimals": decimals} if "decimals" in mentioned else {}
    answer = yield call(convertWeight, value=value, fromUnit=source, toUnit=target, **rounding)
    return f"{value} {source} is {answer['value']} {target}."


@units.task(
    "It is {value} degrees outside. What is that in {target}?",
    "[Convert a temperature of {value} degrees to {target}.|What is a temperature of {value} degrees in {target}?]",
)
def temperature(_: None, rng: Random) -> Plan:
    value, target = rng.randint(-10, 100), rng.choice("CF")
    yield {"value": value, "target": target}
    answer = yield call(convertTemperature, value=value, toUnit=target)
    return f"That is {answer['value']} {target}."


@units.task(
    "A [barrel|tank] holds {value} {source}. How much is that in {target}, and then that result in {other}?",
    "Convert a volume of {value} {source} to {target} and then that result to {other}.",
)
def volume_twice(_: None, rng: Random) -> Plan:
    source, value = rng.choice(("l", "pt", "gal")), rng.randint(10, 90)
    target, other = rng.sample([unit for unit in ("cl", "l", "pt", "gal") if unit != source], 2)
    yield {"value": value, "source": source, "target": target, "other": other}
    answer = yield call(convertVolume, value=value, fromUnit=source, toUnit=target)
    again = yield call(convertVolume, value=answer["value"], fromUnit=target, toUnit=other)
    return f"It is {answer['value']} {target} or {again['value']} {other}."


@units.task(
    "For a [trip|recipe card|school project] I need {value} {source} in {target}, a weight of {load} kg in lb, "
    "and {heat} degrees in F.",
    "Convert the length {value} {source} to {target}, the weight {load} kg to lb and the temperature {heat} to F.",
)
def three_conversions(_: None, rng: Random) -> Plan:
    value, source, target = _amount(rng, LENGTHS)
    load, heat = rng.randint(2, 90), rng.randint(1, 40)
    yield {"value": value, "source": source, "target": target, "load": load, "heat": heat}
    long = yield call(convertLength, value=value, fromUnit=source, toUnit=target)
    heavy = yield call(convertWeight, value=load, fromUnit="kg", toUnit="lb")
    warm = yield call(convertTemperature, value=heat, toUnit="F")
    return f"They are {long['value']} {target}, {heavy['value']} lb and {warm['value']} F."


CURRENCIES = {  # code: (name, country, units per euro)
    "EUR": ("euro", "Germany", 1),
    "USD": ("US dollar", "Ecuador", 1.08),
    "GBP": ("pound sterling", "Britain", 0.85),
    "JPY": ("yen", "Japan", 162.5),
    "CHF": ("Swiss franc", "Switzerland", 0.96),
    "SEK": ("Swedish krona", "Sweden", 11.4),
    "PLN": ("zloty", "Poland", 4.3),
    "CAD": ("Canadian dollar", "Canada", 1.47),
    "BRL": ("real", "Brazil", 5.9),
    "INR": ("Indian rupee", "India", 90.2),
    "KRW": ("won", "South Korea", 1475),
    "TRY": ("Turkish lira", "Turkey", 35.1),
}
_COUNTRIES = {country: code for code, (_, country, _) in CURRENCIES.items()}

currency = Domain("currency", failure=json_error)


def _rate(base: str, target: str) -> float:
    for code in (base, target):
        if code not in CURRENCIES:
            raise Failure(f"unknown currency code {code}")
    return CURRENCIES[target][2] / CURRENCIES[base][2]


@currency.tool
def get_exchange_rate(base: str, target: str) -> dict:
    """Tell what one unit of a currency is worth in another.

    base: code of the currency, such as EUR
    target: code of the other currency
    """
    return {"base": base, "target": target, "rate": tidy(_rate(base, target), 4)}


@currency.tool
def convert_currency(amount: float, base: str, target: str, fee_percent: float = 0) -> dict:
    """Convert an amount of money.

    amount: money to convert
    base: its currency code
    target: wanted currency code
    fee_percent: fee to take off
    """
    return {"amount": tidy(amount * _rate(base, target) * (1 - fee_percent / 100)), "currency": target}


@currency.tool
def get_currency_by_country(country: str) -> dict:
    """Tell which currency a country uses.

    country: name of the country
    """
    if country not in _COUNTRIES:
        raise Failure(f"no country named {country!r}")
    return {"country": country, "code": _COUNTRIES[country]}


@currency.tool
def get_currency_name(code: str) -> dict:
    """Tell the full name of a currency.

    code: code such as EUR
    """
    if code not in CURRENCIES:
        raise Failure(f"unknown currency code {code}")
    return {"code": code, "name": CURRENCIES[code][0]}


@currency.task(
    "What is the [exchange rate from|rate from] {base} to {target}?",
    "How many {target} does one {base} buy?",
    "[Tell me|I need] the current rate of {base} in {target}.",
)
def exchange_rate(_: None, rng: Random) -> Plan:
    base, target = rng.sample(list(CURRENCIES), 2)
    yield {"base": base, "target": target}
    answer = yield call(get_exchange_rate, base=base, target=target)
    return f"One {base} is {answer['rate']} {target}."


@currency.task(
    "[Convert|Change|Please convert] {amount} {base} to {target}[.|, less a fee of {fee} percent.]",
    "How much is {amount} {base} in {target}?",
    "I have {amount} {base}. What do I get for it in {target}[?|, if the fee is {fee} percent?]",
    vague=Vague(
        "[Convert|Change] {amount} {base} for me.", "Which currency do you want?", "[Into |To |]{target}[.| please.]"
    ),
)
def conversion(_: None, rng: Random) -> Plan:
    base, target = rng.sample(list(CURRENCIES), 2)
    amount, fee = rng.randint(5, 900), rng.randint(1, 5)
    mentioned = yield {"amount": amount, "base": base, "target": target, "fee": fee}
    less = {"fee_percent": fee} if "fee" in mentioned else {}
    answer = yield call(convert_currency, amount=amount, base=base, target=target, **less)
    return f"{amount} {base} is {answer['amount']} {target}."


@currency.task(
    "I am travelling to {country} with {amount} {base}. How much is that in the money used there?",
    "Find out which currency {country} uses and convert {amount} {base} to it.",
)
def travel_money(_: None, rng: Random) -> Plan:
    base, there = rng.sample(list(CURRENCIES), 2)
    country, amount = CURRENCIES[there][1], rng.randint(20, 900)
    yield {"country": country, "amount": amount, "base": base}
    found = yield call(get_currency_by_country, country=country)
    answer = yield call(convert_currency, amount=amount, base=base, target=found["code"])
    return f"{amount} {base} is {answer['amount']} {found['code']}."


@currency.task(
    "[What is the full name of|What do they call] the currency of {country}?",
    "Which currency does {country} have? Give me its full name.",
)
def currency_name(_: None, rng: Random) -> Plan:
    country = rng.choice(list(_COUNTRIES))
    yield {"country": country}
    found = yield call(get_currency_by_country, country=country)
    answer = yield call(get_currency_name, code=found["code"])
    return f"The currency of {country} is the {answer['name']}."


@currency.task(
    "What is the exchange rate between the money of {here} and that of {there}?",
    "Find the currencies of {here} and {there}, and then the rate from the first to the second.",
)
def rate_between_countries(_: None, rng: Random) -> Plan:
    here, there = rng.sample(list(_COUNTRIES), 2)
    yield {"here": here, "there": there}
    first = yield call(get_currency_by_country, country=here)
    second = yield call(get_currency_by_country, country=there)
    answer = yield call(get_exchange_rate, base=first["code"], target=second["code"])
    return f"One {first['code']} is {answer['rate']} {second['code']}."
