"""The exception tree: drawn once, and drawn right."""

from __future__ import annotations

import inspect
import re

import pytest

from lmedge import errors
from lmedge.errors import LmedgeError

CLASSES = {
    name: value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and issubclass(value, Exception) and value.__module__ == errors.__name__
}


def drawn_tree() -> dict[str, tuple[str | None, str | None]]:
    """Class name → (parent in the drawing, built-in base in brackets), from the module's docstring."""
    tree: dict[str, tuple[str | None, str | None]] = {"LmedgeError": (None, None)}
    path = ["LmedgeError"]
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"^([│ ]*)[├└]── (\w+)(?: \((\w+)\))?  ", line)
        if match:
            depth = len(match.group(1)) // 4
            path[depth + 1 :] = [match.group(2)]
            tree[match.group(2)] = (path[depth], match.group(3))
    return tree


def test_every_error_is_drawn_and_every_drawn_error_exists() -> None:
    assert set(drawn_tree()) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_drawn_parents_are_the_real_ones(name: str) -> None:
    parent, builtin = drawn_tree()[name]
    bases = [base.__name__ for base in CLASSES[name].__bases__]
    assert bases == ([parent] if parent else ["Exception"]) + ([builtin] if builtin else [])


@pytest.mark.parametrize("name", sorted(CLASSES))
def test_every_error_is_an_lmedge_error_and_says_what_it_means(name: str) -> None:
    assert issubclass(CLASSES[name], LmedgeError)
    assert (CLASSES[name].__doc__ or "").strip().endswith(".")


@pytest.mark.parametrize(
    ("name", "builtin"),
    [
        ("ConfigError", ValueError),
        ("DataError", ValueError),
        ("SchemaError", ValueError),
        ("InputError", ValueError),
        ("BackendUnavailableError", ImportError),
        ("DeviceUnavailableError", ImportError),
    ],
)
def test_callers_who_know_only_python_catch_them_too(name: str, builtin: type[Exception]) -> None:
    with pytest.raises(builtin, match="no luck"):
        raise CLASSES[name]("no luck")
