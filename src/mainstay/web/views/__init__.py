"""What each page shows, worked out from the services as plain values; no HTTP, no HTML but charts."""
