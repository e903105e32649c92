"""Export: converts torch networks to artifacts and verifies that they agree with torch."""
