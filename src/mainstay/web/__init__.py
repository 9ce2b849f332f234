"""Pages for people: server-rendered HTML that works without script.

`router()` is everything under `/` but the APIs. It finds its parts at `request.app.state.services`.
"""

from mainstay.web.page import SECURITY_HEADERS, SESSION_COOKIE, PageUser, page_user
from mainstay.web.routes import router

__all__ = ["SECURITY_HEADERS", "SESSION_COOKIE", "PageUser", "page_user", "router"]
