"""Files on their way into the cache: in parts that resume, several at once."""
