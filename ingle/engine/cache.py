"""The paged latent cache: what MLA keeps per token, and who holds which page.

Legend: L layers, P pages, G tokens per page (64), C = kv_lora_rank + rope width. Of routes: S slots
= P G, M mixture layers, K experts chosen.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from ingle.errors import ConfigError
from ingle.models.batch import PAGE_TOKENS


class LatentCache:
    """Pages of latents with a free list and a reference count per page.

    latents_LPGC holds the model's layers, mtp_PGC the one layer of the MTP module (None without
    drafting). A token costs `L * (kv_lora_rank + rope) * itemsize` bytes (arXiv 2405.04434,
    section 2.1.2), MTP's own layer apart; full keys and values would cost
    `L * heads * (nope + rope + v) * itemsize`. routes_SMK holds the experts that each cached token
    chose, where a shape [M, K] is given for them: whoever shares a page shares them too.
    """

    def __init__(
        self, shape_LPGC: tuple[int, ...], dtype: torch.dtype, mtp: bool,
        routes: tuple[int, int] | None = None,
    ) -> None:  # fmt: skip
        layers, pages, page_tokens, width = shape_LPGC
        assert page_tokens == PAGE_TOKENS, "page names and page tables assume 64-token pages"
        if pages < 1:
            raise ConfigError("The cache has no page: raise cache_bytes (or pages).")
        # Zeroed memory is handed out lazily by the system and can never hold a NaN.
        self.latents_LPGC = torch.zeros(shape_LPGC, dtype=dtype)
        self.mtp_PGC = torch.zeros(shape_LPGC[1:], dtype=dtype) if mtp else None
        self.routes_SMK: NDArray[np.uint8] | None = None
        if routes is not None:
            self.routes_SMK = np.zeros((pages * page_tokens, *routes), np.uint8)
        self.pages = pages
        self.bytes_per_token = layers * width * dtype.itemsize
        self.mtp_bytes_per_token = width * dtype.itemsize if mtp else 0
        self._references = [0] * pages
        self._free = list(range(pages - 1, -1, -1))  # popped from the end: page 0 first

    @property
    def free(self) -> int:
        """Pages that hold nothing."""
        return len(self._free)

    @property
    def referenced(self) -> int:
        """Pages that at least one running sequence holds."""
        return sum(count > 0 for count in self._references)

    def take(self) -> int | None:
        """Hand out an empty page with one reference, or None when there is none."""
        if not self._free:
            return None
        page = self._free.pop()
        self._references[page] = 1
        return page

    def share(self, page: int) -> bool:
        """Add a reference; True if the page had none before."""
        self._references[page] += 1
        return self._references[page] == 1

    def drop(self, page: int) -> bool:
        """Give a reference back; True if it was the last one."""
        assert self._references[page] > 0, "a page was released twice"
        self._references[page] -= 1
        return self._references[page] == 0

    def copy(self, source: int, target: int, rows: int) -> None:
        """Copy the first latents of one page into another, and their routes."""
        self.latents_LPGC[:, target, :rows] = self.latents_LPGC[:, source, :rows]
        if (routes := self.routes_SMK) is not None:
            old, new = source * PAGE_TOKENS, target * PAGE_TOKENS
            routes[new : new + rows] = routes[old : old + rows]

    def recycle(self, page: int) -> None:
        """Put a page that nobody references back on the free list."""
        assert self._references[page] == 0, "a referenced page was freed"
        self._free.append(page)
