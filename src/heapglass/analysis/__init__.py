"""Questions asked of a heap: totals, histogram, malloc_info, searches."""
