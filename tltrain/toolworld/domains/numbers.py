"""Domains that compute: arithmetic, statistics, geometry."""

from __future__ import annotations

import math
import statistics as st
from random import Random
from typing import Any

from tltrain.toolworld.answers import invalid_call, json_error, value_error
from tltrain.toolworld.registry import Domain, Failure, Plan, Vague, call, tidy

arithmetic = Domain("arithmetic", failure=value_error)


@arithmetic.tool
def add_numbers(a: float, b: float) -> float:
    """Add two numbers.

    a: first number
    b: second number
    """
    return tidy(a + b)


@arithmetic.tool
def subtract_numbers(a: float, b: float) -> float:
    """Take one number away from another.

    a: number to start from
    b: number to take away
    """
    return tidy(a - b)


@arithmetic.tool
def multiply_numbers(a: float, b: float) -> float:
    """Multiply two numbers.

    a: first number
    b: second number
    """
    return tidy(1.0 * a * b)


@arithmetic.tool
def divide_numbers(a: float, b: float, decimals: int = 2) -> float:
    """Divide one number by another.

    a: number to be divided
    b: number to divide by
    decimals: decimals to keep, 2 if not given
    """
    return tidy(a / b, decimals)


@arithmetic.tool
def percent_of_number(percent: float, number: float) -> float:
    """Compute a percentage of a number.

    percent: how many percent
    number: number to take them of
    """
    if percent < 0:
        raise Failure(f"percent must not be negative, got {percent}")
    return tidy(percent * number / 100)


@arithmetic.task(
    "What is {a} plus {b}?",
    "[Add|Please add] {a} and {b}.",
    "I need the sum of {a} and {b}.",
    vague=Vague("[Add something to {a}, please.|What is a number plus {a}?]", "Which number should be added?", "{b}"),
)
def addition(_: None, rng: Random) -> Plan:
    a, b = rng.randint(2, 999), rng.choice([rng.randint(2, 999), tidy(rng.randint(11, 999) / 10)])
    yield {"a": a, "b": b}
    total = yield call(add_numbers, a=a, b=b)
    return f"The sum is {total}."


@arithmetic.task(
    "[What is|How much is] {a} divided by {b}[?|, with {decimals} decimals?]",
    "Divide {a} by {b}[| and keep {decimals} decimals].",
)
def division(_: None, rng: Random) -> Plan:
    a, b, decimals = rng.randint(50, 999), rng.randint(3, 49), rng.choice((3, 4, 5))
    mentioned = yield {"a": a, "b": b, "decimals": decimals}
    rounding = {"decimals": decimals} if "decimals" in mentioned else {}
    result = yield call(divide_numbers, a=a, b=b, **rounding)
    return f"The result is {result}."


@arithmetic.task(
    "[What is|How much is] {percent} percent of {number}?",
    "[Tell me|Compute] {percent}% of {number}.",
    "Of {number}, I want {percent} percent. How much is it?",
)
def percentage(_: None, rng: Random) -> Plan:
    percent, number = rng.randint(2, 95), rng.randint(20, 5000)
    yield {"percent": percent, "number": number}
    part = yield call(percent_of_number, percent=percent, number=number)
    return f"{percent} percent of {number} is {part}."


@arithmetic.task(
    "Add {a} and {b}, [then|and then] multiply the result by {c}.",
    "What do I get if I add {a} and {b} and multiply the sum by {c}?",
    "Multiply the sum of {a} and {b} by {c}[.|, please.]",
)
def add_and_multiply(_: None, rng: Random) -> Plan:
    a, b, c = rng.randint(2, 300), rng.randint(2, 300), rng.randint(2, 40)
    yield {"a": a, "b": b, "c": c}
    total = yield call(add_numbers, a=a, b=b)
    product = yield call(multiply_numbers, a=total, b=c)
    return f"The result is {product}."


@arithmetic.task(
    "Multiply {a} by {b}, take away {c} and divide what is left by {d}.",
    "I buy {a} boxes at {b} each, get {c} off, and {d} people share the cost. How much does each pay?",
)
def multiply_subtract_divide(_: None, rng: Random) -> Plan:
    a, b, c, d = rng.randint(5, 40), rng.randint(6, 60), rng.randint(2, 25), rng.randint(2, 9)
    yield {"a": a, "b": b, "c": c, "d": d}
    product = yield call(multiply_numbers, a=a, b=b)
    rest = yield call(subtract_numbers, a=product, b=c)
    share = yield call(divide_numbers, a=rest, b=d)
    return f"The result is {share}."


statistics = Domain("statistics", failure=json_error)


def _checked(values: Any, least: int = 1) -> list[float]:
    if not isinstance(values, list) or len(values) < least:
        raise Failure(f"values must be a list of at least {least} numbers")
    return [value + 0 for value in values]


@statistics.tool
def computeMean(values: list[float], decimals: int = 2) -> dict:
    """Compute the mean of numbers.

    values: the numbers
    decimals: decimals to keep, 2 if not given
    """
    return {"mean": tidy(sum(_checked(values)) / len(values), decimals)}


@statistics.tool
def computeMedian(values: list[float]) -> dict:
    """Compute the median of numbers.

    values: the numbers
    """
    return {"median": tidy(st.median(_checked(values)))}


@statistics.tool
def computeRange(values: list[float]) -> dict:
    """Compute the distance from the smallest number to the largest.

    values: the numbers
    """
    return {"range": tidy(max(_checked(values, 2)) - min(values))}


@statistics.tool
def computeDeviation(values: list[float], decimals: int = 2) -> dict:
    """Compute the standard deviation of a sample.

    values: the numbers
    decimals: decimals to keep, 2 if not given
    """
    return {"deviation": tidy(st.stdev(_checked(values, 2)), decimals), "errors": 0}


@statistics.tool
def countValuesAbove(values: list[float], limit: float) -> dict:
    """Count the numbers greater than a limit.

    values: the numbers
    limit: limit to exceed
    """
    return {"count": sum(value > limit for value in _checked(values))}


def _values(rng: Random) -> list[int]:
    return [rng.randint(1, 99) for _ in range(rng.randint(3, 6))]


@statistics.task(
    "[What is|Can you compute] the mean of {values}[?|, with {decimals} decimals?]",
    "My measurements are {values}. I need their mean[.|, rounded to {decimals} decimals.]",
)
def mean(_: None, rng: Random) -> Plan:
    values, decimals = _values(rng), rng.choice((3, 4, 5))
    mentioned = yield {"values": values, "decimals": decimals}
    rounding = {"decimals": decimals} if "decimals" in mentioned else {}
    answer = yield call(computeMean, values=values, **rounding)
    return f"The mean is {answer['mean']}."


@statistics.task(
    "[What is the median of {values}?|Find the median of {values}.]",
    "Here are some scores: {values}. Which one is the median?",
    vague=Vague("[I need|Please compute] the median of my scores.", "What are the scores?", "[They are |]{values}"),
)
def median(_: None, rng: Random) -> Plan:
    values = _values(rng)
    yield {"values": values}
    answer = yield call(computeMedian, values=values)
    return f"The median is {answer['median']}."


@statistics.task(
    "How many of the numbers {values} are [above|greater than] their mean?",
    "Compute the mean of {values} and then count the values above it.",
)
def above_mean(_: None, rng: Random) -> Plan:
    values = _values(rng)
    yield {"values": values}
    answer = yield call(computeMean, values=values)
    above = yield call(countValuesAbove, values=values, limit=answer["mean"])
    return f"The mean is {answer['mean']}, and the count of numbers above it is {above['count']}."


@statistics.task(
    "For {values}, give me the median, the range and the standard deviation.",
    "I would like the median of {values}, then the range, and last the standard deviation.",
)
def three_figures(_: None, rng: Random) -> Plan:
    values = _values(rng)
    yield {"values": values}
    middle = yield call(computeMedian, values=values)
    spread = yield call(computeRange, values=values)
    deviation = yield call(computeDeviation, values=values)
    return (
        f"The median is {middle['median']}, the range {spread['range']} "
        f"and the standard deviation {deviation['deviation']}."
    )


geometry = Domain("geometry", failure=invalid_call)


def _positive(**sizes: float) -> None:
    for name, size in sizes.items():
        if size <= 0:
            raise Failure(f"{name} must be positive")


@geometry.tool
def area_of_circle(radius: float) -> dict:
    """Compute the area of a circle.

    radius: radius of the circle
    """
    _positive(radius=radius)
    return {"area": tidy(math.pi * radius**2)}


@geometry.tool
def area_of_rectangle(length: float, width: float) -> dict:
    """Compute the area of a rectangle.

    length: one side
    width: the other side
    """
    _positive(length=length, width=width)
    return {"area": tidy(length * width)}


@geometry.tool
def area_of_triangle(base: float, height: float) -> dict:
    """Compute the area of a triangle.

    base: length of the base
    height: height over the base
    """
    _positive(base=base, height=height)
    return {"area": tidy(base * height / 2)}


@geometry.tool
def volume_of_prism(base_area: float, height: float, unit: str = "cm3") -> dict:
    """Compute the volume of an upright body.

    base_area: area of its base
    height: height of the body
    unit: unit to write in the answer
    """
    _positive(base_area=base_area, height=height)
    return {"volume": tidy(base_area * height), "unit": unit}


@geometry.tool
def mass_of_body(volume: float, density: float) -> dict:
    """Compute the mass of a body.

    volume: volume of the body
    density: mass of one unit of volume
    """
    _positive(volume=volume, density=density)
    return {"mass": tidy(volume * density)}


@geometry.task(
    "What is the area of a circle with radius {radius}?",
    "A [pond|table|pizza] is round with radius {radius}. [How large is its area?|Compute its area.]",
    vague=Vague("What is the area of my round [pond|table]?", "What is its radius?", "[The radius is |]{radius}[.|]"),
)
def circle(_: None, rng: Random) -> Plan:
    radius = rng.choice((rng.randint(2, 60), tidy(rng.randint(15, 200) / 10)))
    yield {"radius": radius}
    answer = yield call(area_of_circle, radius=radius)
    return f"The area is {answer['area']}."


@geometry.task(
    "[Compute|I need] the area of a triangle with base {base} and height {height}.",
    "A sail is a triangle, {base} at the base and {height} high. What is its area?",
)
def triangle(_: None, rng: Random) -> Plan:
    base, height = rng.randint(2, 80), rng.randint(2, 80)
    yield {"base": base, "height": height}
    answer = yield call(area_of_triangle, base=base, height=height)
    return f"The area is {answer['area']}."


@geometry.task(
    "A [box|tank] is {length} long, {width} wide and {height} high. [What is its volume?|How much fits in?]",
    "Find the area of a rectangle {length} long and {width} wide, then the volume of a prism of height {height} on it.",
)
def box(_: None, rng: Random) -> Plan:
    length, width, height = (rng.randint(2, 60) for _ in range(3))
    yield {"length": length, "width": width, "height": height}
    base = yield call(area_of_rectangle, length=length, width=width)
    answer = yield call(volume_of_prism, base_area=base["area"], height=height)
    return f"The volume is {answer['volume']}."


@geometry.task(
    "A round pillar has radius {radius} and height {height}; its density is {density}. What is its mass?",
    "How heavy is a cylinder of radius {radius}, height {height} and density {density}?",
)
def pillar(_: None, rng: Random) -> Plan:
    radius, height, density = rng.randint(2, 20), rng.randint(2, 50), rng.randint(2, 12)
    yield {"radius": radius, "height": height, "density": density}
    base = yield call(area_of_circle, radius=radius)
    body = yield call(volume_of_prism, base_area=base["area"], height=height)
    answer = yield call(mass_of_body, volume=body["volume"], density=density)
    return f"Its mass is {answer['mass']}."
