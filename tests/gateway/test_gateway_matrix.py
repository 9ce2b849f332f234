"""Every cell of the table: a feature through a surface of a kind of provider, whole and streamed."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest
from gateway_clients import SURFACES, NoWay, SurfaceName, Told, ask
from gateway_matrix import FEATURES, Feature, named
from gateway_stage import Stage
from gateway_vendors import Vendor, vendors

VENDORS = tuple(vendors())


@pytest.mark.parametrize("feature", FEATURES, ids=lambda feature: feature.name)
@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize("name", VENDORS)
def test_a_feature_is_translated_faithfully_or_refused(
    stage: Stage, name: str, surface: SurfaceName, feature: Feature
):
    vendor = stage.vendors[name]
    if name in feature.unsaid:
        pytest.skip(f"{name} never says so")
    vendor.plays(feature.said)
    if name in feature.refused:
        refused(stage, surface, vendor, feature)
        return

    whole = asked(stage, surface, vendor, feature, streamed=False)
    streamed = asked(stage, surface, vendor, feature, streamed=True)

    assert whole.answer == streamed.answer
    assert streamed.pieces == 0 or not feature.said.text or name in feature.emulated or streamed.pieces > 1


def asked(stage: Stage, surface: SurfaceName, vendor: Vendor, feature: Feature, *, streamed: bool) -> Told:
    try:
        told = ask(stage, surface, vendor.model, feature.wish, streamed=streamed)
    except NoWay as way:
        pytest.skip(f"the API of {surface} has no {way}")
    said, counted = feature.said, vendor.counted
    assert told.text == said.text
    assert told.finish == said.finish
    assert told.calls == said.calls
    assert told.thought == said.thought
    assert told.others == said.others
    assert told.tokens == (counted.plain, counted.cached, counted.written, counted.output)
    assert told.cost_nusd == counted.cost_nusd
    feature.check(told, vendor.heard(), vendor)
    return told


def refused(stage: Stage, surface: SurfaceName, vendor: Vendor, feature: Feature) -> None:
    """A 400 that names the field in the surface's own words; nothing was sent."""
    field = named(surface, feature.refused[vendor.name])
    for streamed in (False, True):
        try:
            with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as caught:
                ask(stage, surface, vendor.model, feature.wish, streamed=streamed)
        except NoWay as way:
            pytest.skip(f"the API of {surface} has no {way}")
        assert field_of(caught.value) == field
        assert field in str(caught.value)
    assert vendor.server.requests == []


def field_of(error: Any) -> str:
    if isinstance(error, openai.APIError):
        assert error.param is not None
        return error.param
    field: str = error.body["mainstay"]["param"]
    return field
