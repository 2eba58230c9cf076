"""Which engines there are, and what is said where there is none."""

from __future__ import annotations

import socket
import sys
import threading

import pytest

from retrieval_bench.core import BenchError
from retrieval_bench.distributed.addresses import EngineAddress, parsed
from retrieval_bench.distributed.engine import check_address, open_engine
from retrieval_bench.distributed.local import LocalEngine
from retrieval_bench.distributed.ray_crew import Crew, _silent
from tests.support.command import call


class TestAddresses:
    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("processes", EngineAddress(None, 0, None, 1)),
            ("processes?workers=2&threads=3", EngineAddress(None, 0, 2, 3)),
            ("ray://local", EngineAddress(None, 0, None, 1)),
            ("ray://local?workers=2", EngineAddress(None, 0, 2, 1)),
            ("ray://gpu-1.lan:6379?workers=8&threads=4", EngineAddress("gpu-1.lan", 6379, 8, 4)),
            ("ray://[::1]:6379", EngineAddress("[::1]", 6379, None, 1)),
        ],
    )
    def test_what_can_be_said(self, text: str, expected: EngineAddress) -> None:
        assert parsed(text) == expected
        assert check_address(text) == text

    @pytest.mark.parametrize(
        ("text", "said"),
        [
            ("dask://x:1", "write local, processes, ray://HOST:PORT or ray://local"),
            ("processes:2", "write local, processes"),
            ("processes?workers=two", "'workers=two' is no option"),
            ("ray://", "write local"),
            ("ray://host", "write local"),
            ("ray://host:99999", "a port is a number from 1 to 65535"),
            ("ray://local?workers=0", "'workers=0' is no option; workers=N and threads=N are"),
            ("ray://local?cpus=2", "'cpus=2' is no option"),
        ],
    )
    def test_what_cannot(self, text: str, said: str) -> None:
        with pytest.raises(BenchError, match="engine ") as told:
            check_address(text)
        assert said in str(told.value)


def test_local_is_the_default_and_starts_nothing() -> None:
    assert isinstance(open_engine("local"), LocalEngine)
    assert "ray" not in sys.modules or sys.modules["ray"] is not None
    assert check_address("local") == "local"


def test_the_command_refuses_what_is_no_engine() -> None:
    done = call("run", "--engine", "spark://x")
    assert done.exit_code == 2
    assert "engine 'spark://x' is none; write local" in done.stderr


def test_a_missing_extra_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(BenchError, match=r"needs Ray, which cannot be loaded .*pip install 'retrieval-bench\[distr"):
        Crew("ray://local", parsed("ray://local"))


def test_who_does_not_speak_as_ray_does_is_no_cluster() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

        def answer() -> None:
            asking, _ = server.accept()
            with asking:
                asking.recv(100)
                asking.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer)
        thread.start()
        assert _silent("127.0.0.1", port) == "what is there speaks another protocol"
        thread.join()
    assert "refused" in str(_silent("127.0.0.1", port))
