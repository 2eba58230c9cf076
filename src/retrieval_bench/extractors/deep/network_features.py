"""Any network as an extractor: a backbone, what pools its maps, what is done to the vector, and the options for it all.

By default the features are what the last linear layer sees: "neural codes" (Babenko et al., ECCV 2014), with the
network's own preprocessing.
"""

from __future__ import annotations

import importlib.util
import inspect
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_type_hints

import numpy as np

from retrieval_bench.core import BenchError, Distance, Extractor, Setup, Split, refuse_unfitted
from retrieval_bench.extractors.deep import weights
from retrieval_bench.extractors.deep.backbones import HEAD, LAST, Backbone, Taps, Trainable, channels_first, check_size
from retrieval_bench.extractors.deep.fused_inference import Compute, faster, has_bfloat16, steady_batch
from retrieval_bench.extractors.deep.model_folder import in_words, preprocess_of
from retrieval_bench.extractors.deep.nearest_network import AUXILIARY_HEADS
from retrieval_bench.extractors.deep.pooling import pooled
from retrieval_bench.extractors.deep.postprocess import Kept, PostProcess, Tune
from retrieval_bench.extractors.deep.preprocess import LARGEST_SIDE, LEAST_SIDE, Preprocess, not_too_long, of_recipe
from retrieval_bench.images.pictures import pictures
from retrieval_bench.registry import EXTRACTORS, Entry, Range
from retrieval_bench.system.checkpoint import facts_of
from retrieval_bench.system.device import LANES, Feeder, on_gpu, steady
from retrieval_bench.system.threads import mapped

CUDA_BATCH = 32
"""Images that go to a GPU at once; fewer where its memory says so.

One thread decodes them all. With 128 and 16 threads, all of them decoded while the card waited, and then the reverse.
"""
FIT_IMAGES = 10_000
"""Training images that post-processing learns from, at most, drawn by the seed."""

LEAST_P = 0.01
"""Power of `gem`; what a smaller one tells apart is less than float32 does."""

SCALES = {1: (1.0,), 2: (1.0, 0.5**0.5), 3: (1.0, 0.5**0.5, 0.5)}
"""Sizes of the image, by how many are asked for (Radenovic, Tolias and Chum, PAMI 2019)."""

AGREE_IMAGES = 256
"""Training images on which compute=auto compares the neighbours that bfloat16 finds with those of float32."""
AGREE_K = 10
TOLERANCE = 0.98
"""Of these neighbours, the share that must be the same."""

Pool = Literal["auto", "head", "avg", "max", "gem", "rmac", "token"]


@dataclass(frozen=True)
class ViewRecipe:
    """One way to look at an image: preprocessed so, mirrored or not."""

    preprocess: Preprocess
    mirrored: bool

    def __call__(self, image: Any) -> Any:
        pixels = self.preprocess(image)
        return pixels.flip(2) if self.mirrored else pixels


@dataclass(eq=False)
class NetworkFeatures:
    """backbone: the network, and the record's facts about it. describe: a batch (n, 3, h, w) -> (n, d) tensor.

    fast: the same in bfloat16, where `compute` is auto and the processor has it. views: an image's vectors in each, at
    length 1, are added up. batch: images that go through the network together on the CPU; only where that changes no
    bit of any of them.
    """

    backbone: Backbone
    describe: Callable[[Any], Any]
    views: Sequence[ViewRecipe]
    after: PostProcess
    dimensions: int
    device: str
    fast: Callable[[Any], Any] | None = None
    batch: int = 1
    seed: int = 0
    threads: int = 1
    compute_note: str = ""
    fit_images: int = field(default=FIT_IMAGES, init=False)
    feeder: Feeder = field(init=False)
    agreement_: np.ndarray = field(init=False)
    distance: Distance = field(init=False)

    def __post_init__(self) -> None:
        self.distance = self.after.distance
        lanes = LANES if on_gpu(self.device) else 0
        self.feeder = Feeder(f"{self.backbone.name}: images", self.device, self.chunk, lanes)

    @property
    def mark(self) -> str:
        return self.backbone.mark

    @property
    def weights(self) -> dict[str, str]:
        """Source, sha256 and recipe; where the network is not run as it was written, how it is run."""
        facts = dict(self.backbone.weights)
        if self.compute_note:
            facts["compute"] = self.compute_note
        if hasattr(self, "agreement_"):
            share = float(self.agreement_[0])
            chosen = "bfloat16" if self._narrow else "float32 in its place"
            facts["compute"] = f"{chosen}: {share:.4f} of the {AGREE_K} nearest are the same in bfloat16, among train"
        return facts

    @property
    def trained_on(self) -> dict[str, Any] | None:
        return self.backbone.trained_on

    @property
    def preprocess(self) -> Preprocess:
        return self.views[0].preprocess

    @property
    def wanted(self) -> int:
        return max(view.preprocess.shorter for view in self.views)

    @property
    def chunk(self) -> int:
        return CUDA_BATCH if on_gpu(self.device) else self.batch

    @property
    def learned(self) -> tuple[str, ...]:
        return (*self.after.learned, *(("agreement_",) if self.fast is not None else ()))

    @property
    def _narrow(self) -> bool:
        return self.fast is not None and float(self.agreement_[0]) >= TOLERANCE

    def fit(self, train: Split) -> Self:
        if not self.learned:
            return self
        rows = self.fit_rows(len(train))
        if self.fast is not None:
            some = rows[np.linspace(0, len(rows) - 1, min(len(rows), AGREE_IMAGES)).astype(int)]
            wide, narrow = (self._vectors_of(train, some, describe) for describe in (self.describe, self.fast))
            self.agreement_ = np.array([agreement(wide, narrow)])
        if self.after.learned:
            vectors = self._vectors_of(train, rows, self._chosen)
            for name, array in self.after.fit(vectors, train.labels[rows], self.threads).items():
                setattr(self, name, array)
        return self

    def fit_rows(self, n: int) -> np.ndarray:
        """Rows of n training images that `fit` learns from, ascending."""
        return np.sort(np.random.default_rng(self.seed).permutation(n)[: self.fit_images])

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """n images -> (n, width) of the dtype that is kept; rows of norm 1 where they are floats.

        On the CPU images go through in batches that give each the same bits as alone. On a GPU they go in larger ones,
        and the last bits may depend on the batch.
        """
        refuse_unfitted(self, self.backbone.name)
        learned = {name: getattr(self, name) for name in self.after.learned}
        width = self.after.width(self.dimensions, learned)
        rows: np.ndarray = np.empty((len(images), width), self.after.dtype)
        for row, vector in enumerate(self._vectors(images, self._chosen)):
            rows[row] = self.after.apply(vector, learned)
        return rows

    @property
    def _chosen(self) -> Callable[[Any], Any]:
        return self.fast if self.fast is not None and self._narrow else self.describe

    def _vectors(self, images: Sequence[np.ndarray], describe: Callable[[Any], Any]) -> np.ndarray:
        """n images -> (n, dimensions) float32 before post-processing, rows of norm 1."""
        import torch

        vectors = np.empty((len(images), self.dimensions), np.float32)
        with torch.inference_mode():
            for start in range(0, len(images), self.chunk):
                some = [not_too_long(image) for image in pictures(images[start : start + self.chunk], start)]
                total = sum(self._viewed(view, some, describe) for view in self.views)
                vectors[start : start + len(some)] = (_unit(total) if len(self.views) > 1 else total).numpy()
        return vectors

    def _viewed(self, view: ViewRecipe, images: Sequence[Any], describe: Callable[[Any], Any]) -> Any:
        import torch

        inputs = [view(image) for image in images]
        alike = all(one.shape == inputs[0].shape for one in inputs)
        outputs = [self.feeder(describe, some) for some in ([inputs] if alike else [[one] for one in inputs])]
        return _unit(torch.cat(outputs))

    def _vectors_of(self, train: Split, rows: np.ndarray, describe: Callable[[Any], Any]) -> np.ndarray:
        """Of these training images, in order, on all threads; a few images are in memory at a time."""

        chunks = (rows[start : start + self.chunk] for start in range(0, len(rows), self.chunk))
        decoded = ([train.images[int(row)] for row in some] for some in chunks)
        done = list(mapped(lambda some: self._vectors(some, describe), decoded, self.threads))
        return np.concatenate(done)


@dataclass(eq=False)
class PicturesAndTexts(NetworkFeatures):
    """A network whose backbone reads texts too, into the space of the vectors that it gives of pictures.

    - `size`, `crop`, `flip`, `scales` and `compute` say how pictures are looked at. They stay in the same space, and
      texts do not change with them.
    - `power` and `dtype` are done to both, but for `dtype=bits`.
    - What is learned from pictures (`centre`, `whiten`, `tune`, `dtype=bits`) is refused where texts are read: texts
      lie in another part of the space than pictures, whose mean and axes say nothing about them.
    - So are other layers and pools: only the last layer's vector lies in the space.

    apart: why the options leave no space that both share; "" where they do.
    """

    apart: str = ""

    def transform_texts(self, texts: Sequence[str]) -> np.ndarray:
        """n texts -> (n, width) as `transform` gives them; zeros of an empty text, and where nothing in it is known.

        Each text goes through alone. Raises BenchError where options leave no common space.
        """
        if self.apart:
            raise BenchError(f"{self.backbone.name} cannot read texts with {self.apart}")
        assert self.backbone.texts is not None
        rows: np.ndarray = np.zeros((len(texts), self.after.width(self.dimensions, {})), self.after.dtype)
        for row, text in enumerate(texts):
            vector = self.backbone.texts(text)
            if vector is not None:
                rows[row] = self.after.apply(_unit(vector)[0].float().numpy(), {})
        return rows


def _unit(rows: Any) -> Any:
    """To unit length in float64: what an untrained network gives may be too small to be squared."""
    import torch

    return torch.nn.functional.normalize(rows.double(), dim=1, eps=1e-300)


def agreement(first: np.ndarray, second: np.ndarray, k: int = AGREE_K) -> float:
    """(n, d) vectors of the same images -> share of each one's k nearest that both agree on, 0 to 1; 1 where n is 1."""
    k = min(k, len(first) - 1)
    if k < 1:
        return 1.0
    near = []
    for rows in (first, second):
        similarity = rows @ rows.T
        np.fill_diagonal(similarity, -np.inf)
        near.append(np.argsort(-similarity, axis=1, kind="stable")[:, :k])
    shared = [len(np.intersect1d(one, other)) for one, other in zip(*near, strict=True)]
    return float(np.mean(shared)) / k


def features_of(
    setup: Setup,
    backbone: Backbone,
    *,
    pool: Pool = "auto",
    layer: str = LAST,
    p: Annotated[float, Range(LEAST_P)] = 3.0,
    size: Annotated[int, Range(LEAST_SIDE, LARGEST_SIDE, or_zero=True)] = 0,
    crop: bool = True,
    flip: bool = False,
    scales: Annotated[int, Range(1, 3)] = 1,
    power: Annotated[float, Range(0, 1, above=True)] = 1.0,
    centre: bool = False,
    whiten: Annotated[int, Range(0)] = 0,
    level: Annotated[float, Range(0, 1)] = 1.0,
    tune: Tune = "no",
    dtype: Kept = "float32",
    compute: Compute = "float32",
) -> Extractor:
    """The extractor of a backbone under the options that all networks share; docs/deep.md has what was measured.

    Args:
        setup: what the run fixes for every method.
        backbone: the network.
        pool: what makes one vector of a layer. `head`: what the last linear layer sees; `avg`, `max`, `gem` or `rmac`
            over the feature map; `token`: the class token. `auto` is `head`, and for a named layer its class token or
            average.
        layer: the layer that is read, by its module's name, as `layer3`; several one behind the other, as
            `layer3/layer4`. `last` is the last one.
        p: the power of `gem`, from 0.01: 1 is the average, large is near the maximum.
        size: side of the image in pixels; 0 takes the network's own.
        crop: cut the middle out of the resized image; `no` takes the whole image, its shorter side at `size`.
        flip: add the vector of the mirror image.
        scales: sizes of the image whose vectors are added up, 1 to 3: 1, 0.71 and 0.5 of `size`.
        power: sign(x) |x|^power is taken of every number, before anything is learned.
        centre: subtract the mean of the training images.
        whiten: principal components that are kept, learned from train; 0 keeps the vector whole.
        level: how far these are whitened, 0 (not at all) to 1 (fully).
        tune: `head` puts the scores of a linear classifier, learned from the labels of train, in the vector's place.
        dtype: how an image's vector is kept: `float32`, `float16`, `int8`, or `bits`, compared by Hamming distance.
        compute: how the network runs: `float32`; `fused` (layers folded together); `bfloat16`, quicker where the
            hardware has it; `auto`: `bfloat16` where it keeps the neighbours, else `fused`.
    """
    name, network = backbone.name, backbone.network
    after = PostProcess(power, centre, whiten, level, tune, dtype, setup.seed).checked(name)
    if scales not in SCALES:
        raise BenchError(f"{name}: scales={scales} is not one of {', '.join(map(str, SCALES))}")
    if p < LEAST_P:
        raise BenchError(
            f"{name}: p={p:g} must be at least {LEAST_P}; 1 is the average, and the larger the nearer to the maximum"
        )
    preprocess = backbone.preprocess.of_size(name, size) if size else backbone.preprocess
    preprocess = preprocess if crop else replace(preprocess, whole=not preprocess.squash)
    views = [
        ViewRecipe(preprocess.scaled(factor), mirrored)
        for factor in SCALES[scales]
        for mirrored in ((False, True) if flip else (False,))
    ]
    sides = {view.preprocess.crop for view in views} - {backbone.preprocess.crop}
    if sides or not crop:
        check_size(name, network, sorted(sides or {preprocess.crop + preprocess.crop // 7}))
    # Channels last is up to 2.5 times as fast on the CPU, one image at a time.
    import torch

    steady(setup.device)
    network.to(setup.device, memory_format=torch.channels_last)
    chosen: str = pool
    if pool == "auto":
        chosen = HEAD if layer == LAST else "token" if _has_token(backbone, layer) else "avg"
    describe, dimensions, note = _described(backbone, chosen, layer, p, setup.device, compute)
    fast = None
    if compute == "auto" and has_bfloat16(setup.device):
        fast, _, note = _described(backbone, chosen, layer, p, setup.device, "bfloat16")
    batch = 1
    if not on_gpu(setup.device) and compute != "float32":
        batch = min(steady_batch(run, preprocess.crop) for run in (describe, fast) if run is not None)
    fields = (backbone, describe, views, after, dimensions, setup.device, fast, batch, setup.seed, setup.threads, note)
    if backbone.texts is None:
        return NetworkFeatures(*fields)
    return PicturesAndTexts(*fields, apart=_apart(chosen, layer, after))


def _apart(pool: str, layer: str, after: PostProcess) -> str:
    """Which options leave no space that pictures share with texts, why, and what to do; "" where there is one."""
    if pool != HEAD:
        return (
            f"{f'pool={pool}' if layer == LAST else f'layer={layer}'}: only what the network gives at its end lies in "
            "one space with texts; leave pool and layer out"
        )
    learned = {
        "centre=yes": after.centre,
        f"whiten={after.whiten}": after.whiten,
        f"tune={after.tune}": after.tune != "no",
        "dtype=bits": after.kept == "bits",
    }
    if not (named := [option for option, is_set in learned.items() if is_set]):
        return ""
    return (
        f"{', '.join(named)}: that is learned from pictures, and texts lie in another part of the space; "
        f"leave {'it' if len(named) == 1 else 'them'} out"
    )


def _has_token(backbone: Backbone, layer: str) -> bool:
    return backbone.prefix > 0 and all(len(backbone.stage(one).shape) == 3 for one in layer.split("/"))


def _described(
    backbone: Backbone, pool: str, layer: str, p: float, device: str, compute: Compute
) -> tuple[Callable[[Any], Any], int, str]:
    """(batch -> (n, d), d, note on how the network is run)."""
    import torch

    network, side = backbone.network, backbone.preprocess.crop
    run: Any
    if pool == HEAD:
        if layer != LAST:
            raise BenchError(f"{backbone.name}: pool=head is of the last layer alone; name another pool for {layer!r}")
        if compute == "float32":
            return network, backbone.dimensions, ""
        run = faster(backbone.name, network, device, "fused" if compute == "auto" else compute, side=side)
        return run, backbone.dimensions, run.note
    stages = [backbone.stage(one) for one in layer.split("/")]
    note = ""
    if compute == "float32":
        run = Taps(network, stages)
    else:
        names = [stage.name for stage in stages]
        quick = faster(backbone.name, network, device, "fused" if compute == "auto" else compute, names, side)
        note = quick.note

        def run(batch: Any) -> list[Any]:
            found = quick(batch)
            return [channels_first(found[stage.name], stage) for stage in stages]

    # The ReLU that DenseNet applies between its last module and the classifier.
    rectified = [backbone.rectify and stage == backbone.stage(LAST) for stage in stages]

    def describe(batch: Any) -> Any:
        maps = [torch.relu(one) if cut else one for one, cut in zip(run(batch), rectified, strict=True)]
        vectors = [pooled(backbone.name, one, pool, p, backbone.prefix) for one in maps]
        return vectors[0] if len(vectors) == 1 else torch.cat([_unit(vector) for vector in vectors], dim=1)

    with torch.inference_mode():
        dimensions = describe(torch.zeros(1, 3, side, side, device=device)).shape[1]
    return describe, dimensions, note


def torchvision_backbone(setup: Setup, name: str, file: str = "") -> Backbone:
    """A torchvision network without its head, with the weights of this file, or those that `setup.weights` asks for
    (see weights.find)."""
    import torch
    from torchvision import models

    recipes = models.get_model_weights(name)
    # Some weights are for other tasks and have no trained classifier: those name no categories.
    trained = [recipes.DEFAULT, *(r for r in recipes if r is not recipes.DEFAULT and r.meta.get("categories"))]
    urls = {recipe.name: recipe.url for recipe in trained}
    found = weights.named(Path(file), name) if file else weights.find(name, urls, setup.weights)
    recipe = recipes[found.recipe] if found and found.recipe else recipes.DEFAULT
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(setup.seed)
        network = models.get_model(name, weights=None, **_keywords(name, recipe))
    network.eval().requires_grad_(False)
    head, dimensions = _behead(network)
    preprocess = of_recipe(recipe.transforms())
    trained_on = None
    if found:
        ignore = (f"{head}.", *AUXILIARY_HEADS)
        taken = weights.fill(network, weights.load(found), found, ignore, _densenet_name)
        trained_on = facts_of(taken.state)
        named = recipe.name if found.recipe else f"unknown, preprocessed as {recipe.name}"
        if found.folder and found.folder.data:
            preprocess = preprocess_of(found.source, found.folder.data)
            named = f"unknown, preprocessed as config.json says: {in_words(preprocess)}"
        origin = weights.facts(found, taken, named)
    else:
        origin = {
            "source": f"random initialisation, seed {setup.seed}",
            "sha256": weights.state_sha256(network.state_dict()),
            "recipe": f"none, preprocessed as {recipe.name}",
        }
    return Backbone(
        name,
        network,
        preprocess,
        dimensions,
        origin,
        mark="" if found else "untrained",
        prefix=1 if _class_token(name) else 0,
        rectify=name.startswith("densenet"),
        trained_on=trained_on,
    )


def _whole(name: str) -> Any:
    """torchvision's network with its classifier, random weights."""
    from torchvision import models

    extra = {"init_weights": False, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    return models.get_model(name, weights=None, **extra)


def _keywords(name: str, recipe: Any) -> dict[str, Any]:
    """What torchvision sets by itself only when it loads its own weights."""
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "transform_input": True, "init_weights": False}
    if name.startswith("vit_"):
        return {"image_size": recipe.meta["min_size"][0]}
    return {}


def _behead(network: Any) -> tuple[str, int]:
    """Replace the last classifier by the identity: its name and the number of features that reach it."""
    from torch import nn

    name, last = [(n, m) for n, m in network.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)][-1]
    if isinstance(last, nn.Linear):
        parent, _, leaf = name.rpartition(".")
        setattr(network.get_submodule(parent), leaf, nn.Identity())
        return name, last.in_features
    # SqueezeNet classifies each position by a 1x1 convolution and averages after it; we average before it.
    network.classifier = nn.AdaptiveAvgPool2d(1)
    return "classifier", last.in_channels


def _densenet_name(name: str) -> str:
    """torchvision's DenseNet files were saved when layers were called "norm.1" instead of "norm1"."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2", name)


def with_options(make: Callable[..., Backbone], **defaults: Any) -> Callable[..., Extractor]:
    """A builder whose options are those of `make` (its keyword parameters) and those of `features_of`.

    defaults: of those shared options that have another default for this network.
    """
    shared = inspect.signature(features_of).parameters
    own = inspect.signature(make).parameters
    keywords = {
        key: parameter.replace(default=defaults.get(key, parameter.default))
        for parameters in (own, shared)
        for key, parameter in parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }

    def build(setup: Setup, **options: Any) -> Extractor:
        mine = {key: options.pop(key) for key in list(options) if key in own}
        return features_of(setup, make(setup, **mine), **(defaults | options))

    def check(**options: Any) -> None:
        """What can be said of the options without the network."""
        if options.get("pool") == HEAD and options.get("layer", LAST) != LAST:
            raise BenchError(f"pool=head is of the last layer alone; name another pool for {options['layer']!r}")
        if file := options.get("weights"):
            weights.there(Path(file))
        if hasattr(make, "check"):
            make.check(**options)

    build.check = check  # type: ignore[attr-defined]
    # Where the registry reads names, types and defaults of the options.
    build.__signature__ = inspect.Signature([own["setup"], *keywords.values()])  # type: ignore[attr-defined]
    build.__wrapped__ = make  # type: ignore[attr-defined] # whose file is part of the key of cached features
    build.__doc__ = make.__doc__
    build.__annotations__ = get_type_hints(features_of, include_extras=True) | get_type_hints(make, include_extras=True)
    return build


@EXTRACTORS.more
def torchvision_networks() -> Iterator[Entry]:
    """An entry for every classification network of the installed torchvision."""

    def entry(name: str) -> Entry:
        def make(setup: Setup, *, weights: str = "") -> Backbone:
            """A network of torchvision.

            Args:
                setup: what the run fixes for every method.
                weights: a file of weights, or a folder of timm, to take in place of those that --weights finds.
            """
            return torchvision_backbone(setup, name, weights)

        about = f"penultimate features of torchvision's {name}"
        trains = Trainable(lambda setup: torchvision_backbone(setup, name), lambda: _whole(name))
        facts = {"provided": True, "trains": trains, "unfit": {"pool": ("rmac",) if _class_token(name) else ("token",)}}
        return Entry(name, with_options(make), about, family="deep", facts=facts, shares=features_of)

    for name in _torchvision_names():
        yield entry(name)


def _class_token(name: str) -> bool:
    """Whether a network of torchvision works on tokens, of which one is for the class: all others give maps."""
    return name.startswith("vit_")


_REGISTERED = re.compile(r"^@register_model\(\)\n(?:@.*\n)*def (\w+)\(", re.M)


def _torchvision_names() -> list[str]:
    """Read from its source: to import it takes seconds, and one that is broken concerns its own networks alone."""
    found = importlib.util.find_spec("torchvision")
    places = [] if found is None else found.submodule_search_locations or []
    files = [file for place in places for file in Path(place, "models").glob("*.py")]
    names = {name for file in files for name in _REGISTERED.findall(file.read_text(encoding="utf-8"))}
    if not names and found is not None:  # packed, or written in another way
        from torchvision import models

        return list(models.list_models(module=models))
    return sorted(names)
