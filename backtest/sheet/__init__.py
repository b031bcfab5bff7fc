"""The chapters of a tear sheet, and the page they stand on."""
