from __future__ import annotations

from pathlib import Path

from demo.textile import split_tree


def test_every_class_is_split_and_no_file_stands_in_two_splits(tmp_path: Path) -> None:
    for kind, count in (("local", 4), ("nominal", 8)):
        (tmp_path / "source" / kind).mkdir(parents=True)
        for index in range(count):
            (tmp_path / "source" / kind / f"{index}.jpg").write_text(f"{kind} {index}")
    split_tree(tmp_path / "source", tmp_path / "tree", {"train": 6, "val": 3, "test": 3})
    files = [path for path in (tmp_path / "tree").rglob("*") if path.is_file()]
    names = [path.relative_to(tmp_path / "tree").parts for path in files]
    assert len({(kind, file) for _, kind, file in names}) == len(files) == 12
    assert sorted((split, kind) for split, kind, _ in names).count(("train", "nominal")) == 4
    assert all(path.read_text() == f"{path.parent.name} {path.stem}" for path in files)
