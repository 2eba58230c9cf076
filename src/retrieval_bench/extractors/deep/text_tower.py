"""The half of an open_clip model that reads texts: one text to one vector, in the space of the vectors of pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from retrieval_bench.core import BenchError
from retrieval_bench.extractors.deep.checkpoint_unwrapping import inner_dicts
from retrieval_bench.extractors.deep.weights import WeightsFile, fill, load, refuse_changed, state_sha256
from retrieval_bench.extractors.text.text_vectors import encodable

CHARACTERS = 4_096
"""Of a text that is longer the rest is left out before it is cut into tokens, of which the model sees 77 or fewer.

A word takes the tokenizer time that grows with the square of its length: 16,384 letters in one word take 12 s.
"""
KNOWN_WORDS = 50_000
"""Words whose tokens are remembered; when there are more, all are forgotten."""

BESIDE = ("visual", "logit_scale", "logit_bias", "text_decoder")
"""Parts of a whole model that a text does not pass through."""
OF_OTHERS = (*(f"{name}." for name in ("visual", "text_decoder")), "logit_scale", "logit_bias")
"""Beginnings of their names in a file."""
OPENAI_FIGURES = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's own files hold as if they were weights."""
EVERY_TOWER_HAS = "token_embedding.weight"


@dataclass(eq=False)
class ClipTextTower:
    """Reads nothing and keeps nothing before the first text: who looks at pictures alone does not pay for it.

    The tower always runs in float32, one text at a time, always on as many tokens as its window has: so a row depends
    on its text alone.

    Args:
        called: the method, for error sentences.
        make: () -> (the whole model with random weights, its tokenizer); the same ones each time.
        file: the weights of the whole model; None: those that `make` gives are kept.
        device: where it runs.
        hub: the name under which a model hub has the tokenizer; "" where it comes with the package.
    """

    called: str
    make: Callable[[], tuple[Any, Any]]
    file: WeightsFile | None
    device: str
    hub: str = ""
    _loaded: tuple[Any, Any, Any] | None = field(default=None, init=False, repr=False)
    _loading: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)
    _tokenizing: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __call__(self, text: str) -> Any:
        """One text -> (1, d) tensor on the CPU, of any length; None where the tokenizer finds nothing in the text.

        Raises BenchError where the model's tokenizer is not here, or its file has no text tower that fits.
        """
        import torch

        text = encodable(text)[:CHARACTERS]
        model, tokenizer, nothing = self._ready()
        if not text:
            return None
        with self._tokenizing:
            tokens = tokenizer([text])
            _forget(tokenizer)
        if tokens.equal(nothing):
            return None
        with torch.inference_mode():
            return model.encode_text(tokens.to(self.device)).cpu()

    def _ready(self) -> tuple[Any, Any, Any]:
        """(model without what reads pictures, tokenizer, tokens of an empty text)."""
        if self.hub:
            raise BenchError(
                f"{self.called} cannot read texts here: open_clip has its tokenizer, {self.hub}, from a model hub; "
                "take a network whose tokenizer comes with open_clip, for example clip:ViT-B-32"
            )
        with self._loading:
            if self._loaded is None:
                model, tokenizer = self.make()
                without_pictures(model)
                if self.file is not None:
                    self._fill(getattr(model, "text", model), self.file)
                self._loaded = model.to(self.device), tokenizer, tokenizer([""])
            return self._loaded

    def _fill(self, tower: Any, file: WeightsFile) -> None:
        refuse_changed(file)
        content = load(file)
        if not any(name.endswith(EVERY_TOWER_HAS) for inner in inner_dicts(content) for name in inner.written):
            raise BenchError(
                f"{self.called} cannot read texts: weights file {file.path.name} holds no text tower; give the state "
                "dict of the whole open_clip model, or compare pictures alone"
            )
        fill(tower, content, file, (*OF_OTHERS, *OPENAI_FIGURES))


def without_pictures(model: Any) -> Any:
    """Take from a whole model, in place, what only pictures pass through; in eval mode, without gradients."""
    for name in BESIDE:
        if getattr(model, name, None) is not None:
            delattr(model, name)
    return model.eval().requires_grad_(False)


def text_sha256(model: Any) -> str:
    """What identifies the random weights of the text tower of a whole model, which keeps its own parts."""
    state = getattr(model, "text", model).state_dict()
    return state_sha256({name: value for name, value in state.items() if not name.startswith(OF_OTHERS)})


def _forget(tokenizer: Any) -> None:
    """open_clip's tokenizer remembers every word that it was ever given."""
    known = getattr(tokenizer, "cache", None)
    if isinstance(known, dict) and len(known) > KNOWN_WORDS:
        special = {token: token for token in ("<start_of_text>", "<end_of_text>") if token in known}
        known.clear()
        known.update(special)
