"""A book shop: tools that a model is evaluated on and trained against. Each conversation has a stock of its own."""

_stock = {"Dune": 3, "Emma": 0, "Ulysses": 7}
_orders: dict[str, int] = {}


def look_up(title: str) -> dict:
    """Tell how many copies of a book are in stock.

    Args:
        title: The book's title.
    """
    return {"title": title, "copies": _stock[title]}


def order(title: str, copies: int = 1) -> str:
    """Order copies of a book.

    Args:
        title: The book's title.
        copies: How many copies.
    """
    if _stock[title] < copies:
        raise ValueError(f"only {_stock[title]} copies of {title} are left")
    _stock[title] -= copies
    _orders[title] = _orders.get(title, 0) + copies
    return "ordered"


def _two_of_dune() -> bool:
    return _orders == {"Dune": 2}
