"""Energy nodes, temperature splines and the file format of plasma tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from deepspec.errors import UserError
from deepspec.models.base import Grid
from deepspec.models.plasma_table import (
    EnergyNodes,
    PlasmaTable,
    read_plasma_table,
    spline_coefficients,
    write_plasma_table,
)

NODES = EnergyNodes.between(0.1, 20.0, step=0.02)


def column(*values):
    return torch.tensor(values, dtype=torch.float64)[:, None]


def smooth_table(rule="cubic"):
    """exp(-E / kT) and a part four times steeper, on 30 rows."""
    kT = 0.3 * 10.0 ** (0.05 * np.arange(30))
    energy = NODES.energy(np.arange(NODES.count))
    rows = np.exp(-energy / kT[:, None])
    rows = np.stack([rows, 0.1 * rows**2 / (1 + kT[:, None])], axis=1)
    rows = spline_coefficients(rows) if rule == "cubic" else rows
    return PlasmaTable(torch.from_numpy(rows), kT, ("H", "Fe"), NODES, rule, {"model": "test", "made_by": "test"})


def test_place_and_energy_are_inverse():
    place = np.linspace(0.0, NODES.count - 1.0, 77)
    np.testing.assert_allclose(NODES.place(torch.from_numpy(NODES.energy(place))), place, atol=1e-9)


def test_spacing_is_as_said():
    energy = NODES.energy(np.arange(NODES.count))
    middle = 0.5 * (energy[1:] + energy[:-1])
    np.testing.assert_allclose(np.diff(energy), 0.02 * np.sqrt(middle) * (1 + middle / 20.0), rtol=1e-3)


@given(energy=st.floats(0.11, 19.0))
def test_a_line_keeps_flux_and_place(energy):
    share = NODES.from_lines([energy], [3.0])
    place = float(NODES.place(torch.tensor(energy, dtype=torch.float64)))
    assert share.sum() == pytest.approx(3.0)
    assert (share * np.arange(NODES.count)).sum() == pytest.approx(3.0 * place, rel=1e-9)


def test_lines_outside_the_nodes_are_left_out():
    assert NODES.from_lines([0.05, 30.0], [1.0, 1.0]).sum() == 0.0


def test_cells_keep_flux():
    flux = np.random.default_rng(1).uniform(size=(NODES.count - 1) * 16)
    assert NODES.from_cells(flux).sum() == pytest.approx(flux.sum())


def test_both_ways_of_rebinning_agree():
    flux = torch.from_numpy(np.random.default_rng(2).uniform(size=(3, NODES.count)))
    edges = torch.linspace(0.05, 25.0, 400, dtype=torch.float64)
    once = torch.from_numpy((NODES.overlap(edges) @ flux.numpy().T).T)
    torch.testing.assert_close(NODES.rebin(flux, edges), once, rtol=1e-9, atol=1e-10)
    torch.testing.assert_close(once.sum(-1), flux.sum(-1), rtol=1e-12, atol=0)


def test_splitting_bins_keeps_the_photons():
    table, kT, abundances = smooth_table(), column(1.0, 3.0), torch.tensor([[1.0, 0.5]], dtype=torch.float64)
    edges = torch.linspace(0.2, 9.0, 60, dtype=torch.float64)
    fine = torch.sort(torch.cat([edges, 0.5 * (edges[1:] + edges[:-1])]))[0]
    coarse = table.flux(Grid(edges), kT, abundances)
    split = table.flux(Grid(fine), kT, abundances).reshape(2, -1, 2).sum(-1)
    torch.testing.assert_close(split, coarse, rtol=1e-12, atol=0)


def test_the_spline_is_accurate_between_rows():
    table, kT = smooth_table(), column(0.7, 1.234, 4.0)
    weights, _, used = table.temperature_weights(kT)
    found = (weights @ table.coefficients[used, 0]).numpy()
    energy = NODES.energy(np.arange(NODES.count))
    exact = np.exp(-energy / kT.numpy())
    error, steepness = np.abs(found / exact - 1), energy / kT.numpy()
    assert error[steepness < 6].max() < 7e-4
    assert error[steepness < 12].max() < 1e-2
    assert (found >= 0).all()


def test_linear_rule_is_exact_at_rows_and_halfway():
    table = smooth_table("linear")
    middle = 0.5 * (table.kT[4] + table.kT[5])
    weights, slope, used = table.temperature_weights(column(table.kT[3], middle, table.kT[-1]))
    found = torch.zeros(3, len(table.kT), dtype=torch.float64)
    found[:, used] = weights
    assert found[0, 3] == 1.0
    assert found[1, 4] == pytest.approx(0.5)
    assert found[2, -1] == pytest.approx(1.0)
    assert torch.allclose(slope.sum(-1), torch.zeros(3, dtype=torch.float64), atol=1e-9)


@pytest.mark.parametrize("rule", ["cubic", "linear"])
def test_derivatives_by_temperature_and_abundance(rule):
    table, grid = smooth_table(rule), Grid(np.linspace(0.3, 8.0, 50))
    kT, abundances = column(1.1, 2.3), torch.tensor([[1.0, 0.5], [1.0, 2.0]], dtype=torch.float64)
    flux, slopes = table.flux_and_slopes(grid, kT, abundances, [-1, 1])
    torch.testing.assert_close(flux, table.flux(grid, kT, abundances))
    step = 1e-5
    numeric = (table.flux(grid, kT + step, abundances) - table.flux(grid, kT - step, abundances)) / (2 * step)
    torch.testing.assert_close(slopes[0], numeric, rtol=1e-6, atol=1e-9)
    raised = abundances + torch.tensor([0.0, 1.0])
    torch.testing.assert_close(slopes[1], table.flux(grid, kT, raised) - flux, rtol=1e-9, atol=1e-12)


def test_combined_parts_are_weighted_sums():
    table = smooth_table()
    both = table.combined([{"H": 1.0, "Fe": 0.3}])
    torch.testing.assert_close(both.coefficients[:, 0], table.coefficients[:, 0] + 0.3 * table.coefficients[:, 1])


def test_a_table_is_read_as_written(tmp_path):
    table, first, second = smooth_table(), tmp_path / "a.h5", tmp_path / "b.h5"
    write_plasma_table(first, table, log_step=1e-3)
    write_plasma_table(second, table, log_step=1e-3)
    assert first.read_bytes() == second.read_bytes()
    again = read_plasma_table(first)
    assert (again.parts, again.rule, again.nodes) == (table.parts, table.rule, table.nodes)
    found, given = again.coefficients.numpy(), table.coefficients.numpy()
    large = given > 1e-4 * given.sum(1, keepdims=True)
    large &= given > 1e-30
    np.testing.assert_allclose(found[large], given[large], rtol=5.1e-4)
    total = np.broadcast_to(given.sum(1, keepdims=True), given.shape)
    assert (found[given == 0.0] <= 1e-5 * total[given == 0.0] + 1e-31).all()


def test_what_is_not_a_table_is_refused(tmp_path):
    path = tmp_path / "x.h5"
    path.write_bytes(b"not HDF5")
    with pytest.raises(UserError, match="tables build"):
        read_plasma_table(path)
    with pytest.raises(UserError, match="plasma table"):
        read_plasma_table(tmp_path / "absent.h5")
    import h5py

    with h5py.File(path, "w") as file:
        file["kT"] = [1.0]
    with pytest.raises(UserError, match="this version"):
        read_plasma_table(path)
