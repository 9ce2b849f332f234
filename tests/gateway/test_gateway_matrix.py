"""Every cell of the table: a feature through a surface of a kind of provider, whole and streamed."""

from __future__ import annotations

from typing import Any

import anthropic
import openai
import pytest
from gateway_clients import ask
from gateway_matrix import FEATURES, Feature, named
from gateway_said import Vendor
from gateway_stage import Stage
from gateway_vendors import vendors
from gateway_wishes import SURFACES, SurfaceName, Told, unsayable

CELLS = [
    pytest.param(name, surface, feature, id=f"{feature.name}, {surface}, {name}")
    for surface in SURFACES
    for feature in FEATURES
    if not unsayable(surface, feature.wish)
    for name in vendors()
    if name not in feature.unsaid
]


@pytest.mark.parametrize(("name", "surface", "feature"), CELLS)
def test_a_feature_is_translated_faithfully_or_refused(
    stage: Stage, name: str, surface: SurfaceName, feature: Feature
):
    vendor = stage.vendors[name]
    vendor.plays(feature.said)
    if name in feature.refused:
        refused(stage, surface, vendor, feature)
        return

    whole = asked(stage, surface, vendor, feature, streamed=False)
    streamed = asked(stage, surface, vendor, feature, streamed=True)

    assert whole.answer == streamed.answer
    assert streamed.pieces > 1 or not feature.said.text or name in feature.emulated


def asked(stage: Stage, surface: SurfaceName, vendor: Vendor, feature: Feature, *, streamed: bool) -> Told:
    told = ask(stage, surface, vendor.model, feature.wish, streamed=streamed)
    said, counted = feature.said, vendor.counted
    assert told.text == said.text
    assert told.finish == said.finish
    assert told.calls == said.calls
    assert told.thought == said.thought
    assert told.others == said.others
    assert told.tokens == (counted.plain, counted.cached, counted.written, counted.output)
    assert told.cost_nusd == counted.cost_nusd
    heard = vendor.heard()
    assert heard.model == vendor.vendor_model
    assert heard.tools == feature.wish.tools
    assert heard.forced == feature.wish.forced
    assert heard.one_call == feature.wish.one_call_at_a_time
    feature.check(told, heard, vendor)
    return told


def refused(stage: Stage, surface: SurfaceName, vendor: Vendor, feature: Feature) -> None:
    """A 400 that names the field in the surface's own words; nothing was sent."""
    field = named(surface, feature.refused[vendor.name])
    for streamed in (False, True):
        with pytest.raises((openai.BadRequestError, anthropic.BadRequestError)) as caught:
            ask(stage, surface, vendor.model, feature.wish, streamed=streamed)
        assert field_of(caught.value) == field
        assert field in str(caught.value)
    assert vendor.server.requests == []


def field_of(error: Any) -> str:
    if isinstance(error, openai.APIError):
        assert error.param is not None
        return error.param
    field: str = error.body["mainstay"]["param"]
    return field
