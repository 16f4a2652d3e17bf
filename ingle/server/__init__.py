"""HTTP on one side, one engine on the other: routes, dialects, the page, and who may come in."""
