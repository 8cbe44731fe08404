"""Generated protobuf messages and the ``.proto`` they come from; nothing written by hand but that file."""
