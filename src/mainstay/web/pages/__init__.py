"""One router a group of pages. Routers stay thin: what a page shows is worked out in `views/`."""
