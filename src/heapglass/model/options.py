"""Tunables and mallopt: setters, and the limits that each release puts on them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..errors import BadRequest
from .kernel import PMD, THP_MODES
from .memalign import Memalign
from .tcache import SlotTcache

M_MXFAST, M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_MMAP_MAX = 1, -1, -2, -3, -4
M_CHECK_ACTION, M_PERTURB, M_ARENA_TEST, M_ARENA_MAX = -5, -6, -7, -8
PARAMETERS = {
    "M_MXFAST": M_MXFAST,
    "M_TRIM_THRESHOLD": M_TRIM_THRESHOLD,
    "M_TOP_PAD": M_TOP_PAD,
    "M_MMAP_THRESHOLD": M_MMAP_THRESHOLD,
    "M_MMAP_MAX": M_MMAP_MAX,
    "M_CHECK_ACTION": M_CHECK_ACTION,
    "M_PERTURB": M_PERTURB,
    "M_ARENA_TEST": M_ARENA_TEST,
    "M_ARENA_MAX": M_ARENA_MAX,
}
# In the order in which ptmalloc_init reads them.
TUNABLES = (
    "top_pad",
    "perturb",
    "mmap_threshold",
    "trim_threshold",
    "mmap_max",
    "arena_max",
    "arena_test",
    "tcache_max",
    "tcache_count",
    "tcache_unsorted_limit",
    "mxfast",
    "hugetlb",
    "check",
)
PREFIX = "glibc.malloc."
MAP_HUGETLB = 0x40000


def check_tunables(given: Mapping[str, int]) -> dict[str, int]:
    """Return tunables by their short names.

    :raises BadRequest: if one is not malloc's, or not a number.
    """
    found: dict[str, int] = {}
    for name, value in given.items():
        short = name[len(PREFIX) :] if name.startswith(PREFIX) else name
        if short not in TUNABLES:
            raise BadRequest(f"no tunable {name!a}", "known: " + ", ".join(TUNABLES))
        if not isinstance(value, int) or value < 0:
            raise BadRequest(f"tunable {name} must be a number, not {value!a}")
        if short == "check" and value:
            raise BadRequest(f"tunable {name}={value} has hooks that the model lacks", "0 is known")
        found[short] = value
    return found


class Options(Memalign):
    """Setters of what a program or its environment can choose."""

    def apply_tunables(self, given: Mapping[str, int]) -> None:
        """Set what GLIBC_TUNABLES (or the old environment variables) asked for."""
        setters = self._setters()
        for name in TUNABLES:
            if name in given and name in setters:
                setters[name](given[name])
        lowers = self.hugetlb_mainly() and self.has("hugetlb_mmap_threshold")
        if lowers and "mmap_threshold" not in given:
            self._set_dynamic("mmap_threshold", self.huge_page())

    def _setters(self) -> dict[str, Callable[[int], int]]:
        setters: dict[str, Callable[[int], int]] = {
            "top_pad": lambda value: self._set_dynamic("top_pad", value),
            "perturb": self._set_perturb,
            "mmap_threshold": self._set_mmap_threshold,
            "trim_threshold": lambda value: self._set_dynamic("trim_threshold", value),
            "mmap_max": self._set_mmap_max,
            "arena_max": lambda value: self._set_positive("arena_max", value),
            "arena_test": lambda value: self._set_positive("arena_test", value),
            "check": self._set_check_action,
        }
        if self.has("tcache"):
            setters["tcache_max"] = self._set_tcache_max
            setters["tcache_count"] = self._set_tcache_count
            if "tcache_unsorted_limit" in self.mp:
                setters["tcache_unsorted_limit"] = self._set_unsorted_limit
        if self.has("mxfast_tunable"):
            setters["mxfast"] = self._set_mxfast
        if self.has("mmap_huge"):
            setters["hugetlb"] = self._set_hugetlb
        return setters

    # --- setters ------------------------------------------------------------------------------

    def _set_dynamic(self, name: str, value: int) -> int:
        """Set a threshold; it and its relatives stop being dynamic."""
        self.store(self.mp[name], value)
        self.store_int(self.mp["no_dyn_threshold"], 1)
        return 1

    def _set_mmap_threshold(self, value: int) -> int:
        most = self.layout.constants["HEAP_MAX_SIZE"] // 2
        if self.has("mmap_threshold_limit") and value > most:
            return 0
        return self._set_dynamic("mmap_threshold", value)

    def _set_mmap_max(self, value: int) -> int:
        self.store_int(self.mp["n_mmaps_max"], value)
        self.store_int(self.mp["no_dyn_threshold"], 1)
        return 1

    def _set_perturb(self, value: int) -> int:
        self.store_int(self.at["perturb_byte"], value)
        return 1

    def _set_check_action(self, value: int) -> int:
        self.store_int(self.at["check_action"], value)
        return 1

    def _set_positive(self, name: str, value: int) -> int:
        if value:
            self.store(self.mp[name], value)
        return 1

    def _set_mxfast(self, value: int) -> int:
        if value > 80 * self.SZ // 4:
            return 0
        self.set_max_fast(value)
        return 1

    def _set_unsorted_limit(self, value: int) -> int:
        self.store(self.mp["tcache_unsorted_limit"], value)
        return 1

    def _set_tcache_count(self, value: int) -> int:
        if value > 0xFFFF and not self.has("tcache_asserts"):
            return 0
        self.store(self.mp["tcache_count"], value)
        return 1

    def _set_tcache_max(self, value: int) -> int:
        if isinstance(self.tcache, SlotTcache):
            return self._set_slot_max(self.tcache, value)
        if value > self.layout.tcache_small_max - self.SZ:
            return 0
        size = self.request2size(value)
        self.store(self.mp["tcache_max_bytes"], value)
        self.store(self.mp["tcache_bins"], (size - self.MIN + self.MASK) // self.ALIGN + 1)
        return 1

    def _set_slot_max(self, tcache: SlotTcache, value: int) -> int:
        size = self.request2size(value)
        small = (size - self.MIN) // self.ALIGN
        if self.has("tcache_maxsmall_usable"):
            refused = value > size
            large = size > self.layout.tcache_small_max - self.SZ
        else:
            refused, large = value > self.MOST >> 1, small >= 64
        index = tcache.large_index(size) if large else small
        if refused or index >= tcache.bins:
            return 0
        if index < 64:
            self.store(self.mp["tcache_bins"], index + 1)
        extra = 0 if self.has("tcache_maxsmall_usable") else 1
        self.store(self.mp["tcache_max_bytes"], size + extra)
        return 1

    def _set_hugetlb(self, value: int) -> int:
        mp, kernel = self.mp, self.kernel
        mode, wanted = kernel.thp_mode, ["madvise"]
        if "thp_mode" in mp:
            wanted.append("always")
            if value < 2:
                self._set_thp_mode(mode if value else "never")
        if value == 1 and mode in wanted:
            self.store(mp["thp_pagesize"], PMD)
        size = kernel.huge_sizes[0] if value == 2 else value
        if value >= 2 and size in kernel.huge_sizes:
            self.store(mp["hp_pagesize"], size)
            self.store_int(mp["hp_flags"], MAP_HUGETLB | size.bit_length() - 1 << 26)
        return 0

    def _set_thp_mode(self, mode: str) -> None:
        number = 3 if mode not in THP_MODES else THP_MODES.index(mode)
        if self.has("thp_mode_unset"):
            number = 1 if mode not in THP_MODES else number + 2
        self.store_int(self.mp["thp_mode"], number)

    # --- mallopt ------------------------------------------------------------------------------

    def mallopt_past(self, parameter: int, value: int) -> int:
        """__libc_mallopt; *value* is an int of C."""
        if self.has("mallopt_consolidates"):
            self.malloc_consolidate(self.main)
        wide = value & self.MOST
        if parameter == M_MXFAST:
            return self._mallopt_mxfast(value)
        if parameter in (M_ARENA_TEST, M_ARENA_MAX):
            wrong = parameter == M_ARENA_TEST or self.has("mallopt_arena_bug")
            if value > 0:
                self.store(self.mp["arena_test" if wrong else "arena_max"], wide)
            return 1
        setters = {
            M_TRIM_THRESHOLD: lambda: self._set_dynamic("trim_threshold", wide),
            M_TOP_PAD: lambda: self._set_dynamic("top_pad", wide),
            M_MMAP_THRESHOLD: lambda: self._set_mmap_threshold(wide),
            M_MMAP_MAX: lambda: self._set_mmap_max(value),
            M_PERTURB: lambda: self._set_perturb(value),
            M_CHECK_ACTION: lambda: self._set_check_action(value),
        }
        return setters[parameter]() if parameter in setters else 1

    def _mallopt_mxfast(self, value: int) -> int:
        if not self.has_fastbins:
            return 1
        return self._set_mxfast(value & self.MOST)
