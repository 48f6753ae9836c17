"""One implementation a file, each with a class ``Trainer`` as ``harness.worker`` describes it."""
