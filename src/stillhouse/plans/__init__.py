"""Plans: what turns one recipe into several runs."""
