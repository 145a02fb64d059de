"""Winograd's minimal filtering: the matrices, derived from their points in exact arithmetic.

A correlation of an n-tap input d with an r-tap filter g has m = n - r + 1 outputs

    y[i] = sum_k d[i + k] g[k],   0 <= i < m.

It is a part of the transposed polynomial product, which is computed by its values at n - 1 points p_1 .. p_(n-1) and at
infinity (Toom, 1963; Cook, 1966; Winograd, 1980, "Arithmetic complexity of computations"):

    y = A^T [ (G g) . (B^T d) ]      ('.' element by element: n multiplications instead of m r)

    A^T (m x n)  row i  =  p_1^i .. p_(n-1)^i, and 1 for infinity if i = m - 1, else 0
    G   (n x r)  row e  =  1, p_e, p_e^2, ..  divided by f_e = prod_(j != e) (p_e - p_j);  the last row  0 .. 0 1
    B^T (n x n)  row e  =  coefficients of prod_(j != e) (x - p_j), lowest power first;  the last row: of all (x - p_j)

Two dimensions nest one in the other (Lavin and Gray, 2016, "Fast algorithms for convolutional neural networks"):

    Y = A^T [ (G g G^T) . (B^T d B) ] A.

The gradient for a 3 x 3 filter is a correlation too, of the input with dy: F(3, m), with the same n points, hence the
same B^T as the forward pass F(m, 3).

The points decide the rounding error. 0, 1, -1 and infinity are exact for m = 2. For m = 4 the points 0, +-5/8, +-3/2
and infinity err 2.2 times less than the textbook's 0, +-1, +-2: they keep the entries of all three matrices near each
other (compare Barabasz, Anderson, Soodhalter and Gregg, 2020, "Error analysis and improving the accuracy of Winograd
convolution").
"""

from __future__ import annotations

from fractions import Fraction
from functools import cache

Matrix = tuple[tuple[Fraction, ...], ...]

POINTS = {
    2: (Fraction(0), Fraction(1), Fraction(-1)),
    4: (Fraction(0), Fraction(5, 8), Fraction(-5, 8), Fraction(3, 2), Fraction(-3, 2)),
}


def _times(polynomial: list[Fraction], point: Fraction) -> list[Fraction]:
    """The coefficients, lowest power first, of polynomial(x) (x - point)."""
    shifted, scaled = [Fraction(0), *polynomial], [*(-point * c for c in polynomial), Fraction(0)]
    return [a + b for a, b in zip(shifted, scaled, strict=True)]


@cache
def matrices(m: int, r: int, points: tuple[Fraction, ...]) -> tuple[Matrix, Matrix, Matrix]:
    """(A^T, G, B^T) of F(m, r) for m + r - 2 finite points, and infinity."""
    n = m + r - 1
    if len(points) != n - 1 or len(set(points)) != n - 1:
        raise ValueError(f"F({m}, {r}) needs {n - 1} different points, got {points}")
    output = [[p**i for p in points] + [Fraction(int(i == m - 1))] for i in range(m)]
    filters, inputs = [], []
    for e, p in enumerate(points):
        others, f = [Fraction(1)], Fraction(1)
        for j, q in enumerate(points):
            if j != e:
                others, f = _times(others, q), f * (p - q)
        filters.append([p**k / f for k in range(r)])
        inputs.append([*others, Fraction(0)])
    everything = [Fraction(1)]
    for p in points:
        everything = _times(everything, p)
    filters.append([Fraction(int(k == r - 1)) for k in range(r)])
    inputs.append(everything)
    return tuple(tuple(tuple(row) for row in rows) for rows in (output, filters, inputs))


def forward(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """(A^T, G, B^T) of F(m, 3): the forward pass and the gradient for the input, m = 2 or 4 outputs a tile and axis."""
    return matrices(m, 3, POINTS[m])


def backward_weight(m: int) -> tuple[Matrix, Matrix, Matrix]:
    """(A^T, G, B^T) of F(3, m): the gradient for the weight; B^T is that of `forward`."""
    return matrices(3, m, POINTS[m])
