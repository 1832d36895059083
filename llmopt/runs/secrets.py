"""No secret stands in an option: options are written into the run folder and printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from llmopt.errors import ConfigError
from llmopt.remote.scrub import in_address, is_key

# Where a secret goes instead.
_WAYS: Final = {
    "llm_base_url": "put it into an environment variable and name that: --llm-set key_env=NAME for "
    "a key, --llm-set 'headers=Authorization: $NAME' for a header",
    "llm_settings": "put it into an environment variable and name that: --llm-set key_env=NAME, or "
    "--llm-set 'headers=X-Name: $NAME'",
    "blackbox": "put a token into $LLMOPT_BLACKBOX_TOKEN, a service's key into the service's own "
    "variable; in Python, HttpBlackBox(URL) takes a password too",
    "blackbox_settings": "put it into an environment variable and name that: --blackbox-set "
    "key_env=NAME",
}


def refuse_secrets(flags: Mapping[str, str], values: Mapping[str, Any]) -> None:
    """Refuse options that hold secrets.

    Args:
        flags: the long option, by field.
        values: by field.

    Raises:
        ConfigError: it names the option and where a secret goes.
    """
    for name, flag in flags.items():
        value = values[name]
        for text in value.values() if isinstance(value, Mapping) else [value]:
            if name == "template" or not isinstance(text, str):
                continue
            held = in_address(text) or ("a key" if name in _WAYS and is_key(text) else "")
            if held:
                way = _WAYS.get(name, "leave it out")
                raise ConfigError(
                    f"{flag} holds {held}, and options are written into the run folder; {way}"
                )
