"""What a fit tells its user beside the numbers."""

from __future__ import annotations

import dataclasses

from deepspec.summary import whole_band_warning
from small_files import small_observation


def test_all_channels_are_remarked_upon_where_they_reach_beyond_the_mirror():
    observation = small_observation()
    response = observation.response
    middle = 0.5 * (response.edges[1:] + response.edges[:-1])
    blind = dataclasses.replace(response, area=response.area * (middle < 4.0))
    beyond = observation.with_response(blind)
    assert "choose one with --notice" in whole_band_warning(beyond.group("none"))
    assert whole_band_warning(beyond.notice(0.5, 8.0).group("none")) is None
    assert whole_band_warning(observation.group("none")) is None
