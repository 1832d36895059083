"""Many runs at once: cells that are run folders, and engines that start workers for them."""
