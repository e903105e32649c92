"""Our picks beside what other toolchains make of the same networks, each at its best."""
