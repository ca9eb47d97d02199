"""Names and words shared by several domains."""

from __future__ import annotations

from random import Random


def listed(text: str) -> tuple[str, ...]:
    """Split a text such as `red, dark blue, green` into its items."""
    return tuple(text.split(", "))


FIRST_NAMES = listed(
    "Alice, Amir, Anna, Ben, Carla, Chen, Clara, Daniel, Dora, Elena, Emma, Farid, Felix, Grace, Hana, Henry, Ines, "
    "Ivan, Jack, Julia, Karim, Kate, Leo, Lina, Lucas, Maria, Marta, Nadia, Noah, Olga, Omar, Paula, Peter, Priya, "
    "Rosa, Sam, Sofia, Tariq, Tom, Vera, Victor, Wendy, Yusuf, Zoe"
)
LAST_NAMES = listed(
    "Adams, Alvarez, Baker, Bauer, Castillo, Cohen, Costa, Dubois, Evans, Fischer, Garcia, Haddad, Hughes, Ito, "
    "Jansen, Kaya, Keller, Khan, Larsen, Lopez, Meyer, Moreau, Nagy, Novak, Okafor, Olsen, Park, Patel, Petrov, "
    "Quinn, Rossi, Santos, Schmidt, Silva, Suzuki, Tanaka, Turner, Varga, Walker, Weber, Wong, Young, Zhang"
)
CITIES = listed(
    "Athens, Berlin, Bergen, Boston, Cairo, Chicago, Dublin, Geneva, Hanoi, Helsinki, Istanbul, Kyoto, Lima, Lisbon, "
    "London, Lyon, Madrid, Milan, Montreal, Nairobi, Oslo, Porto, Prague, Quito, Riga, Seoul, Seville, Sydney, "
    "Toronto, Vienna, Warsaw, Zurich"
)
WORDS = listed(
    "apple, autumn, bridge, candle, castle, cloud, copper, desert, dragon, engine, error, falcon, feather, forest, "
    "garden, harbor, hammer, island, jacket, kettle, ladder, lantern, lemon, magnet, marble, meadow, mirror, morning, "
    "needle, ocean, orange, paper, pepper, pillow, planet, pocket, puzzle, rabbit, river, rocket, saddle, shadow, "
    "signal, silver, spider, spring, summer, table, tiger, tunnel, valley, velvet, violet, window, winter, yellow"
)


def full_name(rng: Random) -> str:
    """Draw a first and a last name."""
    return f"{rng.choice(FIRST_NAMES)} {rng.choice(LAST_NAMES)}"


def full_names(rng: Random, count: int) -> list[str]:
    """Draw `count` full names, no two with the same first or last name."""
    firsts, lasts = rng.sample(FIRST_NAMES, count), rng.sample(LAST_NAMES, count)
    return [f"{first} {last}" for first, last in zip(firsts, lasts, strict=True)]


def email_of(name: str) -> str:
    """Return the e-mail address of a person of that name."""
    return name.lower().replace(" ", ".") + "@mail.com"


def ids(rng: Random, prefix: str, count: int) -> list[str]:
    """Draw `count` different ids such as `O-4821`."""
    return [f"{prefix}-{number}" for number in rng.sample(range(1000, 10000), count)]


def phrase(rng: Random, low: int = 3, high: int = 6) -> str:
    """Draw `low` to `high` different words."""
    return " ".join(rng.sample(WORDS, rng.randint(low, high)))
