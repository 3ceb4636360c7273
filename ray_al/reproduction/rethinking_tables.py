"""Tables II and III of "Rethinking deep active learning" (Simeoni et al., arXiv 1911.08177): accuracies in percent.

Mean and standard deviation over five runs. CEAL is not combined with SEMI; of cycle 0, which all strategies share,
Table III prints Random alone.
"""

from __future__ import annotations

Cell = tuple[float, float]  # mean, standard deviation

_TABLE3_COLUMNS = (
    ("cifar10-100", "base"), ("cifar10-100", "PRE"), ("cifar10-100", "PRE+SEMI"),
    ("cifar10-1000", "base"), ("cifar10-1000", "SEMI"),
    ("cifar100-1000", "base"), ("cifar100-1000", "PRE"), ("cifar100-1000", "PRE+SEMI"),
    ("svhn-100", "base"), ("svhn-100", "PRE"), ("svhn-100", "PRE+SEMI"),
)  # fmt: skip

_TABLE3 = """
0 random 29.17 1.62 35.20 2.26 39.84 2.63 63.61 1.42 78.85 0.86 19.63 0.99 23.71 0.86 27.46 0.52 18.00 2.47 23.83 4.63 19.01 5.61
1 random 36.66 1.08 41.76 1.32 50.69 2.95 75.09 0.51 83.49 0.81 32.44 1.69 34.88 0.90 40.65 0.63 45.95 1.97 53.87 5.43 81.25 4.82
1 uncertainty 37.59 1.93 40.56 2.21 46.04 2.78 76.22 0.68 84.94 0.35 32.09 1.50 34.54 0.70 38.88 1.11 31.63 1.97 51.52 2.36 37.84 21.00
1 coreset 39.23 1.17 43.04 0.92 48.08 1.64 76.44 0.34 84.98 0.19 32.05 1.40 33.95 0.57 39.63 0.70 35.39 7.16 52.49 5.76 51.80 10.62
1 ceal 38.92 2.00 39.74 1.72 - - 76.52 0.73 - - 31.59 0.93 33.78 0.39 - - 38.21 2.70 44.04 4.56 - -
1 jlp 38.86 1.36 42.07 0.74 48.66 2.64 75.74 0.39 84.62 0.47 32.16 1.98 33.48 0.52 40.30 1.53 34.04 4.75 46.78 5.18 54.88 22.90
2 random 42.12 1.83 46.31 1.40 58.72 4.04 79.45 0.56 85.33 0.42 42.45 0.90 42.37 0.53 47.42 0.53 62.05 3.23 64.88 4.93 89.05 2.07
2 uncertainty 43.66 1.57 44.02 1.73 52.04 2.46 81.26 0.30 87.65 0.29 40.43 0.63 41.04 0.27 46.30 1.12 44.09 13.49 63.85 3.55 64.14 6.36
2 coreset 43.01 2.14 47.00 2.57 50.85 4.23 81.11 0.61 87.21 0.31 41.32 0.70 40.47 0.38 46.74 1.00 52.59 9.20 67.23 3.01 73.88 13.94
2 ceal 41.74 1.15 44.92 2.09 - - 81.37 0.54 - - 41.19 0.41 41.55 0.45 - - 51.53 5.93 63.58 2.80 - -
2 jlp 42.30 1.61 47.99 1.17 51.18 1.80 80.97 0.40 87.16 0.44 40.65 1.21 40.81 0.40 47.03 0.47 44.74 17.50 58.43 9.82 66.68 13.91
3 random 45.91 1.63 50.63 0.59 62.37 1.41 82.33 0.21 86.66 0.21 47.85 0.84 47.54 0.63 50.38 0.25 70.28 1.67 72.50 2.05 90.69 0.73
3 uncertainty 47.89 1.78 50.03 1.38 55.47 2.10 84.47 0.49 89.32 0.24 47.26 0.79 46.39 0.81 50.42 0.24 66.21 3.68 70.90 2.48 56.60 5.69
3 coreset 46.75 2.41 51.40 1.99 56.93 2.90 84.27 0.36 88.75 0.45 46.22 0.39 46.34 0.92 50.85 0.32 63.53 6.34 71.79 3.58 75.88 6.95
3 ceal 45.55 2.39 49.73 1.82 - - 84.05 0.44 - - 46.34 0.44 46.67 0.38 - - 66.48 2.80 68.95 2.06 - -
3 jlp 45.49 1.71 51.54 1.24 56.67 2.58 83.82 0.02 88.85 0.38 46.52 0.99 45.94 0.44 50.90 0.67 63.33 9.59 71.20 2.93 73.28 11.69
4 random 50.94 1.75 55.31 1.28 64.35 1.37 84.10 0.10 87.23 0.21 51.43 0.56 51.40 0.47 53.58 0.64 75.78 1.90 77.93 1.55 91.44 0.80
4 uncertainty 49.73 2.29 53.17 1.52 60.71 2.77 86.49 0.19 90.42 0.28 50.83 0.31 49.90 0.82 52.20 0.50 68.04 6.58 76.70 1.11 55.42 10.49
4 coreset 50.11 1.40 54.17 0.40 62.94 2.41 86.39 0.36 90.33 0.13 50.48 0.84 49.54 0.95 53.67 1.29 66.17 16.11 75.11 3.40 72.51 9.99
4 ceal 48.14 1.24 53.46 1.27 - - 86.31 0.23 - - 50.62 0.28 50.18 0.60 - - 66.14 14.42 74.48 1.98 - -
4 jlp 48.93 2.22 53.89 1.42 59.83 4.02 85.94 0.38 89.91 0.28 50.24 0.93 50.20 0.44 53.37 0.64 60.12 20.06 75.33 1.44 72.98 12.01
"""  # noqa: E501

_TABLE2_COLUMNS = (("cifar10", "uncertainty"), ("cifar10", "jlp"), ("cifar100", "uncertainty"), ("cifar100", "jlp"))

_TABLE2 = """
0 base 29.17 1.62 29.17 1.62 19.63 0.99 19.63 0.99
0 PRE 35.20 2.26 35.20 2.26 23.71 0.86 23.71 0.86
0 SEMI 37.81 1.84 36.73 5.70 25.31 0.91 25.06 1.44
0 PRE+SEMI 41.47 3.22 38.05 2.92 27.39 0.94 27.04 0.78
1 base 37.59 1.93 38.86 1.36 32.09 1.50 32.16 1.98
1 PRE 40.56 2.21 42.07 0.74 34.54 0.70 33.48 0.52
1 SEMI 46.58 4.59 46.76 3.27 36.73 1.29 37.99 2.47
1 PRE+SEMI 46.04 2.78 48.66 2.64 38.88 1.11 40.30 1.53
2 base 43.66 1.57 42.30 1.61 40.43 0.63 40.65 1.21
2 PRE 44.02 1.73 47.99 1.17 41.04 0.27 40.81 0.40
2 SEMI 52.59 2.25 51.53 3.02 45.88 3.11 46.39 1.49
2 PRE+SEMI 52.04 2.46 51.18 1.80 46.30 1.12 47.03 0.47
"""


def _rows(text: str) -> list[tuple[int, str, list[Cell | None]]]:
    """Cycle, name and cells of each line; None where nothing is printed."""
    found = []
    for cycle, name, *numbers in (line.split() for line in text.strip().splitlines()):
        pairs = zip(numbers[::2], numbers[1::2], strict=True)
        found.append((int(cycle), name, [None if mean == "-" else (float(mean), float(std)) for mean, std in pairs]))
    return found


def _filled(column: tuple[str, str]) -> dict[tuple[int, str], Cell]:
    place = _TABLE3_COLUMNS.index(column)
    return {(cycle, name): cell for cycle, name, cells in _rows(_TABLE3) if (cell := cells[place])}


# (data and batch, setting) -> (cycle, strategy) -> cell
TABLE3: dict[tuple[str, str], dict[tuple[int, str], Cell]] = {column: _filled(column) for column in _TABLE3_COLUMNS}
# (dataset, strategy) -> (cycle, setting) -> cell
TABLE2: dict[tuple[str, str], dict[tuple[int, str], Cell]] = {
    column: {(cycle, name): cell for cycle, name, cells in _rows(_TABLE2) if (cell := cells[place])}
    for place, column in enumerate(_TABLE2_COLUMNS)
}
