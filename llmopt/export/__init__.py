"""What a run found, in other tools' formats."""
