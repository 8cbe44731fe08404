"""The memory: durable facts, a digest chain, queries. It has no opinions."""
