"""Workers of a Ray cluster: started once, replaced when they die, and never so many that no CPU is left.

Each worker reserves its CPUs for as long as the engine is open, and whatever is done goes through these workers. Ray
waits for ever where actors have reserved every CPU and one more is asked for, so at least one is always left.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
from collections.abc import Sequence
from types import ModuleType
from typing import Any, NamedTuple

from retrieval_bench.core import BenchError
from retrieval_bench.distributed.addresses import EngineAddress
from retrieval_bench.distributed.worker import Worker, facts, value_of
from retrieval_bench.system.cores import usable_cores

log = logging.getLogger("retrieval_bench")

TRIES = 3
"""How often a request is made before the worker that it kills is held to be its fault."""
ANSWERS_S = 5.0
"""Seconds in which a server must accept a connection."""
STARTS_S = 180.0
"""Seconds in which all workers must have started; they load Python and this package."""


class WorkerLost(Exception):
    """A worker died before it answered. memory: since there was none left."""

    def __init__(self, memory: bool, detail: str) -> None:
        super().__init__(detail)
        self.memory = memory


class Pending(NamedTuple):
    """A request under way. place: which worker, from 0. worker: its handle. ref: of the answer."""

    place: int
    worker: Any
    ref: Any


def load_ray(address: str) -> ModuleType:
    """The library. BenchError where it is not installed."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # nothing is told to anybody
    try:
        import ray
    except ImportError as error:
        raise BenchError(
            f"engine {address!r} needs Ray, which cannot be loaded ({error}); install it by pip install "
            "'retrieval-bench[distributed]', on each machine"
        ) from None
    return ray  # type: ignore[no-any-return]


class Crew:
    """Some workers of a cluster.

    Args:
        called: the address as the user wrote it.
        address: what it says.

    Attributes:
        places: how many workers there are.

    Raises:
        BenchError: Ray is not installed, nobody answers, the cluster has no room, or a worker has another version.
    """

    def __init__(self, called: str, address: EngineAddress) -> None:
        self._called, self._threads = called, address.threads
        self._ray = load_ray(called)
        self._lock = threading.Lock()
        if self._ray.is_initialized():
            raise BenchError(f"engine {called!r}: this process is connected to Ray already; call ray.shutdown() first")
        self.places = self._connect(address)
        try:
            self._kind = self._ray.remote(Worker).options(
                num_cpus=self._threads, max_restarts=0, max_task_retries=0, scheduling_strategy="SPREAD"
            )
            self._workers = [self._started() for _ in range(self.places)]
            self._greet()
        except BaseException:
            self.close()
            raise

    def _connect(self, address: EngineAddress) -> int:
        """Join the cluster, or start one -> how many workers there will be."""
        quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
        logging.getLogger("ray").setLevel(logging.ERROR)
        if address.host is None:
            workers = address.workers or max(1, usable_cores() // address.threads - 1)
            threads = workers * address.threads
            if threads > 4 * usable_cores():
                raise BenchError(
                    f"engine {self._called!r} asks for {threads} threads and this machine has {usable_cores()} cores; "
                    "ask for fewer workers or threads"
                )
            try:  # one CPU more than the workers reserve
                self._ray.init(num_cpus=threads + 1, include_dashboard=False, **quiet)
            except Exception as error:  # Ray raises nearly anything when one of its processes does not start
                self.close()
                raise BenchError(f"engine {self._called!r}: Ray cannot be started here ({_line(error)})") from error
            self._quiet()
            return workers
        server = f"{address.host}:{address.port}"
        if (why := _silent(address.host.strip("[]"), address.port)) is not None:
            raise BenchError(
                f"engine {self._called!r}: no Ray cluster answers at {server} ({why}); start one by ray start --head, "
                "and name the address that it prints"
            )
        try:
            self._ray.init(address=server, **quiet)
        except (Exception, SystemExit) as error:  # Ray ends the process where the server goes silent
            self.close()
            raise BenchError(
                f"engine {self._called!r}: this machine is not part of a Ray cluster at {server} ({_line(error)}); "
                f"join it by ray start --address={server}"
            ) from error
        self._quiet()
        there = int(self._ray.cluster_resources().get("CPU", 0))
        room = (there - 1) // address.threads
        workers = address.workers or room
        if room < 1 or workers > room:
            self.close()
            raise BenchError(
                f"engine {self._called!r}: the cluster has {there} CPUs, room for {max(room, 0)} workers of "
                f"{address.threads} threads, as one CPU must stay free; ask for fewer or add a machine"
            )
        return workers

    def _quiet(self) -> None:
        """What the cluster says of a dead worker is a line of the log; Ray prints it where results belong."""
        from ray._private import worker

        if hasattr(worker, "print_to_stdstream"):

            def noted(data: dict[str, Any], *_: Any, **__: Any) -> None:
                log.debug("ray: %s", " ".join(map(str, data.get("lines", ()))))

            worker.print_to_stdstream = noted

    def _started(self) -> Any:
        """A new worker; it may still be on its way."""
        return self._kind.remote(self._threads)

    def _greet(self) -> None:
        """Wait for all workers, and compare what they stand on with what this process does."""
        asked = [self.submit(place, "hello") for place in range(self.places)]
        _, late = self._ray.wait([one.ref for one in asked], num_returns=len(asked), timeout=STARTS_S)
        if late:
            raise BenchError(
                f"engine {self._called!r}: {len(late)} of {self.places} workers did not start within {STARTS_S:.0f} s; "
                "others may hold the CPUs of the cluster (see ray status)"
            )
        ours = facts()
        for one in asked:
            try:
                machine, _, theirs = self.result(one)
            except WorkerLost as lost:
                raise BenchError(
                    f"engine {self._called!r}: a worker does not start ({_line(lost)}); install retrieval_bench on "
                    "each machine, and give each enough memory"
                ) from None
            other = next((name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)), None)
            if other is not None:
                raise BenchError(
                    f"engine {self._called!r}: the worker on {machine} has {other} "
                    f"{theirs.get(other, 'not installed')} and this machine {ours.get(other, 'not installed')}; "
                    "install the same on each"
                )

    @property
    def processes(self) -> list[int]:
        """The process of each worker, on its machine."""
        return [self.ask(place, "what it is", "hello")[1] for place in range(self.places)]

    def kept(self, value: Any) -> Any:
        """Put something into the store of the cluster -> its reference, which an argument may be."""
        return self._ray.put(value)

    def submit(self, place: int, request: str, *arguments: Any) -> Pending:
        """Ask one worker for something; nothing is waited for."""
        worker = self._workers[place]
        return Pending(place, worker, worker.carry_out.remote(request, *arguments))

    def first_of(self, asked: Sequence[Pending]) -> Pending:
        """Wait for the first answer, or death."""
        done, _ = self._ray.wait([one.ref for one in asked], num_returns=1)
        return next(one for one in asked if one.ref == done[0])

    def result(self, asked: Pending) -> Any:
        """Wait for one answer.

        Raises:
            WorkerLost: The worker died; the place has a new one now.
            BenchError, BadImage: What the request raised there, as has any other error of it.
        """
        errors = self._ray.exceptions
        lost = (
            errors.RayActorError,
            errors.WorkerCrashedError,
            errors.NodeDiedError,
            errors.ObjectLostError,
            errors.OutOfMemoryError,
            errors.LocalRayletDiedError,
        )
        try:
            answer = self._ray.get(asked.ref)
        except lost as error:
            self._replace(asked)
            text = str(error)
            memory = isinstance(error, errors.OutOfMemoryError) or "low on memory" in text or "OutOfMemory" in text
            raise WorkerLost(memory, _line(error)) from None
        except errors.RayTaskError as error:
            raise getattr(error, "cause", None) or error from None
        return value_of(answer)

    def ask(self, place: int, what: str, request: str, *arguments: Any) -> Any:
        """Ask one worker and wait; ask again where it dies. what: it was asked for, for the error sentence."""
        return self.settle(self.submit(place, request, *arguments), what, request, *arguments)

    def settle(self, asked: Pending, what: str, request: str, *arguments: Any) -> Any:
        """Wait for an answer; ask the worker that takes the place of a dead one again, `TRIES` times in all.

        Raises:
            BenchError: Each of them died, or what the request raised.
        """
        for _ in range(TRIES - 1):
            try:
                return self.result(asked)
            except WorkerLost as lost:
                log.info("a worker died (%s) and is replaced", lost)
                asked = self.submit(asked.place, request, *arguments)
        try:
            return self.result(asked)
        except WorkerLost as lost:
            raise BenchError(f"{TRIES} workers {died(lost)} one after the other at {what}") from None

    def _replace(self, asked: Pending) -> None:
        """Put a new worker in the place of one that died, unless that was done."""
        with self._lock:
            if self._workers[asked.place] is asked.worker:
                with contextlib.suppress(Exception):
                    self._ray.kill(asked.worker)
                self._workers[asked.place] = self._started()

    def tell_all(self, request: str, *arguments: Any) -> None:
        """Ask every worker for something that nobody waits for, and that nobody misses."""
        with contextlib.suppress(Exception):
            for place in range(self.places):
                self.submit(place, request, *arguments)

    def give_up(self, asked: Sequence[Pending]) -> None:
        """Nobody wants these answers any more."""
        for one in asked:
            with contextlib.suppress(Exception):
                self._ray.cancel(one.ref)

    def close(self) -> None:
        """Leave the cluster, whose workers end then; one that was started here ends."""
        with contextlib.suppress(Exception):
            self._ray.shutdown()


_HELLO = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a client of HTTP/2, which Ray's server speaks, begins, with settings that set nothing."""


def _silent(host: str, port: int) -> str | None:
    """Why nobody can be there who speaks as Ray does; None where somebody may. Ray itself would try for minutes."""
    try:
        with socket.create_connection((host, port), ANSWERS_S) as server:
            server.sendall(_HELLO)
            answer = b""
            while len(answer) < 4 and (more := server.recv(64)):
                answer += more
    except OSError as error:
        return error.strerror or str(error)
    return None if answer[3:4] == b"\4" else "what is there speaks another protocol"


def died(lost: WorkerLost) -> str:
    """What became of it, in a few words."""
    return "ran out of memory" if lost.memory else "died"


def _line(error: BaseException) -> str:
    """The first line of what an error says; Ray's go on for pages."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200].rstrip(".:") if lines else type(error).__name__
