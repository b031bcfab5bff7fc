"""Who trades which weather: genome families, specialists, fitness."""
