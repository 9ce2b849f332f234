"""Times that the tests of observe build on, in nanoseconds since 1970."""

MS = 1_000_000
DAY_NS = 86_400_000_000_000
NOON_NS = 1_790_000_000_000_000_000 // DAY_NS * DAY_NS + DAY_NS // 2  # 2026-09-21T12:00:00Z
