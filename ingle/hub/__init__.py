"""A hub's files -> the download cache. Everything in ingle that opens a connection is in here."""
