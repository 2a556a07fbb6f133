"""Finding the files of an image folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgekd.core.errors import DataError
from edgekd.tasks.sources._images import SUFFIXES
from edgekd.tasks.sources._splits import SPLITS

if TYPE_CHECKING:
    from pathlib import Path


class Listing:
    """Walks the folder, two or three levels deep, and counts what is no image."""

    def __init__(self, root: Path) -> None:
        self.root, self.others = root, 0
        if not root.is_dir():
            raise DataError(
                f"There is no folder {str(root)!r}.",
                expected="a folder with one folder of images per class",
                todo="check `folder`; a relative one starts at the recipe's folder",
            )

    def pools(self) -> dict[str, Path]:
        """The split folders if there are both train and test, else the whole folder."""
        found = {path.name: path for path in self._inside(self.root) if path.is_dir()}
        if {"train", "test"} <= set(found):
            unknown = sorted(set(found) - set(SPLITS))
            if unknown:
                raise DataError(
                    f"{self.root / unknown[0]} stands beside train and test but is no split.",
                    expected=f"folders called {', '.join(SPLITS)}",
                    got=", ".join(sorted(found)),
                    todo="rename or move it",
                )
            return {name: found[name] for name in SPLITS if name in found}
        return {"all": self.root}

    def classes(self, folder: Path) -> dict[str, list[Path]]:
        """Class name -> its image files, sorted."""
        found = {}
        for path in self._inside(folder):
            if not path.is_dir():
                self.others += 1
                continue
            files = self._inside(path)
            images = [f for f in files if f.suffix.lower() in SUFFIXES and f.is_file()]
            self.others += len(files) - len(images)
            if not images:
                raise DataError(
                    f"The class folder {path} holds no images.",
                    expected=f"files that end in {', '.join(SUFFIXES)}",
                    got=", ".join(f.name for f in files[:4]) or "an empty folder",
                    todo="remove it, or move split folders so that train and test are both there",
                )
            found[path.name] = images
        if not found:
            raise DataError(
                f"{folder} holds no class folders.",
                expected="one folder of images per class",
                got="no folders",
            )
        return found

    def _inside(self, folder: Path) -> list[Path]:
        """What a folder holds, sorted, without hidden files.

        Raises:
            DataError: A link leads out of the root.
        """
        found = sorted(p for p in folder.iterdir() if not p.name.startswith("."))
        for path in found:
            if path.is_symlink() and not path.resolve().is_relative_to(self.root):
                raise DataError(
                    f"{path} is a link that leads out of the data folder.",
                    expected=f"files inside {self.root}",
                    got=str(path.resolve()),
                    todo="copy the files into the folder",
                )
        return found
