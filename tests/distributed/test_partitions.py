"""Images described by workers: what is finished is kept, and found; who dies is replaced. The workers are of this
process, so that they die when they are told to."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_bench.core import BenchError, Extractor, Images
from retrieval_bench.distributed.partitions import SIZE, PartitionFiles, parted
from retrieval_bench.distributed.ray_chunks import RayChunks, in_memory
from retrieval_bench.distributed.ray_crew import Pending, WorkerLost
from retrieval_bench.distributed.worker import Carried, NoMemory, RefusedRequest, Unusable, Worker
from retrieval_bench.images.decoded_cache import DecodedOnce, PixelStore
from retrieval_bench.images.decoding import Decoding
from retrieval_bench.images.reading import DecodedBy, ImageBytes, ImageFiles, encode_png
from tests.support.methods import MeanColor

N = 200
"""Four partitions, the last of which is smaller."""


class MeanColorDescriber:
    """Loads `MeanColor`."""

    built = 0

    def build(self) -> Extractor:
        type(self).built += 1
        return MeanColor()

    def describe(
        self, extractor: Extractor, images: Images, learned: Mapping[str, np.ndarray], threads: int
    ) -> np.ndarray:
        return extractor.transform([images[row] for row in range(len(images))])


class CrewHere:
    """Two workers of this process. deadly: an image that kills whoever describes it; deaths: how often at most."""

    places = 2

    def __init__(self, deadly: int = -1, deaths: int = 10**6) -> None:
        self.workers = [Worker(1), Worker(1)]
        self.deadly, self.deaths, self.described = deadly, deaths, 0

    def kept(self, value: Any) -> Any:
        return value

    def submit(self, place: int, request: str, *arguments: Any) -> Pending:
        return Pending(place, self.workers[place], (object(), request, arguments))

    def first_of(self, asked: Sequence[Pending]) -> Pending:
        return asked[0]

    def result(self, asked: Pending) -> Any:
        _, request, arguments = asked.ref
        images = arguments[1]
        if self.deaths and any(images[row][0, 0, 0] == self.deadly for row in range(len(images))):
            self.deaths -= 1
            self.workers[asked.place] = Worker(1)
            raise WorkerLost(False, "killed")
        self.described += len(images)
        answer = self.workers[asked.place].carry_out(request, *arguments)
        assert isinstance(answer, Carried)
        return answer.value

    def give_up(self, asked: Sequence[Pending]) -> None:
        pass


@pytest.fixture(scope="module")
def pictures() -> ImageBytes:
    return ImageBytes([encode_png(np.full((2, 2, 3), shade, np.uint8)) for shade in range(N)])


def chunks(crew: CrewHere, root: Path | None) -> RayChunks:
    return RayChunks(crew, MeanColorDescriber(), PartitionFiles(root, "ab" * 32))  # type: ignore[arg-type]


def described(by: RayChunks, images: Images) -> np.ndarray:
    features = np.full((N, 3), np.nan, np.float32)
    for rows, some in by(MeanColor(), images, range(N), 2):
        features[rows] = some
    return features


EXPECTED = np.repeat(np.arange(N, dtype=np.float32)[:, None], 3, axis=1)


class TestDescribedByWorkers:
    def test_each_worker_loads_its_extractor_once(self, pictures: ImageBytes) -> None:
        MeanColorDescriber.built = 0
        describer = MeanColorDescriber()
        crew = CrewHere()
        by = RayChunks(crew, describer, PartitionFiles(None, ""))  # type: ignore[arg-type]
        assert np.array_equal(described(by, pictures), EXPECTED)
        assert MeanColorDescriber.built <= 2

    def test_a_killed_run_goes_on(self, pictures: ImageBytes, tmp_path: Path) -> None:
        first = chunks(CrewHere(), tmp_path)(MeanColor(), pictures, range(N), 2)
        next(first)
        next(first)
        first.close()  # type: ignore[attr-defined]
        assert len(list(tmp_path.rglob("*.npz"))) == 2
        again = CrewHere()
        assert np.array_equal(described(chunks(again, tmp_path), pictures), EXPECTED)
        assert again.described == N - 2 * SIZE

    def test_a_dead_worker_is_replaced(self, pictures: ImageBytes) -> None:
        assert np.array_equal(described(chunks(CrewHere(deadly=70, deaths=2), None), pictures), EXPECTED)

    def test_images_that_kill_every_worker(self, pictures: ImageBytes, tmp_path: Path) -> None:
        crew = CrewHere(deadly=70)
        with pytest.raises(BenchError) as told:
            described(chunks(crew, tmp_path), pictures)
        assert str(told.value) == (
            "3 workers died one after the other at the 64 images from row 64 on; the features of all other images are "
            "kept"
        )
        assert crew.described == N - SIZE
        assert len(list(tmp_path.rglob("*.npz"))) == 3

    @pytest.mark.parametrize("damage", [b"", b"PK", None])
    def test_a_damaged_partition_is_described_again(
        self, damage: bytes | None, pictures: ImageBytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        described(chunks(CrewHere(), tmp_path), pictures)
        file = sorted(tmp_path.rglob("*.npz"))[0]
        content = file.read_bytes()
        middle = len(content) // 2
        file.write_bytes(content[:middle] + b"\xff" + content[middle + 1 :] if damage is None else damage)
        again = CrewHere()
        with caplog.at_level(logging.WARNING, "retrieval_bench"):
            assert np.array_equal(described(chunks(again, tmp_path), pictures), EXPECTED)
        assert again.described in (SIZE, N % SIZE)
        (line,) = caplog.messages
        assert f"{file} is damaged (" in line
        assert "images are described again" in line

    def test_a_partition_of_other_images_is_not_believed(self, pictures: ImageBytes, tmp_path: Path) -> None:
        files = PartitionFiles(tmp_path, "ab" * 32)
        files.put(["a", "b"], np.zeros((2, 3), np.float32))
        path, other = files.path(["a", "b"]), files.path(["a", "c"])
        assert path is not None
        assert other is not None
        path.rename(other)
        assert files.get(["a", "c"]) is None

    def test_rows_come_back_in_the_order_asked_for(self, tmp_path: Path) -> None:
        files = PartitionFiles(tmp_path, "ab" * 32)
        files.put(["c", "a", "b"], np.array([[3.0], [1.0], [2.0]], np.float32))
        found = files.get(["b", "c", "a"])
        assert found is not None
        assert found.tolist() == [[2.0], [3.0], [1.0]]

    def test_a_folder_that_cannot_be_written(self, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
        (tmp_path / "partitions").write_bytes(b"")
        files = PartitionFiles(tmp_path, "ab" * 32)
        for _ in range(2):
            files.put(["a"], np.zeros((1, 3), np.float32))
        assert len(caplog.messages) == 1
        assert "continuing without storing" in caplog.messages[0]

    def test_stretches_stay_where_they_were(self) -> None:
        assert parted([0, 1, 63, 64, 130, 200], 64) == [[0, 1, 63], [64], [130], [200]]


class TestInMemory:
    def test_files_travel_as_bytes_and_are_decoded_in_the_same_way(self, tmp_path: Path) -> None:
        paths = [tmp_path / f"{shade}.png" for shade in (10, 20)]
        for path, shade in zip(paths, (10, 20), strict=True):
            path.write_bytes(encode_png(np.full((4, 4, 3), shade, np.uint8)))
        how = Decoding(max_pixels=1000)
        sent = in_memory(DecodedBy(ImageFiles(paths), how), [1])
        assert isinstance(sent, DecodedBy)
        assert isinstance(sent.images, ImageBytes)
        assert sent.how == how
        assert sent[0][0, 0, 0] == 20

    def test_others_travel_as_they_are(self, pictures: ImageBytes) -> None:
        others = DecodedOnce(pictures, PixelStore())
        assert isinstance(in_memory(others, [3]), DecodedOnce)


class TestWorker:
    def test_other_weights_are_refused(self, pictures: ImageBytes) -> None:
        told = Worker(1).carry_out("describe", MeanColorDescriber(), pictures.take([0]), {}, {"sha256": "1"})
        assert isinstance(told, RefusedRequest)
        assert "has other weights than this machine" in told.sentence

    def test_a_broken_image_is_told_as_here(self) -> None:
        told = Worker(1).carry_out("describe", MeanColorDescriber(), ImageBytes([b"no image"]), {}, None)
        assert isinstance(told, Unusable)

    def test_no_memory(self) -> None:
        class Huge:
            name, distance, first = "huge", "cosine", 0

            def rows(self) -> np.ndarray:
                raise MemoryError

        assert isinstance(Worker(1).carry_out("hold", Huge()), NoMemory)
