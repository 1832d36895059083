"""A module that cannot be imported, as happens to plug-ins written for another version."""

raise ImportError("llmopt_plugin_example.unfinished is for a version to come")
