"""Who tunes the evolution: networks that read the search and set its controls."""
