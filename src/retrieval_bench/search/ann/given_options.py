"""Options of approximate indexes: which are given, whether they mean anything, and whether their values are allowed.

The command line checks ranges as it reads a name; a builder that Python code calls checks them here, by its own
signature.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Mapping
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from retrieval_bench.core import BenchError
from retrieval_bench.registry import Range, unknown

F = TypeVar("F", bound=Callable[..., Any])


def missing(called: str, module: str, extra: str = "ann") -> BenchError:
    """The sentence for a package that is not installed.

    Args:
        called: the backend that needs it.
        module: the package.
        extra: by which it is installed.

    Returns:
        The error.
    """
    return BenchError(
        f"{called} needs {module}, which is not installed; install it by pip install 'retrieval-bench[{extra}]'"
    )


def checked(build: Callable[..., Any], called: str, given: Mapping[str, Any], allowed: Collection[str]) -> dict:
    """Check options against the signature of a builder.

    Args:
        build: whose annotations say what an option may be.
        called: the backend as it is written, for error sentences.
        given: option -> value.
        allowed: the options that mean something here.

    Returns:
        The options.

    Raises:
        BenchError: An option means nothing here, or its value is of another type or out of its range.
    """
    hints = get_type_hints(build, include_extras=True)
    for name, value in given.items():
        if name not in allowed and name in hints:
            some = f"its options are {', '.join(sorted(allowed))}" if allowed else "it has no options"
            raise BenchError(f"{called}: {name} means nothing here; {some}")
        if name not in allowed:
            raise BenchError(unknown(f"option of {called}", name, allowed))
        _check(called, name, value, hints[name])
    return dict(given)


def _check(called: str, name: str, value: Any, hint: Any) -> None:
    limits = next((one for one in getattr(hint, "__metadata__", ()) if isinstance(one, Range)), None)
    kind = get_args(hint)[0] if get_origin(hint) is Annotated else hint
    if get_origin(kind) is Literal and value not in get_args(kind):
        raise BenchError(f"{called}: {name}={value!r} is not one of {', '.join(map(str, get_args(kind)))}")
    if kind in (int, float):
        numbers = (int,) if kind is int else (int, float)
        if isinstance(value, bool) or not isinstance(value, numbers):
            raise BenchError(f"{called}: {name}={value!r} is not a {'whole ' if kind is int else ''}number")
        if limits is not None and value not in limits:
            raise BenchError(f"{called}: {name}={value} {limits}")


def refuses_the_meaningless(called: Callable[..., str], allowed: Callable[..., Collection[str]]) -> Callable[[F], F]:
    """Let a builder see first which options were given, and not only which values they have.

    Args:
        called: (distance, given options) -> the backend as it is written.
        allowed: (distance, given options) -> the options that mean something.

    Returns:
        A decorator of builders.
    """

    def around(build: F) -> F:
        @functools.wraps(build)
        def guarded(gallery: Any, distance: Any = "cosine", **given: Any) -> Any:
            checked(build, called(distance, given), given, allowed(distance, given))
            return build(gallery, distance, **given)

        return cast(F, guarded)

    return around
