"""What is stored is found again by those alone who would make the same: every field of every key of every cache.

A recipe is what a cache key is made of. All recipes are listed here with all their fields. For each field there are two
runs that differ in it alone, and they must share nothing. So a field that is dropped fails here, and a field, a kind of
recipe or a parameter that is added and not listed fails, too.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import PIL
import pytest

import retrieval_bench
from retrieval_bench.core import Dataset, Setup, Split
from retrieval_bench.experiment import features
from retrieval_bench.experiment.prepare import prepare
from retrieval_bench.experiment.runner import run
from retrieval_bench.images import decoding, perturbations
from retrieval_bench.images.decoding import Decoding
from retrieval_bench.images.perturbations import Perturbed
from retrieval_bench.images.reading import ImageBytes, encode_png
from retrieval_bench.methods.parse import Method
from retrieval_bench.registry import EXTRACTORS, Entry, Spec
from retrieval_bench.search import jit
from retrieval_bench.system import cache
from retrieval_bench.system.cache import FeatureCache, code_version, recipe_key
from tests.support.runs import plan
from tests.support.shop import shop

OF_AN_EXTRACTOR = frozenset(
    {"method", "options", "seed", "device", "distance", "weights", "decoder", "code", "libraries", "learned_from"}
)
RECIPES = {
    "features": {"kind"} | OF_AN_EXTRACTOR,
    "fit": {"kind"} | OF_AN_EXTRACTOR,
    "screened, frames counted": {"kind", "decoder"},
    "look": {"kind", "decoder", "code"},  # of `dedupe`, tests/data_audit/test_looks.py
    "index": {  # of `serve`, tests/serving/test_opening.py
        *("kind", "dataset", "images", "limit", "methods", "seed", "weights", "device", "learn_from", "relevance"),
        *("decoder", "decode", "code", "libraries"),
    },
}
"""Every kind of recipe with its fields. Whoever adds one adds to OTHER what differs in it."""

# --- a method whose every circumstance can be changed by itself -------------------------------------------------------


@dataclass(frozen=True)
class Circumstances:
    """All that features can depend on besides their images, one attribute for each field of a recipe."""

    method: str = "probe"
    options: Mapping[str, int] = field(default_factory=lambda: {"size": 1})
    seed: int = 0
    device: str = "cpu"
    distance: str = "euclidean"
    weights: Mapping[str, str] | None = field(default_factory=lambda: {"source": "a.pth", "sha256": "00"})
    decoder: str = "decoder 1"
    code: str = "code 1"
    libraries: Mapping[str, str] = field(default_factory=lambda: {"numpy": "1.0"})
    learned_from: str = "train"


OTHER: dict[str, Sequence[Any]] = {
    "method": ["another"],
    "options": [{"size": 2}, {}],  # where it is not given, its default counts, which is 3
    "seed": [1],
    "device": ["cuda"],
    "distance": ["cosine"],
    "weights": [{"source": "a.pth", "sha256": "01"}, {"source": "b.pth", "sha256": "00"}, None],
    "decoder": ["decoder 2"],
    "code": ["code 2"],
    "libraries": [{"numpy": "1.1"}, {"numpy": "1.0", "torch": "2.0"}],
    "learned_from": ["fewer images", "other labels", "another order", "other pixels"],
}
"""Field -> what it is in runs that differ from the first one in it alone."""

DIFFERENT = [
    pytest.param(name, other, id=f"{name}-{number}")
    for name in sorted(OF_AN_EXTRACTOR)
    for number, other in enumerate(OTHER.get(name, []))
]


class Probe:
    """The mean colour, moved by what it learned; counts what it was asked for."""

    learned = ("mean_",)
    described = 0
    fits = 0

    def __init__(self, of: Circumstances) -> None:
        self.distance, self.weights = of.distance, of.weights

    def fit(self, train: Split) -> Self:
        type(self).fits += 1
        self.mean_ = np.ones(3, np.float32)
        return self

    def transform(self, images: Sequence[np.ndarray]) -> np.ndarray:
        type(self).described += len(images)
        means = np.array([image.mean(axis=(0, 1)) for image in images], np.float32)
        return means.reshape(-1, 3) + self.mean_


def everywhere(monkeypatch: pytest.MonkeyPatch, name: str, value: Any) -> None:
    """Replace what is called so in every module of the package, wherever it was imported to."""
    holders = [module for full, module in sys.modules.items() if full.split(".")[0] == "retrieval_bench"]
    holders = [module for module in holders if name in vars(module)]
    assert holders, f"nothing is called {name} any more"
    for module in holders:
        monkeypatch.setattr(module, name, value)


def train_of(data: Dataset, which: str) -> Split:
    train = data.train
    if which == "fewer images":
        return train.take(range(len(train) - 1))
    if which == "other labels":
        return replace(train, labels=train.labels[::-1].copy())
    if which == "another order":
        return train.take(range(len(train))[::-1])
    if which == "other pixels":
        encoded = [train.images.read(row) for row in range(len(train))]
        return replace(train, images=ImageBytes([*encoded[:-1], encode_png(train.images[0])]))
    assert which == "train"
    return train


@dataclass(frozen=True)
class Work:
    """What a run did, and the recipes that it asked the store by."""

    fits: int
    described: int
    recipes: Mapping[str, Mapping[str, Any]]


def work(root: Path, of: Circumstances, wanted: Mapping[str, Split] | None = None, how: Decoding | None = None) -> Work:
    """Describe some splits under these circumstances, with the cache below root."""
    data = shop(2, 2)

    def build(setup: Setup, *, size: int = 3) -> Probe:
        return Probe(of)

    method = Method((Spec(Entry(of.method, build, "for tests", "test"), of.options),))
    chosen = plan(
        data, method, seed=of.seed, device=of.device, cache=FeatureCache(root), threads=1, decoding=how or Decoding()
    )
    recipes: dict[str, Mapping[str, Any]] = {}

    def noted(recipe: Mapping[str, Any]) -> str:
        recipes[recipe["kind"]] = dict(recipe)
        return recipe_key(recipe)

    fits, described = Probe.fits, Probe.described
    with pytest.MonkeyPatch.context() as patch:
        everywhere(patch, "DECODER_VERSION", of.decoder)
        everywhere(patch, "code_version", lambda *files: of.code)
        everywhere(patch, "library_versions", lambda: dict(of.libraries))
        everywhere(patch, "recipe_key", noted)
        train = train_of(data, of.learned_from)
        features.described(method, chosen, train, {"gallery": data.gallery} if wanted is None else wanted)
    return Work(Probe.fits - fits, Probe.described - described, recipes)


# --- recipes of features and of what was learned ----------------------------------------------------------------------


def test_every_field_of_a_recipe_has_two_runs_that_differ_in_it_alone() -> None:
    assert OTHER.keys() == OF_AN_EXTRACTOR == {one.name for one in fields(Circumstances)}
    assert all(OTHER.values())


@pytest.mark.parametrize(("name", "other"), DIFFERENT)
def test_runs_that_differ_in_one_field_share_nothing(tmp_path: Path, name: str, other: Any) -> None:
    one, two = Circumstances(), replace(Circumstances(), **{name: other})
    first = work(tmp_path, one)
    assert (first.fits, first.described) == (1, 4)
    again = work(tmp_path, one)
    assert (again.fits, again.described) == (0, 0), "the cache does not work, so that this test says nothing"
    second = work(tmp_path, two)
    for kind in ("fit", "features"):
        before, after = first.recipes[kind], second.recipes[kind]
        assert {key for key in before | after if before.get(key) != after.get(key)} == {name}
    assert second.fits == 1, f"what was learned is the same for another {name}"
    assert second.described == 4, f"features are the same for another {name}"
    for known in (one, two):
        again = work(tmp_path, known)
        assert (again.fits, again.described) == (0, 0), "one of them took the other's place"


def test_what_learns_nothing_shares_its_features_whatever_train_is(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(Probe, "learned", ())
    monkeypatch.setattr(Probe, "mean_", np.zeros(3, np.float32), raising=False)
    assert work(tmp_path, Circumstances()).described == 4
    assert work(tmp_path, Circumstances(learned_from="fewer images")).described == 0
    assert work(tmp_path, Circumstances(seed=1)).described == 4


def test_features_of_pictures_that_were_decoded_small_are_others(tmp_path: Path) -> None:
    """For each side that was wanted; the limit of pixels refuses pictures and changes none."""
    ways = (Decoding(), Decoding(wanted=32), Decoding(wanted=33))
    for of in ways:
        found = work(tmp_path, Circumstances(), how=of)
        assert (found.fits, found.described) == (1, 4)
    for of in (*ways, Decoding(max_pixels=5_000)):
        found = work(tmp_path, Circumstances(), how=of)
        assert (found.fits, found.described) == (0, 0)


def test_every_option_of_every_method_counts() -> None:
    """Given or not: the recipe holds what each option is in the end."""
    for entry in EXTRACTORS.own():
        before = Spec(entry, {}).resolved
        assert before == {option: parameter.default for option, parameter in entry.options.items()}
        for option in entry.options:
            assert Spec(entry, {option: "another"}).resolved == before | {option: "another"}, (entry.name, option)


def test_all_that_an_extractor_is_built_from_is_thought_of() -> None:
    """seed and device are in the recipe; weights are there as what was found by them; threads must not matter, which
    the contracts of extractors see to. Whatever comes to these must be put into the recipe, or be told here."""
    assert {one.name for one in fields(Setup)} == {"seed", "device", "weights", "threads"}


# --- what counts as the code and as the libraries ---------------------------------------------------------------------

HOME = Path(retrieval_bench.__file__).parent

NO_PART_OF_A_FEATURE = {
    "core": "types",
    "records/ranking_faults": "refuses what is no ranking, and changes none",
    "registry": "names, and how options are read; what is read is in the recipe",
    "search": "exact: the same neighbours whatever the code. And how functions are compiled",
    "system/checkpoint": "facts of a weights file, for the record; the file itself is in the recipe by its sha256",
    "system/files": "writes a file whole or not at all; what is read of one is in the recipe by its sha256",
    "system/progress": "shows how far a task is",
    "system/python_sources": "reads the code of a user's network, whose sha256 is in the recipe",
    "system/threads": "results come in the order of the items",
    "system/timing": "clocks, and how many threads, which must not matter",
}
"""Files and folders that extractors use, directly or not, and that their code version leaves out, with the reason."""

DISTRIBUTIONS = {
    "numpy": {"numpy"},
    "scipy": {"scipy"},
    "numba": {"numba"},
    "cv2": {"opencv-python-headless", "opencv-python"},
    "sklearn": {"scikit-learn"},
    "PIL": {"Pillow"},
    "imagehash": {"ImageHash"},
    "torch": {"torch"},
    "torchvision": {"torchvision"},
    "timm": {"timm"},
    "open_clip": {"open_clip_torch"},
    "onnxruntime": {"onnxruntime"},
    "onnx": {"onnx"},
    "tokenizers": {"tokenizers"},
    "bm25s": {"bm25s"},
}
"""Import name -> the distributions that bring it, for all libraries that can change a feature."""

CHANGES_NO_FEATURE = {
    "llvmlite": "compiles for numba, which wants one version of it alone",
    "safetensors": "reads weights, which are known by their sha256",
    "pyarrow": "reads vectors, whose file is known by its sha256",
    "h5py": "reads vectors, whose file is known by its sha256",
    "requests": "asks a service, whose answer to a test picture is in the key",
    "urllib3": "likewise",
    "threadpoolctl": "holds libraries to a number of threads",
    "platformdirs": "says where the cache is",
    "psutil": "tells of the machine",
    "pydantic": "checks records",
    "matplotlib": "draws curves of training",
    "tensorboard": "keeps curves of training",
    "pytorch_metric_learning": "losses of `train`, whose product is a file with a sha256; convnet uses none of them",
}


def imported(file: Path) -> Iterator[str]:
    """Full names of all that a file imports, wherever in it, but for what is there for type checkers alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: a relative import, which is not followed here"
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def file_of(full: str) -> Path | None:
    """The file of the module that is called so or that holds what is called so."""
    parts = full.split(".")[1:]
    for place in (HOME.joinpath(*parts), HOME.joinpath(*parts[:-1])):
        for file in (place.with_suffix(".py"), place / "__init__.py"):
            if file.is_file():
                return file
    return None


@pytest.fixture
def covered(monkeypatch: pytest.MonkeyPatch) -> set[Path]:
    """The files that the code version of a recipe covers."""
    files: set[Path] = set()

    def spied(*some: Any) -> str:
        files.update(Path(file).resolve() for file in some)
        return "code"

    everywhere(monkeypatch, "code_version", spied)
    data = shop(2, 2)
    method = Method((Spec(Entry("probe", lambda setup: Probe(Circumstances()), "for tests", "test"), {}),))
    features.described(method, plan(data, method, threads=1), data.train, {"gallery": data.gallery})
    return files


def followed() -> tuple[set[Path], dict[str, set[str]]]:
    """Files of the package that the extractors use, directly or not, and the libraries that all these import, with by
    whom. What is no part of a feature is told but not followed."""
    seen: set[Path] = set()
    libraries: dict[str, set[str]] = {}
    waiting = list(own_code())
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        if place(file) in NO_PART_OF_A_FEATURE:
            continue
        for full in imported(file):
            top = full.split(".")[0]
            if top == "retrieval_bench":
                found = file_of(full)
                assert found is not None, f"{file} imports {full}, which is nowhere"
                waiting.append(found.resolve())
            elif top not in sys.stdlib_module_names:
                libraries.setdefault(top, set()).add(str(file.relative_to(HOME)))
    return seen, libraries


def place(file: Path) -> str:
    """The file, without its suffix, or the folder around it that is listed above."""
    path = file.relative_to(HOME.resolve()).with_suffix("")
    around = [str(one) for one in (path, *path.parents) if str(one) in NO_PART_OF_A_FEATURE]
    return around[0] if around else str(path)


def own_code() -> set[Path]:
    """Every file of the extractors, in folders of folders, too."""
    return {file.resolve() for file in (HOME / "extractors").rglob("*.py")}


def test_the_code_of_a_recipe_is_every_file_of_the_extractors(covered: set[Path]) -> None:
    assert own_code() - covered == set(), "a change of these would leave old features in the cache"
    assert Path(__file__).resolve() in covered, "the file of the builder is not covered"


def test_the_code_of_a_recipe_is_all_that_extractors_use(covered: set[Path]) -> None:
    beside = {place(file) for file in followed()[0] - covered}
    assert beside == {*NO_PART_OF_A_FEATURE}, "cover it by the code version, or say why it changes nothing"


def test_the_libraries_of_a_recipe_are_all_that_extractors_use() -> None:
    _, used = followed()
    unknown = {name: by for name, by in used.items() if name not in DISTRIBUTIONS and name not in CHANGES_NO_FEATURE}
    assert unknown == {}, "say by which distribution it comes, or why it changes nothing"
    wanted = set().union(*(DISTRIBUTIONS[name] for name in used if name in DISTRIBUTIONS))
    assert wanted - set(cache.LIBRARIES) == set(), "another version of these would leave old features in the cache"


def test_the_versions_are_those_of_the_libraries_that_are_loaded() -> None:
    import cv2

    versions = cache.library_versions()
    assert versions.keys() <= set(cache.LIBRARIES)
    for name, module in (("numpy", np), ("Pillow", PIL)):
        assert versions[name] == module.__version__
    assert any(versions.get(name, "").startswith(cv2.__version__) for name in DISTRIBUTIONS["cv2"])


def test_a_file_counts_by_its_name_and_its_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.py", tmp_path / "two.py"
    one.write_text("a = 1")
    two.write_text("a = 2")
    both = code_version(one, two)
    assert both == code_version(two, one, two)
    assert len({both, code_version(one), code_version(two)}) == 3
    one.write_text("a = 2")
    two.write_text("a = 1")
    assert code_version(one, two) != both


def test_the_decoder_is_the_one_that_is_loaded() -> None:
    assert f"/Pillow-{PIL.__version__}" in decoding.DECODER_VERSION


# --- sizes that screening found ---------------------------------------------------------------------------------------


class Counted(ImageBytes):
    """Images that count how often one of them is read, in order to be decoded."""

    decoded = 0

    def read(self, row: int) -> bytes:
        type(self).decoded += 1
        return super().read(row)


def counted(split: Split) -> Split:
    return replace(split, images=Counted([split.images.read(row) for row in range(len(split))]))


@pytest.mark.parametrize("name", sorted(RECIPES["screened, frames counted"] - {"kind"}))
def test_sizes_of_another_recipe_are_not_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    data = shop(2, 2)
    whole = data.with_splits({part: counted(split) for part, split in data.splits.items()})
    changed = {"decoder": "DECODER_VERSION"}

    def decoded() -> int:
        before = Counted.decoded
        prepare(plan(whole, "color", cache=FeatureCache(tmp_path), k=(1,)))
        return Counted.decoded - before

    assert (decoded(), decoded()) == (12, 0)
    with monkeypatch.context() as patch:
        everywhere(patch, changed[name], "another")
        assert (decoded(), decoded()) == (12, 0)
    assert decoded() == 0


@pytest.mark.parametrize("how", [Decoding(wanted=8), Decoding(wanted=9), Decoding(5_000, wanted=8)])
def test_sizes_of_pictures_that_were_decoded_otherwise_are_not_believed(tmp_path: Path, how: Decoding) -> None:
    data = shop(2, 2)
    whole = data.with_splits({part: counted(split) for part, split in data.splits.items()})

    def decoded(how: Decoding) -> int:
        before = Counted.decoded
        prepare(plan(whole, "color", cache=FeatureCache(tmp_path), k=(1,), decoding=how))
        return Counted.decoded - before

    assert [decoded(Decoding()), decoded(how), decoded(how), decoded(Decoding())] == [12, 12, 0, 0]
    assert decoded(replace(how, max_pixels=6_000)) == 12


# --- perturbed queries ------------------------------------------------------------------------------------------------

PERTURBED = {"images": "gallery", "name": "blur", "severity": 3, "seed": 1}
"""What a perturbed picture depends on besides the code, and what it is in pictures that differ in it alone."""


def shaken(**changes: Any) -> Perturbed:
    of = {"images": "query", "name": "noise", "severity": 2, "seed": 0} | changes
    return Perturbed(shop(2, 2).splits[of.pop("images")].images, **of)


def digests(some: Perturbed) -> set[str]:
    return {some.digest(row) for row in range(len(some))}


def test_every_parameter_of_a_perturbation_is_thought_of() -> None:
    assert inspect.signature(Perturbed).parameters.keys() == PERTURBED.keys()


@pytest.mark.parametrize("name", PERTURBED)
def test_perturbed_pictures_that_differ_in_one_thing_share_nothing(tmp_path: Path, name: str) -> None:
    one, other = shaken(), shaken(**{name: PERTURBED[name]})
    assert len(digests(one)) == 4
    assert not digests(one) & digests(other)
    assert digests(one) == digests(shaken())
    clean = shop(2, 2).query.images
    assert not digests(one) & {clean.digest(row) for row in range(len(clean))}, "taken for the clean ones"
    described = []
    for some in (one, other, one, other):
        wanted = {"shaken": replace(shop(2, 2).query, images=some)}
        described.append(work(tmp_path, Circumstances(), wanted).described)
    assert described == [4, 4, 0, 0]


def test_perturbed_pictures_do_not_outlive_the_code_that_made_them(monkeypatch: pytest.MonkeyPatch) -> None:
    assert perturbations._code() == code_version(perturbations.__file__)
    before = digests(shaken())
    monkeypatch.setattr(perturbations, "_code", lambda: "other code")
    assert not before & digests(shaken())


# --- the machine code of the search -----------------------------------------------------------------------------------

COMPILED = {
    "Python": ("platform.python_version", lambda: "3.0"),
    "Numba": ("numba.__version__", "0.1"),
    "llvmlite": ("llvmlite.__version__", "0.1"),
    "the kind of machine": ("platform.machine", lambda: "abacus"),
    "the processor": ("llvmlite.binding.get_host_cpu_name", lambda: "abacus"),
    "what the processor can do": ("llvmlite.binding.get_host_cpu_features", lambda: {"beads": True}),
}


@pytest.mark.parametrize("what", COMPILED)
def test_machine_code_of_other_circumstances_is_not_taken(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    """The sources and Numba's settings have their test beside the kernels."""
    before = jit._fingerprint.__wrapped__()
    assert jit._fingerprint.__wrapped__() == before
    path, value = COMPILED[what]
    monkeypatch.setattr(path, value)
    assert jit._fingerprint.__wrapped__() != before


# --- nothing is stored that is not listed -----------------------------------------------------------------------------


@pytest.mark.slow(reason="a whole run")
def test_every_recipe_of_a_run_and_every_file_of_the_store_is_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a run with all that there is: joined and re-ranked methods, classifiers, perturbed queries."""
    recipes: dict[str, dict[str, Any]] = {}

    def noted(recipe: Mapping[str, Any]) -> str:
        recipes[recipe_key(recipe)] = dict(recipe)
        return recipe_key(recipe)

    everywhere(monkeypatch, "recipe_key", noted)
    root = tmp_path / "cache"
    methods = ("moments+phash+rrf+qe=2", "hsv+moments+concat:dims=4+verify=3", "color:words=2:sample=500+phash")
    record = run(
        plan(shop(4, 3), *methods, cache=FeatureCache(root), classifiers=("knn",), perturb=("flip",), k=(1,)),
        tmp_path / "out",
    )
    assert [row.error for row in record.rows] == [None] * 3
    assert {recipe.get("kind") for recipe in recipes.values()} == set(RECIPES) - {"look", "index"}
    for recipe in recipes.values():
        assert recipe.keys() == RECIPES[recipe["kind"]]
    files = [path for path in root.rglob("*") if path.is_file()]
    assert {path.relative_to(root).parts[0] for path in files} == {"features", "fits"}
    for path in files:  # named after the keys of these very recipes
        assert (recipes[path.stem]["kind"] == "fit") == (path.relative_to(root).parts[0] == "fits")


def test_every_kind_of_recipe_is_listed() -> None:
    """Each of them is made at one place."""
    places = []
    for file in sorted(HOME.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "recipe_key":
                places.append(f"{file.relative_to(HOME)}:{node.lineno}")
    assert len(places) == len(RECIPES), f"a recipe was added or dropped, list it in RECIPES: {places}"
