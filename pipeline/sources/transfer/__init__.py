"""Downloads into the cache: resumable, several at once."""
