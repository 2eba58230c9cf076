"""The colours of a picture; none of them says anything that shape or width does not say, too."""

from __future__ import annotations

Colour = tuple[int, int, int]
PAPER: Colour = (255, 255, 255)
SHADE: Colour = (243, 244, 246)
INK: Colour = (24, 26, 30)
SOFT: Colour = (92, 98, 108)
RIGHT: Colour = (0, 98, 178)
WRONG: Colour = (196, 72, 0)
LINE: Colour = (255, 214, 10)
FAINT: Colour = (176, 184, 196)
