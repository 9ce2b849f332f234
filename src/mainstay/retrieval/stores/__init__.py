"""Where derived retrieval data lies: lexical index, vectors, and the cache of embedded texts."""
