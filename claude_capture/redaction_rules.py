r"""What a secret looks like: one rule per kind.

A rule has keywords (lower case; one of them must occur before the pattern is tried, which keeps redaction fast) and
a pattern whose group `s`, or whole match where it has none, is the secret. Values may stand bare, quoted, in JSON, in
escaped JSON, in a shell line or in a URL; `_Q` is an optional quote with any number of backslashes before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

_Q = r"(?:\\{0,8}[\"'`])?"
_ASSIGN = rf"{_Q}\s{{0,4}}(?::=|=>|[=:])\s{{0,4}}{_Q}"
_END = r"(?![A-Za-z0-9_-])"
_START = r"(?<![A-Za-z0-9_-])"


@dataclass(frozen=True, eq=False)
class Rule:
    """How one kind of secret is found."""

    kind: str
    keywords: tuple[str, ...]
    pattern: re.Pattern[str]
    needs_check: bool = False
    """True where the pattern also matches ordinary code and `is_plausible_secret` must agree."""


def _rule(kind: str, keywords: str, pattern: str, *, check: bool = False, flags: int = 0) -> Rule:
    return Rule(kind, tuple(keywords.split()), re.compile(pattern, flags), check)


def _token(kind: str, keywords: str, body: str) -> Rule:
    """A rule for a token that is known by its own prefix."""
    return _rule(kind, keywords, rf"{_START}(?P<s>{body}){_END}")


RULES: tuple[Rule, ...] = (
    _rule(
        "PRIVATE_KEY",
        "-----begin",
        r"-----BEGIN (?P<k>[A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?)-----.*?(?:-----END (?P=k)-----|\Z)",
        flags=re.DOTALL,
    ),
    _token("AGE_SECRET_KEY", "age-secret-key-1", r"AGE-SECRET-KEY-1[0-9A-Z]{58}"),
    _token("AWS_ACCESS_KEY", "akia asia abia acca", r"(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}"),
    _rule(
        "AWS_SECRET_KEY",
        "secret",
        rf"(?:aws.{{0,20}}?secret|secret_?access_?key|SecretAccessKey).{{0,12}}?{_ASSIGN}(?P<s>[A-Za-z0-9/+]{{40}})"
        r"(?![A-Za-z0-9/+=])",
        flags=re.IGNORECASE,
    ),
    _rule(
        "AWS_SESSION_TOKEN",
        "session_token sessiontoken",
        rf"(?:aws_?session_?token|SessionToken){_ASSIGN}(?P<s>[A-Za-z0-9/+=]{{60,2000}})",
        flags=re.IGNORECASE,
    ),
    _token(
        "GITHUB_TOKEN",
        "ghp_ gho_ ghu_ ghs_ ghr_ github_pat_",
        r"gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255}",
    ),
    _token(
        "GITLAB_TOKEN",
        "glpat- gldt- glrt- glcbt- glptt- gloas- glsoat- glft-",
        r"gl(?:pat|dt|rt|cbt|ptt|oas|soat|ft)-[A-Za-z0-9_.-]{20,300}",
    ),
    _token("SLACK_TOKEN", "xox xapp-", r"xox[abposre]-[A-Za-z0-9-]{10,250}|xapp-\d-[A-Za-z0-9-]{10,250}"),
    _rule(
        "SLACK_WEBHOOK", "hooks.slack.com", r"hooks\.slack\.com/(?:services|workflows)/(?P<s>[A-Za-z0-9_/-]{20,200})"
    ),
    _token(
        "STRIPE_KEY", "_live_ _test_ whsec_", r"(?:sk|rk)_(?:live|test)_[A-Za-z0-9]{16,250}|whsec_[A-Za-z0-9]{24,80}"
    ),
    _token("SENDGRID_KEY", "sg.", r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{16,64}"),
    _token("NPM_TOKEN", "npm_", r"npm_[A-Za-z0-9]{36}"),
    _token("PYPI_TOKEN", "pypi-", r"pypi-[A-Za-z0-9_-]{50,1000}"),
    _token("ANTHROPIC_KEY", "sk-ant-", r"sk-ant-[A-Za-z0-9_-]{20,250}"),
    _token(
        "OPENAI_KEY",
        "sk-",
        r"sk-(?!ant-)(?:(?:proj|svcacct|admin|or-v1|lf)-[A-Za-z0-9_-]{20,250}|[A-Za-z0-9]{32,250})",
    ),
    _token("GOOGLE_API_KEY", "aiza", r"AIza[0-9A-Za-z_-]{35}"),
    _token("GOOGLE_OAUTH_TOKEN", "ya29. gocspx-", r"ya29\.[A-Za-z0-9_-]{20,2000}|GOCSPX-[A-Za-z0-9_-]{20,40}"),
    _token("JWT", "eyj", r"eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{0,2000}"),
    _token("HUGGINGFACE_TOKEN", "hf_ api_org_", r"hf_[A-Za-z0-9]{30,60}|api_org_[A-Za-z0-9]{30,60}"),
    _token("DIGITALOCEAN_TOKEN", "dop_v1_ doo_v1_ dor_v1_", r"do[opr]_v1_[a-f0-9]{64}"),
    _rule(
        "TWILIO_KEY",
        "twilio",
        rf"twilio.{{0,40}}?{_ASSIGN}(?P<s>(?:SK)?[0-9a-f]{{32}}){_END}",
        flags=re.IGNORECASE | re.DOTALL,
    ),
    _token("TWILIO_API_KEY", "sk", r"SK[0-9a-f]{32}"),
    _token("MAILGUN_KEY", "key-", r"key-[0-9a-f]{32}"),
    _token("MAILCHIMP_KEY", "-us", r"[0-9a-f]{32}-us\d{1,2}"),
    _token("TELEGRAM_TOKEN", ":aa", r"\d{8,10}:AA[A-Za-z0-9_-]{32,35}"),
    _rule(
        "DISCORD_WEBHOOK", "/api/webhooks/", r"discord(?:app)?\.com/api/webhooks/(?P<s>\d{15,20}/[A-Za-z0-9_-]{50,90})"
    ),
    _rule("DISCORD_TOKEN", "discord", r"(?P<s>[MNO][A-Za-z0-9_-]{23,27}\.[A-Za-z0-9_-]{6}\.[A-Za-z0-9_-]{27,45})"),
    _token("SHOPIFY_TOKEN", "shpat_ shpca_ shppa_ shpss_", r"shp(?:at|ca|pa|ss)_[a-fA-F0-9]{32}"),
    _token("SQUARE_TOKEN", "sq0atp- sq0csp-", r"sq0(?:atp|csp)-[A-Za-z0-9_-]{22,50}"),
    _token("LINEAR_KEY", "lin_api_", r"lin_api_[A-Za-z0-9]{32,50}"),
    _token("NOTION_TOKEN", "ntn_ secret_", r"ntn_[A-Za-z0-9]{40,60}|secret_[A-Za-z0-9]{43}"),
    _token("DATABRICKS_TOKEN", "dapi", r"dapi[a-f0-9]{32}(?:-\d)?"),
    _token("VAULT_TOKEN", "hvs. hvb. hvr.", r"hv[sbr]\.[A-Za-z0-9_-]{24,300}"),
    _token("DOCKER_TOKEN", "dckr_pat_ dckr_oat_", r"dckr_[po]at_[A-Za-z0-9_-]{27,60}"),
    _token("NEW_RELIC_KEY", "nrak- nrii- nral", r"NRAK-[A-Z0-9]{27}|NRII-[A-Za-z0-9-]{32}"),
    _token("GRAFANA_TOKEN", "glsa_ glc_", r"glsa_[A-Za-z0-9]{32}_[a-fA-F0-9]{8}|glc_[A-Za-z0-9+/=]{32,400}"),
    _rule("AZURE_STORAGE_KEY", "accountkey", r"AccountKey=(?P<s>[A-Za-z0-9+/]{86}==)", flags=re.IGNORECASE),
    _rule("AZURE_SAS", "sig=", r"[?&;]sig=(?P<s>[A-Za-z0-9%+/]{40,120}(?:%3D|=){0,2})"),
    _token("AZURE_CLIENT_SECRET", "8q~", r"[A-Za-z0-9_~.-]{3}8Q~[A-Za-z0-9_~.-]{31,34}"),
    _token("ATLASSIAN_TOKEN", "atatt3 atctt3", r"AT[AC]TT3[A-Za-z0-9_=-]{60,300}"),
    _token("SENTRY_TOKEN", "sntrys_ sntryu_", r"sntry[su]_[A-Za-z0-9_+/=-]{40,400}"),
    _token("POSTMAN_KEY", "pmak-", r"PMAK-[a-f0-9]{24}-[a-f0-9]{34}"),
    _token("RUBYGEMS_KEY", "rubygems_", r"rubygems_[a-f0-9]{48}"),
    _token("GROQ_KEY", "gsk_", r"gsk_[A-Za-z0-9]{40,80}"),
    _token("REPLICATE_TOKEN", "r8_", r"r8_[A-Za-z0-9]{37,40}"),
    _token("PERPLEXITY_KEY", "pplx-", r"pplx-[A-Za-z0-9]{40,64}"),
    _token("XAI_KEY", "xai-", r"xai-[A-Za-z0-9]{60,100}"),
    _token("SUPABASE_TOKEN", "sbp_ sb_secret_", r"sbp_[a-f0-9]{40}|sb_secret_[A-Za-z0-9_-]{20,60}"),
    _token("PLANETSCALE_TOKEN", "pscale_", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{30,80}"),
    _token("DOPPLER_TOKEN", "dp.pt. dp.st. dp.ct.", r"dp\.(?:pt|st|ct)\.[A-Za-z0-9._-]{30,80}"),
    _rule(
        "CONNECTION_PASSWORD",
        "://",
        r"[a-z][a-z0-9+.-]{1,20}://[^\s/:@\"'<>\\]{0,100}:(?P<s>[^\s/@\"'<>«»\\$*{}]{3,200})@[A-Za-z0-9.\[_-]",
        check=True,
        flags=re.IGNORECASE,
    ),
    _rule(
        "AUTHORIZATION",
        "authorization bearer x-api-key api-key",
        rf"(?:(?:proxy-)?authorization|x-api-key|api-key|private-token){_ASSIGN}(?:(?:bearer|basic|token|apikey)\s+)?"
        r"(?P<s>[A-Za-z0-9._~+/=-]{12,4000})|bearer\s+(?P<b>[A-Za-z0-9._~+/-]{20,4000}=*)",
        check=True,
        flags=re.IGNORECASE,
    ),
    _rule(
        "CURL_PASSWORD",
        "curl wget",
        r"(?:curl|wget)\b[^\n]{0,200}?\s(?:-u|--user)\s+[\"']?[^\s:\"']{1,80}:(?P<s>[^\s\"'«$<]{3,200})",
        check=True,
    ),
    _rule(
        "NETRC_PASSWORD",
        "machine",
        r"machine\s+\S{1,200}\s+login\s+\S{1,200}\s+password\s+(?P<s>[^\s«]{3,200})",
        check=True,
    ),
    _rule(
        "PASSWORD",
        "passw pwd passphrase",
        rf"(?:passw(?:or)?d|passphrase|\b(?:[A-Za-z]{{1,12}}_?)?pwd)[A-Za-z0-9_-]{{0,20}}{_ASSIGN}"
        r"(?:(?<=[\"'`])(?P<b>[^\s\"'`\\«»${<(%][^\s\"'`\\«»]{3,200})(?=\\{0,8}[\"'`])"
        r"|(?P<s>[^\s\"'`\\,;&|<>(){}\[\]«»$]{4,200}))",
        check=True,
        flags=re.IGNORECASE,
    ),
    _rule(
        "SECRET",
        "secret token api_key apikey api-key access_key accesskey access-key private_key privatekey auth_key "
        "encryption_key signing_key credential",
        r"(?:secret|token|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?key|encryption[_-]?key|signing[_-]?key"
        rf"|credentials?)(?:[_-]?(?:id|key|value|hash|base|prod|dev|test))?{_ASSIGN}"
        r"(?P<s>[A-Za-z0-9_~+/.=-]{16,2000})",
        check=True,
        flags=re.IGNORECASE,
    ),
)

_SECRET_NAME = re.compile(
    r"(?:passw(?:or)?d|passphrase|pwd|secret|api[_-]?key|access[_-]?key|private[_-]?key|auth[_-]?token|access[_-]?token"
    r"|refresh[_-]?token|client[_-]?secret|credential)",
    re.IGNORECASE,
)


@lru_cache(maxsize=4096)
def is_secret_name(name: str) -> bool:
    """Whether a JSON field or environment variable of this name holds a secret, if its value looks like one."""
    return _SECRET_NAME.search(name) is not None


_NOT_SECRETS = re.compile(
    r"(?:your|my|the|some|an?|new|old|test|fake|dummy|example|sample|placeholder|change|insert|enter|replace|optional"
    r"|required|hidden|redacted|removed|undefined|null|none|true|false|string|str|bool|int|number|object|any|bytes|self"
    r"|this|process|os|env|config|settings|args|options|request|req|params|password|passwd|secret|token|key|user"
    r"|xxx+|\*+|\.{3}|-+|_+|x+)(?![a-z0-9]*\d)[a-z_. *-]*",
    re.IGNORECASE,
)
_CODE = re.compile(r"^[A-Za-z_][\w]*(?:\.[A-Za-z_][\w]*)+$|^[A-Za-z_]+$|^[a-z]+(?:[_-][a-z]+)+$|^[A-Z]+(?:_[A-Z]+)+$")
_PATH = re.compile(r"^(?:[~.]{0,2}/|[A-Za-z]:\\|[\w.-]+/[\w.-]+/)")
_MIXED_ID = re.compile(r"^[A-Za-z_]+(?:[A-Z][a-z]+)+\d{0,2}$")


def is_plausible_secret(kind: str, value: str) -> bool:
    """False for code, placeholders, paths and plain words that stand where a secret could.

    A password may be any text with a digit or a symbol, or sixteen letters and more; a token needs letters and digits.
    """
    if _NOT_SECRETS.fullmatch(value) or _CODE.match(value) or _MIXED_ID.match(value) or _PATH.match(value):
        return kind == "PASSWORD" and len(value) >= 16 and value.isalpha() and not _MIXED_ID.match(value)
    has_digit = any(character.isdigit() for character in value)
    if kind in ("PASSWORD", "CONNECTION_PASSWORD", "CURL_PASSWORD", "NETRC_PASSWORD"):
        symbols = any(not character.isalnum() and character not in "_.-" for character in value)
        return (has_digit and not value.replace(".", "").isdigit()) or symbols or value.isdigit()
    if kind == "AUTHORIZATION":
        return has_digit or len(value) >= 24
    letters = sum(character.isalpha() for character in value)
    return has_digit and letters >= 4 and len(set(value)) >= 8
