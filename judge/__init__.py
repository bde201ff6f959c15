"""Who answers the prompts. Imports neither ray nor torch."""
