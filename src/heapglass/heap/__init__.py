"""The reader: arenas, bins, tcaches, segments and their chunks, as they stand in memory."""
