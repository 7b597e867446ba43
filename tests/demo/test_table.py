from __future__ import annotations

from demo.table import Row, table


def test_every_line_of_the_table_has_the_same_width() -> None:
    rows = [
        Row("summary", None, 0.5, 1.0, 7, 1_000_000),
        Row("linear", 0.9, 0.885, 3.2, 3850, 2_000_000),
        Row("losa", 1.0, None, 12.5, 45_000, 200_000_000),
    ]
    lines = table(rows).splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[2].split() == ["summary", "-", "50.0", "1.0", "7", "1.0"]
    assert lines[3].split() == ["linear", "90.0", "88.5", "3.2", "3,850", "2.0"]
    assert lines[4].split() == ["losa", "100.0", "-", "12.5", "45,000", "200.0"]
