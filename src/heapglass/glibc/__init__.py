"""What glibc is, release by release: structs, constants, features, and the arithmetic of sizes."""
