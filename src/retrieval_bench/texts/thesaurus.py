"""Some two hundred English words of shops: which mean the same, and what they are in Spanish.

They are those of the embedded dataset. A thesaurus of the whole language is a download, and would replace words that
no listing has.
"""

from __future__ import annotations

import functools

from retrieval_bench.datasets.shop.wording import COLOURS, EMBLEMS, KINDS, PRINTS

SPANISH = {
    "mug": "taza", "bottle": "botella", "box": "caja", "shirt": "camiseta", "shoe": "zapato",
    "bag": "bolso", "book": "libro", "clock": "reloj", "lamp": "lámpara", "cap": "gorra",
    "white": "blanco", "cream": "crema", "yellow": "amarillo", "orange": "naranja", "red": "rojo",
    "pink": "rosado", "purple": "morado", "navy": "azul marino", "blue": "azul", "teal": "turquesa",
    "green": "verde", "olive": "verde oliva", "brown": "marrón", "grey": "gris", "black": "negro",
    "stripes": "rayas", "bars": "barras", "checks": "cuadros", "dots": "lunares", "diagonal": "líneas diagonales",
    "zigzag": "zigzag", "band": "una franja", "halves": "dos mitades", "grid": "cuadrícula", "scales": "escamas",
    "star": "estrella", "heart": "corazón", "ring": "anillo", "leaf": "hoja", "bolt": "rayo",
    "peaks": "montañas", "flower": "flor", "moon": "luna", "fish": "pez", "diamond": "diamante",
}  # fmt: skip
FUNCTION_WORDS = {
    "with": "con", "and": "y", "in": "en", "of": "de", "the": "el", "a": "un", "made": "hecho", "size": "talla",
    "small": "pequeño", "medium": "mediano", "large": "grande", "print": "estampado", "shows": "muestra",
    "word": "palabra",
}  # fmt: skip
"""Translated, but without other words for them."""


@functools.cache
def other_words() -> dict[str, tuple[str, ...]]:
    """A word, or several that belong together, in lower case -> all others that mean the same."""
    found: dict[str, tuple[str, ...]] = {}
    for groups in (KINDS, COLOURS, PRINTS, EMBLEMS):
        for said in groups.values():
            for word in said:
                found.setdefault(word, tuple(other for other in said if other != word))
    return found


@functools.cache
def in_spanish() -> dict[str, str]:
    """The same words, and some that hold a sentence together -> Spanish."""
    found = dict(FUNCTION_WORDS)
    for groups in (KINDS, COLOURS, PRINTS, EMBLEMS):
        for name, said in groups.items():
            found |= {word: SPANISH[name] for word in said if word not in found}
    return found
