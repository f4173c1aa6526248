"""Secrets out of what is kept of a run: its command, environment and uncommitted changes."""

import re

HIDDEN = "[hidden]"

_SECRET_NAME = (
    r"[\w.-]*(?:password|passwd|secret|token(?![a-z])|api[_-]?key|access[_-]?key|credential|authorization)[\w.-]*"
)
_PATTERNS = (
    # user:password@ in an address
    (re.compile(r"(?<=://)[^/\s:@'\"]*:[^/\s@'\"]+(?=@)"), HIDDEN),
    # keys that say what they are
    (re.compile(r"\b(?:hf_|ghp_|gho_|github_pat_|glpat-|xox[abpr]-|sk-)[\w-]{16,}"), HIDDEN),
    (re.compile(r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"), HIDDEN),
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)", re.DOTALL), HIDDEN),
    (re.compile(r"(?i)(\bbearer\s+|\bbasic\s+)[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    # name = "value", name: value, --name value, of eight characters or more that look like no word of code
    (re.compile(rf"(?i)(\b{_SECRET_NAME}['\"]?\]?\s*[=:,]\s*)(['\"])[^'\"\n]{{4,}}\2"), rf"\1\2{HIDDEN}\2"),
    (re.compile(rf"(?i)((?:\b|--){_SECRET_NAME}(?:=|:\s*|\s+))(?=[^\s'\"]*\d)[^\s'\"()\[\]]{{8,}}"), rf"\1{HIDDEN}"),
    (re.compile(r"(?i)([?&](?:sig|signature|token|key|x-amz-[\w-]+)=)[^&\s'\"]+"), rf"\1{HIDDEN}"),
)


def hide_secrets(text: str) -> str:
    """The text with whatever looks like a password, a key or a token replaced."""
    for pattern, replacement in _PATTERNS:
        text = pattern.sub(replacement, text)
    return text


def is_secret_name(name: str) -> bool:
    return re.fullmatch(f"(?i){_SECRET_NAME}", name) is not None
