"""Responses: consistent or refused, and the width of the redistribution."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from deepspec.response import Response
from small_files import small_response


def gaussian(sigma: float, n: int = 200) -> Response:
    """Channels of 0.05 keV, one energy per channel, Gaussian redistribution of `sigma` channels."""
    at = np.arange(n)
    matrix = np.exp(-0.5 * ((at - at[:, None]) / sigma) ** 2)
    matrix[matrix < 1e-6] = 0
    edges = 0.1 + 0.05 * np.arange(n + 1)
    bounds = np.column_stack([edges[:-1], edges[1:]])
    return Response(edges, csr_matrix(matrix / matrix.sum(axis=1, keepdims=True)), np.ones(n), bounds)


@pytest.mark.parametrize("sigma", [1.5, 4.0, 12.0])
def test_resolution_of_a_gaussian_is_2355_sigma(sigma):
    middle = gaussian(sigma).resolution[60:140]
    assert middle == pytest.approx(np.full(80, 2.3548 * sigma), rel=0.03)


def test_resolution_of_a_perfect_detector_is_one_channel():
    edges = np.arange(1.0, 12.0)
    bounds = np.column_stack([edges[:-1], edges[1:]])
    assert np.all(Response(edges, csr_matrix(np.eye(10)), np.ones(10), bounds).resolution == 1.0)


def test_resolution_sees_the_peak_not_the_escape_line():
    response = gaussian(4.0)
    matrix = response.matrix.toarray()
    matrix[120, 40] = 0.3 * matrix[120].max()
    matrix[120, :] /= matrix[120].sum()
    other = Response(response.edges, csr_matrix(matrix), response.area, response.energy_bounds)
    assert other.resolution[120] == pytest.approx(response.resolution[120], rel=1e-6)


def test_rows_without_elements_do_not_matter():
    response = gaussian(4.0)
    matrix = response.matrix.toarray()
    matrix[:30] = 0
    other = Response(response.edges, csr_matrix(matrix), response.area, response.energy_bounds)
    assert other.resolution[100] == pytest.approx(response.resolution[100])
    assert np.isfinite(other.resolution).all()


def test_total_area_includes_losses():
    response = small_response()
    half = small_response(matrix=0.5 * response.matrix)
    assert half.total_area == pytest.approx(0.5 * response.total_area)


@pytest.mark.parametrize("name", ["edges", "area", "energy_bounds"])
def test_shapes_that_disagree_are_refused(name):
    with pytest.raises(ValueError, match="disagree"):
        small_response(**{name: np.ones((3, 2)) if name == "energy_bounds" else np.arange(1.0, 4.0)})


def test_arrays_are_read_only():
    with pytest.raises(ValueError, match="read-only"):
        small_response().area[0] = 1
