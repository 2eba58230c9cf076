"""How people compute features of a folder of photos without this package: what its extraction is compared with."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

Job = Callable[[], Any]
"""One pass over all files; what comes back is compared where it means the same."""


class Peer(NamedTuple):
    """make: (files, threads) -> Job, warm where it can be kept warm. needs: what must be installed. libraries: it has
    no threads of its own, so the libraries beneath it get all."""

    name: str
    make: Callable[[Sequence[Path], int], Job]
    needs: str = ""
    libraries: bool = False

    @property
    def there(self) -> bool:
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def _on_threads(work: Callable[[Path], Any], files: Sequence[Path], threads: int) -> list[Any]:
    with ThreadPoolExecutor(threads) as pool:
        return list(pool.map(work, files))


def imagehash_loop(files: Sequence[Path], threads: int) -> Job:
    """The loop of imagehash's own example: one file after the other."""
    import imagehash
    from PIL import Image

    def run() -> np.ndarray:
        bits = [imagehash.phash(Image.open(file)).hash.ravel() for file in files]
        return np.packbits(np.array(bits), axis=1)

    return run


def imagededup_encode(files: Sequence[Path], threads: int) -> Job:
    """imagededup's `PHash().encode_images`, on as many processes."""
    from imagededup.methods import PHash

    for name in [one for one in logging.root.manager.loggerDict if one.startswith("imagededup")]:
        logging.getLogger(name).setLevel(logging.WARNING)  # `verbose` leaves two lines a pass
    hasher = PHash(verbose=False)
    return partial(hasher.encode_images, image_dir=files[0].parent, num_enc_workers=threads)


def opencv_histogram(files: Sequence[Path], threads: int) -> Job:
    """A histogram of 8 x 8 x 8 colours, as tutorials have it."""
    import cv2

    def describe(file: Path) -> np.ndarray:
        hsv = cv2.cvtColor(cv2.imread(str(file)), cv2.COLOR_BGR2HSV)
        return cv2.calcHist([hsv], [0, 1, 2], None, [8, 8, 8], [0, 180, 0, 256, 0, 256])

    return lambda: _on_threads(describe, files, threads)


def skimage_hog(files: Sequence[Path], threads: int) -> Job:
    """scikit-image's HOG of the picture at 224 x 224, in colour."""
    from PIL import Image
    from skimage.feature import hog

    def describe(file: Path) -> np.ndarray:
        image = np.asarray(Image.open(file).convert("RGB").resize((224, 224)))
        return np.asarray(hog(image, orientations=9, pixels_per_cell=(8, 8), cells_per_block=(2, 2), channel_axis=2))

    return lambda: _on_threads(describe, files, threads)


def opencv_sift(files: Sequence[Path], threads: int) -> Job:
    """OpenCV's SIFT, grey, described and nothing more: no colour, no encoding."""
    import cv2

    def describe(file: Path) -> int:
        grey = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
        sift: Any = cv2.SIFT_create()  # type: ignore[attr-defined]
        return len(sift.detectAndCompute(grey, None)[0])

    return lambda: _on_threads(describe, files, threads)


class Photos:
    """A torch Dataset, as tutorials write it."""

    def __init__(self, files: Sequence[Path], transform: Any) -> None:
        self.files, self.transform = list(files), transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Any:
        from PIL import Image

        return self.transform(Image.open(self.files[row]).convert("RGB"))


def torch_loader(network: str, files: Sequence[Path], threads: int) -> Job:
    """A DataLoader with as many workers, which stay, and torchvision's network on as many threads."""
    import torch
    import torchvision

    torch.manual_seed(0)
    weights = torchvision.models.get_model_weights(network).DEFAULT
    model = torchvision.models.get_model(network, weights=None).eval()
    loader = torch.utils.data.DataLoader(
        Photos(files, weights.transforms()),  # type: ignore[arg-type]
        batch_size=32,
        num_workers=threads,
        persistent_workers=True,
        multiprocessing_context="fork",
    )

    def run() -> int:
        torch.set_num_threads(threads)
        with torch.inference_mode():
            return sum(len(model(batch)) for batch in loader)

    return run


def timm_loop(network: str, batch: int, files: Sequence[Path], threads: int) -> Job:
    """timm's network and its own transform, as its documents show it: so many images after each other."""
    import timm
    import torch
    from PIL import Image

    torch.manual_seed(0)
    model = timm.create_model(network, pretrained=False, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=model))

    def run() -> int:
        torch.set_num_threads(threads)
        done = 0
        with torch.inference_mode():
            for start in range(0, len(files), batch):
                images = [transform(Image.open(file).convert("RGB")) for file in files[start : start + batch]]
                done += len(model(torch.stack(images)))
        return done

    return run


PEERS: dict[str, tuple[Peer, ...]] = {
    "phash": (
        Peer("imagehash loop", imagehash_loop),
        Peer("imagededup", imagededup_encode, "imagededup"),
    ),
    "color": (Peer("OpenCV colour histogram", opencv_histogram),),
    "hog": (Peer("scikit-image HOG", skimage_hog, "skimage"),),
    "sift": (Peer("OpenCV SIFT, described only", opencv_sift),),
    "squeezenet1_0": (Peer("torch DataLoader", partial(torch_loader, "squeezenet1_0"), libraries=True),),
    "efficientnet_lite0": (
        Peer("timm loop", partial(timm_loop, "tf_efficientnet_lite0", 1), libraries=True),
        Peer("timm, batches of 32", partial(timm_loop, "tf_efficientnet_lite0", 32), libraries=True),
    ),
}
"""By method, what is timed beside it."""
