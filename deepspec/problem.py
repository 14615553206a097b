"""Observations, model, statistic and priors brought together: what every engine works on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from deepspec.errors import UserError
from deepspec.folding import Folding
from deepspec.models.base import Grid, Kind, Parameter
from deepspec.models.model import Model
from deepspec.observation import Observation
from deepspec.parameters import ParameterSet
from deepspec.priors import JointPrior, Prior, parse_prior
from deepspec.statistics import STATISTICS, choose_statistic


@dataclass(frozen=True, eq=False)
class Linearisation:
    """Objective of a batch of parameter vectors, with its derivatives.

    Attributes
    ----------
    value : Tensor, shape (B,)
        Statistic plus -2 ln prior.
    gradient : Tensor, shape (B, P)
    fisher : Tensor, shape (B, P, P)
        Expected second derivative of the statistic, plus the prior's second derivative where it is positive.
    """

    value: Tensor
    gradient: Tensor
    fisher: Tensor


class Dataset:
    """One observation as the engines see it: grid, matrix and statistic as tensors.

    Parameters
    ----------
    observation : Observation
    statistic : str
        Name in STATISTICS, or "auto".
    factor : str, optional
        Key of the cross-calibration constant that multiplies the model.
    """

    def __init__(self, observation: Observation, statistic: str = "auto", factor: str | None = None):
        self.observation, self.name, self.factor = observation, observation.name, factor
        self.binned, folded = observation.binned, observation.folded
        chosen, self.why = choose_statistic(self.binned) if statistic == "auto" else (statistic, "asked for")
        self.statistic = STATISTICS[chosen](self.binned)
        self.grid = Grid(torch.as_tensor(folded.edges.copy()))
        self.folding = Folding(torch.as_tensor(folded.matrix.copy()))

    def fold(self, flux: Tensor) -> Tensor:
        """Expected source counts, shape (..., n_bin), of photon fluxes of shape (..., n_energy)."""
        return self.folding.counts(flux)


class Problem:
    """A model confronted with observations.

    Parameters
    ----------
    observations : sequence of Observation
    model : Model or str
    statistic : str
        Name in STATISTICS, or "auto": chosen for each observation by what it holds.
    parameters : ParameterSet, optional
        Values, limits, links; the model's defaults otherwise. Cross-calibration constants are added when missing.
    priors : mapping of str to Prior, optional
        By parameter key; only free parameters may carry one. They take the place of those that components bring along
        (`Parameter.prior`), which hold otherwise.
    crosscal : bool
        Give every observation after the first a free constant, ``crosscal_2.factor`` and so on.

    Attributes
    ----------
    names : tuple of str
        Free parameters, the order of every vector.
    """

    def __init__(
        self,
        observations: Sequence[Observation],
        model: Model | str,
        statistic: str = "auto",
        parameters: ParameterSet | None = None,
        priors: Mapping[str, Prior] | None = None,
        crosscal: bool = False,
    ):
        if not observations:
            raise UserError("there is no observation to fit", remedy="name at least one PHA file")
        self.model = Model(model) if isinstance(model, str) else model
        if self.model.kind is not Kind.ADDITIVE:
            raise UserError(
                "a model needs a source of photons", f"model '{self.model.text}'", f"write {self.model.text}*powerlaw"
            )
        keys = [f"crosscal_{i}.factor" if crosscal and i > 1 else None for i in range(1, len(observations) + 1)]
        self.datasets = tuple(Dataset(o, statistic, k) for o, k in zip(observations, keys, strict=True))
        self.parameters = parameters if parameters is not None else default_parameters(self.model, keys)
        given = {self.parameters.key(k): p for k, p in (priors or {}).items()}
        for key in given:
            if key not in self.parameters.free:
                raise UserError(
                    f"{key} has a prior but is not free",
                    f"prior '{given[key].text}'",
                    "thaw it or drop the prior",
                )
        self.priors = {**default_priors(self.parameters), **given}
        self.parameters = _inside_priors(self.parameters, self.priors)

    @property
    def names(self) -> tuple[str, ...]:
        """Keys of the free parameters."""
        return self.parameters.free

    @property
    def statistic_name(self) -> str:
        """Name of the statistic in use, several joined with +."""
        return "+".join(dict.fromkeys(d.statistic.name for d in self.datasets))

    @property
    def bins(self) -> int:
        """Number of fitted bins of all observations."""
        return sum(len(d.binned) for d in self.datasets)

    @property
    def degrees_of_freedom(self) -> int:
        """Bins minus free parameters; those that a prior holds may take up less, see `effective_parameters`."""
        return self.bins - len(self.names)

    def effective_parameters(self, theta: Tensor) -> float:
        """How many parameters the data decide: trace of F (F + prior)^-1 at `theta` (P,), the number of free ones without priors.

        F is the Fisher matrix of the statistic. A parameter on which the data have no say counts 0.
        """
        if not self.priors:
            return float(len(self.names))
        with torch.no_grad():
            whole = self.linearise(theta.unsqueeze(0)).fisher[0]
            held = self._joint_prior.terms(theta.unsqueeze(0))[1][0]
            scale = torch.diagonal(whole).clamp(min=1e-300).rsqrt()
            inverse = torch.linalg.pinv(whole * scale.unsqueeze(-1) * scale, hermitian=True)
            lost = (torch.diagonal(inverse) * scale**2 * held).sum()
        return float(len(self.names)) - float(lost)

    def with_parameters(self, parameters: ParameterSet) -> Problem:
        """The same observations and model with other parameter settings."""
        return self._copy(parameters=parameters)

    def with_statistics(self, statistics: Sequence) -> Problem:
        """The same problem on other counts: one statistic object per observation (simulated data)."""
        datasets = []
        for dataset, statistic in zip(self.datasets, statistics, strict=True):
            other = object.__new__(Dataset)
            other.__dict__.update(dataset.__dict__, statistic=statistic)
            datasets.append(other)
        return self._copy(datasets=tuple(datasets))

    def rows(self, index: Tensor) -> Problem:
        """The problem of these rows only, where every row of a batch has counts of its own (simulated data)."""
        if not any(d.statistic.counts.dim() > 1 for d in self.datasets):
            return self
        return self.with_statistics([d.statistic.map(lambda t: t[index] if t.dim() > 1 else t) for d in self.datasets])

    def _copy(self, **changes) -> Problem:
        other = object.__new__(Problem)
        other.__dict__.update(self.__dict__, **changes)
        return other

    def predict(self, theta: Tensor) -> list[Tensor]:
        """Expected source counts per bin of each observation, shapes (..., n_bin)."""
        values = self.parameters.expand(theta)
        return [self._scale(d, values, d.fold(self.model.flux(d.grid, values))) for d in self.datasets]

    def _scale(self, dataset: Dataset, values: Mapping[str, Tensor], counts: Tensor) -> Tensor:
        return counts if dataset.factor is None else counts * values[dataset.factor]

    def statistic(self, theta: Tensor) -> Tensor:
        """Statistic summed over bins and observations, shape (...,); infinite where the model is not finite."""
        total = sum(d.statistic.value(m) for d, m in zip(self.datasets, self.predict(theta), strict=True))
        bad = ~torch.isfinite(total) | ~self.parameters.check_links(theta)
        return torch.where(bad, torch.full_like(total, torch.inf), total)

    def log_prior(self, theta: Tensor) -> Tensor:
        """ln prior density, shape (...,); 0 without priors."""
        return self._joint_prior.log_prob(theta)

    @property
    def _joint_prior(self) -> JointPrior:
        """All priors as one density; made anew when other parameters are free."""
        kept = self.__dict__.get("_joint")
        if kept is None or kept.names != self.names:
            kept = self.__dict__["_joint"] = JointPrior(self.names, self.priors)
        return kept

    def log_prob(self, theta: Tensor) -> Tensor:
        """-statistic/2 + ln prior, shape (...,): the log posterior up to a constant."""
        return -0.5 * self.statistic(theta) + self.log_prior(theta)

    def objective(self, theta: Tensor) -> Tensor:
        """Statistic - 2 ln prior, what a maximum-likelihood (or MAP) fit minimises; shape (...,)."""
        return -2.0 * self.log_prob(theta)

    def jacobian(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Expected counts (B, n_bin) and their exact derivatives (B, P, n_bin), one pair per observation.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
        """
        values = self.parameters.expand(theta)
        varying = self.parameters.varying()
        chain = self._chain(theta)
        pairs = []
        for dataset in self.datasets:
            counts, columns = self._folded(dataset, values, varying)
            counts = counts.expand(len(theta), -1)
            if dataset.factor is not None:
                columns = {key: column * values[dataset.factor] for key, column in columns.items()}
                columns[dataset.factor] = counts
                counts = counts * values[dataset.factor]
            full = _stacked(columns, varying, counts)
            pairs.append((counts, full if chain is None else torch.einsum("bvn,bvp->bpn", full, chain)))
        return pairs

    def _folded(
        self, dataset: Dataset, values: Mapping[str, Tensor], keys: Sequence[str]
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Counts of the model and of its derivatives, without the constant of the observation; each (..., n_bin)."""
        wanted = [key for key in keys if key in self.model.parameters]
        flux, slopes = self.model.derivatives(dataset.grid, values, wanted)
        columns = {key: dataset.fold(slope) for key, slope in slopes.items()}
        if self._linear and columns.keys() >= set(self.model.norms):
            # One fold less: the model is the sum of its terms, whose counts at norm 1 are there.
            return sum(values[norm] * columns[norm] for norm in self.model.norms), columns
        return dataset.fold(flux), columns

    @property
    def _linear(self) -> bool:
        """True where the prediction is linear in the norms: no cflux between."""
        return all(
            leaf.kind is not Kind.CONVOLUTION or getattr(leaf.component, "linear", False) for leaf in self.model.leaves
        )

    def _chain(self, theta: Tensor) -> Tensor | None:
        """Derivatives of the varying parameters by the free ones; None where they are the same."""
        return self.parameters.chain(theta) if self.parameters.linked else None

    def norm_columns(self, theta: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Expected counts (B, n_bin) and counts per unit of each free norm (B, n_norm, n_bin), per observation.

        The model is linear in these norms, so ``counts + (norms - theta[norms]) @ columns`` is exact.
        """
        values = self.parameters.expand(theta)
        keys = [self.names[i] for i in self.free_norms]
        pairs = []
        for dataset in self.datasets:
            counts, found = self._folded(dataset, values, keys)
            counts = counts.expand(len(theta), -1)
            columns = _stacked(found, keys, counts)
            if dataset.factor is not None:
                counts, columns = counts * values[dataset.factor], columns * values[dataset.factor].unsqueeze(-1)
            pairs.append((counts, columns))
        return pairs

    def value_and_gradient(self, theta: Tensor) -> tuple[Tensor, Tensor]:
        """Objective (B,) and its exact gradient (B, P): two folds in all, whatever the number of parameters.

        The slope of the statistic is folded back through the response to energies and meets the derivatives of the flux there.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
        """
        with torch.no_grad():
            values, varying = self.parameters.expand(theta), self.parameters.varying()
            value = theta.new_zeros(len(theta))
            gradient = theta.new_zeros(len(theta), len(varying))
            for dataset in self.datasets:
                wanted = [key for key in varying if key in self.model.parameters]
                flux, pull = self.model.pullback(dataset.grid, values, wanted)
                counts = dataset.fold(flux)
                factor = 1.0 if dataset.factor is None else values[dataset.factor]
                per_bin, slope, _ = dataset.statistic.terms(counts * factor)
                value = value + per_bin.sum(-1)
                found = pull(dataset.folding.back(slope * factor))
                if dataset.factor is not None:
                    found[dataset.factor] = (slope * counts).sum(-1)
                for column, key in enumerate(varying):
                    if key in found:
                        gradient[:, column] += found[key]
            chain = self._chain(theta)
            gradient = gradient if chain is None else torch.einsum("bv,bvp->bp", gradient, chain)
            if self.priors:
                first, _, extra = self._joint_prior.terms(theta)
                value, gradient = value + extra, gradient + first
        bad = ~torch.isfinite(value) | ~torch.isfinite(gradient).all(-1) | ~self.parameters.check_links(theta)
        return torch.where(bad, torch.full_like(value, torch.inf), value), gradient

    def linearise(self, theta: Tensor) -> Linearisation:
        """Objective, gradient and Fisher matrix of a batch of vectors, from one evaluation with derivatives.

        Parameters
        ----------
        theta : Tensor, shape (B, P)
        """
        size = len(self.names)
        value = theta.new_zeros(len(theta))
        gradient = theta.new_zeros(len(theta), size)
        fisher = theta.new_zeros(len(theta), size, size)
        for dataset, (counts, jacobian) in zip(self.datasets, self.jacobian(theta), strict=True):
            per_bin, slope, weight = dataset.statistic.terms(counts)
            value = value + per_bin.sum(-1)
            gradient = gradient + (jacobian @ slope.unsqueeze(-1)).squeeze(-1)
            fisher = fisher + (jacobian * weight.unsqueeze(-2)) @ jacobian.transpose(-1, -2)
        if self.priors:
            first, second, extra = self._joint_prior.terms(theta)
            value, gradient = value + extra, gradient + first
            fisher = fisher + torch.diag_embed(second)
        bad = ~torch.isfinite(value) | ~torch.isfinite(gradient).all(-1) | ~torch.isfinite(fisher).all((-1, -2))
        bad = bad | ~self.parameters.check_links(theta)
        return Linearisation(torch.where(bad, torch.full_like(value, torch.inf), value), gradient, fisher)

    @property
    def free_norms(self) -> list[int]:
        """Positions of the free norms on which the prediction depends linearly: no link, prior or cflux between."""
        if not self._linear:
            return []
        linked = {root for key in self.parameters.linked for root in self.parameters.roots(key)}
        norms = set(self.model.norms) - linked - set(self.priors)
        return [i for i, key in enumerate(self.names) if key in norms]


def _stacked(columns: Mapping[str, Tensor], keys: Sequence[str], counts: Tensor) -> Tensor:
    """Columns of shape (B, n_bin) in the order of `keys` as (B, len(keys), n_bin); zero where a key has none."""
    zero = torch.zeros_like(counts)
    if not keys:
        return counts.new_zeros(len(counts), 0, counts.shape[-1])
    return torch.stack([columns.get(key, zero).expand_as(counts) for key in keys], dim=1)


def default_parameters(model: Model, factors: Sequence[str | None] = ()) -> ParameterSet:
    """The model's parameters at their defaults, with a constant for every key in `factors`."""
    described = dict(model.parameters)
    for key in factors:
        if key is not None:
            described[key] = Parameter("factor", 1.0, "", 0.0, 0.1, 10.0, 1e10, log=True)
    return ParameterSet(described)


def default_priors(parameters: ParameterSet) -> dict[str, Prior]:
    """The priors that components bring along, of the parameters that are free."""
    texts = {key: parameters[key].parameter.prior for key in parameters.free}
    return {key: parse_prior(text) for key, text in texts.items() if text}


def _inside_priors(parameters: ParameterSet, priors: Mapping[str, Prior]) -> ParameterSet:
    """Limits narrowed to the support of the priors."""
    for key, prior in priors.items():
        entry = parameters[key]
        low, high = max(entry.low, prior.low), min(entry.high, prior.high)
        if not low < high:
            raise UserError(
                f"the prior of {key} excludes all of {entry.low:g} to {entry.high:g}", f"prior '{prior.text}'"
            )
        if (low, high) != (entry.low, entry.high):
            parameters = parameters.limit(key, low, high)
    return parameters
