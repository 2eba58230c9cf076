"""Where weights come from. A server on 127.0.0.1 stands for torchvision's; no test leaves this machine."""

from __future__ import annotations

import hashlib
import io
import logging
import random as stdlib_random
import socket
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from torch import nn

from retrieval_bench.core import BenchError
from retrieval_bench.extractors.deep import weights


def saved(scale: float = 1.0) -> bytes:
    """A state dict of a 3 -> 2 linear layer, as bytes."""
    buffer = io.BytesIO()
    torch.save({"weight": torch.full((2, 3), scale), "bias": torch.zeros(2)}, buffer)
    return buffer.getvalue()


GOOD = saved()
NAME = f"toy-{hashlib.sha256(GOOD).hexdigest()[:8]}.pth"


class Server(ThreadingHTTPServer):
    """Serves `files` by name and remembers what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.delay = threading.Event()
        self.delay.set()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.server.delay.wait(10)
        self.server.asked.append(f"{self.command} {self.path}")
        body = self.server.files.get(self.path.lstrip("/"))
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET" and body:
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.delay.set()
        server.shutdown()
        thread.join()


@pytest.fixture(autouse=True)
def no_nearest_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds to find, and the layers here are of none."""
    monkeypatch.setattr(weights, "nearest", lambda content: "")


@pytest.fixture(autouse=True)
def torch_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty torch cache, no weights directory, no proxy, and no memory of unreachable hosts."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.delenv(weights.DIRECTORY_VARIABLE, raising=False)
    for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(proxy, raising=False)
    monkeypatch.setattr(urllib.request, "_opener", None)  # it remembers the proxies of its first use
    monkeypatch.setattr(weights, "_unreachable", {})
    return tmp_path / "torch" / "hub" / "checkpoints"


def closed_port() -> str:
    """A URL on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/{NAME}"


def put(folder: Path, name: str, content: bytes = GOOD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def test_the_weights_directory_comes_first(tmp_path: Path, torch_cache: Path) -> None:
    put(torch_cache, NAME)
    own = put(tmp_path / "mine", "toy.pth", saved(2.0))
    file = weights.find("toy", {"V1": closed_port()}, str(tmp_path / "mine"))
    assert file == weights.WeightsFile(
        own, "toy.pth from weights directory", hashlib.sha256(own.read_bytes()).hexdigest(), None
    )
    assert str(tmp_path) not in file.source


def test_the_variable_names_the_directory_unless_a_policy_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "variable", "toy-a.pth")
    put(tmp_path / "flag", "toy-b.pt")
    monkeypatch.setenv(weights.DIRECTORY_VARIABLE, str(tmp_path / "variable"))
    for policy, wanted in (("auto", "toy-a.pth"), ("pretrained", "toy-a.pth"), (str(tmp_path / "flag"), "toy-b.pt")):
        file = weights.find("toy", {"V1": closed_port()}, policy)
        assert file is not None
        assert file.path.name == wanted


def test_torchs_cache_is_next_and_tells_the_recipe(tmp_path: Path, torch_cache: Path) -> None:
    put(torch_cache, NAME)
    (tmp_path / "empty").mkdir()
    urls = {"V2": "http://127.0.0.1/toy-00000000.pth", "V1": f"http://127.0.0.1/{NAME}"}
    for policy in ("auto", "pretrained", str(tmp_path / "empty")):
        file = weights.find("toy", urls, policy)
        assert file is not None
        assert (file.recipe, file.source) == ("V1", f"{NAME} from torch's cache")


def test_torchvisions_own_files_are_preferred_in_the_order_of_the_recipes(tmp_path: Path) -> None:
    contents = {"odd_name.pth": GOOD, "toy-1.pth": GOOD, "toy.pth": GOOD}
    for name, content in contents.items():
        put(tmp_path, name, content)
    urls = {"V2": "http://127.0.0.1/toy.pth", "V1": "http://127.0.0.1/odd_name.pth"}
    found = []
    while (file := weights.find("toy", urls, str(tmp_path)) if any(tmp_path.glob("*.pth")) else None) is not None:
        found.append((file.path.name, file.recipe))
        file.path.unlink()
    assert found == [("toy.pth", "V2"), ("odd_name.pth", "V1"), ("toy-1.pth", None)]


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("vgg16.pth", True),
        ("vgg16-397923af.pth", True),
        ("vgg16.imagenet.v3.pt", True),
        ("vgg16_bn-6c64b313.pth", False),
        ("vgg16_features-88682ab5.pth", False),
        ("vgg160.pth", False),
        ("my-vgg16.pth", False),
        ("vgg16.pth.partial", False),
        ("vgg16.onnx", False),
    ],
)
def test_which_file_names_belong_to_a_network(tmp_path: Path, name: str, fits: bool) -> None:
    put(tmp_path, name)
    (tmp_path / "vgg16-folder.pth").mkdir()
    file = weights.find("vgg16", {"V1": closed_port()}, str(tmp_path))
    assert (file is not None) == fits


def test_download_goes_into_torchs_cache_and_happens_once(server: Server, torch_cache: Path) -> None:
    server.files[NAME] = GOOD
    urls = {"V2": server.root + NAME, "V1": server.root + "other.pth"}
    file = weights.find("toy", urls, "auto")
    assert file is not None
    assert (file.path, file.source, file.recipe) == (torch_cache / NAME, server.root + NAME, "V2")
    assert file.path.read_bytes() == GOOD
    assert server.asked == [f"HEAD /{NAME}", f"GET /{NAME}"]
    again = weights.find("toy", urls, "auto")
    assert again is not None
    assert again.sha256 == file.sha256
    assert len(server.asked) == 2


def test_a_download_with_the_wrong_hash_is_not_used(
    server: Server, torch_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.files[NAME] = saved(3.0)
    assert weights.find("toy", {"V1": server.root + NAME}, "auto") is None
    assert "invalid hash" in caplog.text
    assert list(torch_cache.iterdir()) == []


def test_without_weights_auto_warns_in_one_sentence_and_pretrained_fails(caplog: pytest.LogCaptureFixture) -> None:
    url = closed_port()
    assert weights.find("toy", {"V1": url}, "auto") is None
    (record,) = caplog.records
    assert (record.name, record.levelno) == ("retrieval_bench", logging.WARNING)
    message = record.getMessage()
    for part in ("toy: ", "UNTRAINED", url, "--weights DIR", weights.DIRECTORY_VARIABLE, "refused"):
        assert part in message
    assert "\n" not in message
    with pytest.raises(BenchError, match=r"toy: no weights in torch's cache, and .* is unavailable .*--weights DIR"):
        weights.find("toy", {"V1": url}, "pretrained")
    assert len(caplog.records) == 1


def test_a_file_that_is_not_offered_is_no_unreachable_host(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    assert weights.find("toy", {"V1": server.root + NAME}, "auto") is None
    assert "HTTP 404" in caplog.text
    server.files[NAME] = GOOD
    assert weights.find("toy", {"V1": server.root + NAME}, "auto") is not None


def test_a_silent_host_is_given_up_in_time_and_asked_once(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(weights, "PROBE_SECONDS", 0.2)
    server.files[NAME] = GOOD
    server.delay.clear()
    asked: list[str] = []
    real = weights.urlopen
    monkeypatch.setattr(weights, "urlopen", lambda *args, **options: (asked.append("once"), real(*args, **options))[1])
    for network in ("toy", "toy2", "toy3"):
        assert weights.find(network, {"V1": server.root + NAME}, "auto") is None
    assert len(asked) == 1
    assert len(caplog.records) == 3
    assert caplog.text.count("is not reachable") == 3


def test_a_look_up_that_hangs_is_given_up_too(monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> None:
        release.wait(10)
        raise OSError("too late")

    monkeypatch.setattr(weights, "PROBE_SECONDS", 0.1)
    monkeypatch.setattr(weights, "urlopen", hang)
    start = time.monotonic()
    with pytest.raises(BenchError, match="not reachable: no answer in"):
        weights.find("toy", {"V1": "http://127.0.0.1/toy.pth"}, "pretrained")
    assert not release.is_set()
    assert time.monotonic() - start < 9
    release.set()


def test_a_proxy_is_honoured(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", server.root)
    monkeypatch.setenv("no_proxy", "")
    server.files[f"http://weights.invalid/{NAME}"] = GOOD
    file = weights.find("toy", {"V1": f"http://weights.invalid/{NAME}"}, "pretrained")
    assert file is not None
    assert file.source == f"http://weights.invalid/{NAME}"


def test_a_cache_that_cannot_be_written_counts_as_no_weights(
    server: Server, torch_cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    server.files[NAME] = GOOD
    torch_cache.parent.mkdir(parents=True)
    torch_cache.touch()
    assert weights.find("toy", {"V1": server.root + NAME}, "auto") is None
    assert "UNTRAINED" in caplog.text


def test_the_time_limit_of_a_download_does_not_outlive_it(server: Server) -> None:
    server.files[NAME] = GOOD
    weights.find("toy", {"V1": server.root + NAME}, "auto")
    assert socket.getdefaulttimeout() is None


def test_random_looks_for_nothing(
    tmp_path: Path, torch_cache: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put(torch_cache, NAME)
    monkeypatch.setenv(weights.DIRECTORY_VARIABLE, str(tmp_path / "missing"))
    assert weights.find("toy", {"V1": f"http://127.0.0.1/{NAME}"}, "random") is None
    assert not caplog.records


def test_a_directory_that_does_not_exist_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(BenchError, match="weights='pretraned' is not a directory; it must be auto, pretrained, random"):
        weights.find("toy", {"V1": closed_port()}, "pretraned")
    monkeypatch.setenv(weights.DIRECTORY_VARIABLE, str(tmp_path / "missing"))
    with pytest.raises(BenchError, match=f"{weights.DIRECTORY_VARIABLE}=.*missing.* is not a directory"):
        weights.find("toy", {"V1": closed_port()}, "auto")


def test_a_file_with_torchvisions_name_and_another_hash_is_damaged(torch_cache: Path) -> None:
    put(torch_cache, NAME, GOOD[:-100])
    with pytest.raises(BenchError, match=rf"{NAME} is damaged"):
        weights.find("toy", {"V1": f"http://127.0.0.1/{NAME}"}, "auto")


def load_bytes(folder: Path, content: bytes) -> dict:
    path = put(folder, "toy.pth", content)
    return weights.load(weights.WeightsFile(path, "", "", None))


@pytest.mark.parametrize(
    "damage",
    [
        lambda good: b"",
        lambda good: good[: len(good) // 2],
        lambda good: b"<!DOCTYPE html><title>404</title>",
        lambda good: bytes(stdlib_random.Random(0).randbytes(1000)),
    ],
    ids=["empty", "truncated", "html", "noise"],
)
def test_a_damaged_file_is_named_in_one_line(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    with pytest.raises(BenchError, match=r"weights file toy.pth cannot be read as a state dict") as caught:
        load_bytes(tmp_path, damage(GOOD))
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "held"),
    [
        ([torch.zeros(2)], "a list"),
        ({"epoch": 3, "loss": 1.0}, r"a dict of epoch \(int\), loss \(float\)"),
        ({}, "an empty dict"),
    ],
)
def test_what_is_no_state_dict_is_refused(content: object, held: str) -> None:
    with pytest.raises(BenchError, match=f"toy.pth is no state dict: it holds {held}; give the state dict"):
        weights.fill(nn.Linear(3, 2), content, FILE, ignore=())


def test_code_in_a_file_is_not_run(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.save(nn.Linear(3, 2), buffer)
    with pytest.raises(BenchError, match=r"toy.pth holds a pickled network \(torch.nn.modules.linear.Linear"):
        load_bytes(tmp_path, buffer.getvalue())


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match=r"toy.pth: weight holds NaN or inf"):
        weights.fill(nn.Linear(3, 2), load_bytes(tmp_path, saved(float("nan"))), FILE, ignore=())


FILE = weights.WeightsFile(Path("toy.pth"), "", "", None)


def test_fill_takes_every_value_and_ignores_only_what_it_is_told() -> None:
    layer = nn.Linear(3, 2)
    state = {"weight": torch.full((2, 3), 5.0), "bias": torch.ones(2), "head.weight": torch.zeros(7, 7)}
    weights.fill(layer, state, FILE, ignore=("head.",))
    assert layer.weight.eq(5).all()
    assert layer.bias.eq(1).all()


@pytest.mark.parametrize(
    ("state", "sentence"),
    [
        ({"weight": torch.zeros(2, 3)}, "toy.pth lacks bias"),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(3)},
            r"toy.pth: bias has shape \(3,\), this network needs \(2,\)",
        ),
        (
            {"weight": torch.zeros(2, 3), "bias": torch.zeros(2), "x": torch.zeros(1), "y": torch.zeros(1)},
            "toy.pth holds the unknown x and 1 more",
        ),
    ],
)
def test_fill_names_the_first_misfit(state: dict, sentence: str) -> None:
    with pytest.raises(BenchError, match=sentence):
        weights.fill(nn.Linear(3, 2), state, FILE, ignore=("head.",))


def test_state_sha256_changes_with_a_name_a_shape_a_type_or_a_value() -> None:
    states = [
        {"a": torch.zeros(2, 3)},
        {"b": torch.zeros(2, 3)},
        {"a": torch.zeros(3, 2)},
        {"a": torch.zeros(2, 3, dtype=torch.float64)},
        {"a": torch.tensor([[0.0, 0, 0], [0, 0, 1e-30]])},
    ]
    assert len({weights.state_sha256(state) for state in states}) == 5
    assert weights.state_sha256({"a": torch.ones(1), "b": torch.zeros(1)}) == weights.state_sha256(
        {"b": torch.zeros(1), "a": torch.ones(1)}
    )


def safe(folder: Path, state: dict, name: str = "toy.safetensors") -> weights.WeightsFile:
    library = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    folder.mkdir(parents=True, exist_ok=True)
    library.save_file(state, folder / name)
    return weights.WeightsFile(folder / name, "", "", None)


def test_safetensors_are_found_and_read(tmp_path: Path) -> None:
    state = {"weight": torch.full((2, 3), 7.0), "bias": torch.ones(2)}
    safe(tmp_path, state)
    file = weights.find("toy", {"V1": closed_port()}, str(tmp_path))
    assert file is not None
    assert file.source == "toy.safetensors from weights directory"
    assert file.sha256 == hashlib.sha256(file.path.read_bytes()).hexdigest()
    layer = nn.Linear(3, 2)
    weights.fill(layer, weights.load(file), file, ignore=())
    assert layer.weight.eq(7).all()


def test_damaged_safetensors_are_named_in_one_line(tmp_path: Path) -> None:
    file = safe(tmp_path, {"weight": torch.ones(200)})
    whole = file.path.read_bytes()
    for damaged in (b"", whole[:50], whole[:-100], b"not a file of weights"):
        file.path.write_bytes(damaged)
        with pytest.raises(BenchError, match=r"toy.safetensors cannot be read as a state dict") as caught:
            weights.load(file)
        assert "\n" not in str(caught.value)


def test_without_the_package_safetensors_say_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    path = put(tmp_path, "toy.safetensors", b"x")
    with pytest.raises(BenchError, match=r"toy.safetensors needs safetensors, which is not installed"):
        weights.load(weights.WeightsFile(path, "", "", None))


def test_networks_of_other_libraries_are_filled_from_a_directory_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "empty").mkdir()
    assert weights.find_local("toy", "random", "timm") is None
    assert not caplog.records
    assert weights.find_local("toy", str(tmp_path / "empty"), "timm") is None
    (record,) = caplog.records
    assert "UNTRAINED" in record.getMessage()
    with pytest.raises(BenchError, match="toy of timm: no weights in a weights directory"):
        weights.find_local("toy", "pretrained", "timm")
    put(tmp_path / "mine", "toy-own.pt")
    file = weights.find_local("toy", str(tmp_path / "mine"), "timm")
    assert file is not None
    assert file.source == "toy-own.pt from weights directory"
