"""All pages as one router."""

from __future__ import annotations

from fastapi import APIRouter

from mainstay.web.page import PageRoute
from mainstay.web.pages import (
    apps,
    assets,
    audit,
    budgets,
    evaluations,
    help_page,
    knowledge,
    models,
    no_such_page,
    overview,
    people,
    playground,
    sign_in,
    spend,
    traces,
)

PAGES = (
    assets,
    sign_in,
    overview,
    apps,
    knowledge,
    traces,
    playground,
    models,
    evaluations,
    spend,
    budgets,
    audit,
    people,
    help_page,
    no_such_page,  # last: it takes every address that nothing else took
)


def router() -> APIRouter:
    """The pages and their static files; include it without a prefix, after every other router."""
    pages = APIRouter(route_class=PageRoute, include_in_schema=False)
    for page in PAGES:
        pages.include_router(page.router)
    return pages
