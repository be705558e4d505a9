# Pages, API, workers and scheduler: everything of Tutelage that learns nothing, and so an image without torch.
FROM python:3.11.15-slim-bookworm

RUN useradd --create-home --uid 1000 tutelage && install -d -o tutelage /data /backups
WORKDIR /app

# What pyproject.toml names for the site, at the versions of the lock and with its hashes.
COPY requirements-web.lock ./
RUN pip install --no-cache-dir --no-deps --require-hashes -r requirements-web.lock

COPY manage.py ./
COPY webapp webapp
COPY annotations annotations
COPY templates templates
COPY static static
COPY training/__init__.py training/
COPY training/contract training/contract

ENV PYTHONUNBUFFERED=1 OMP_NUM_THREADS=1 TUTELAGE_HOME=/data DJANGO_SETTINGS_MODULE=webapp.settings LISTEN=0.0.0.0
USER tutelage
VOLUME /data
EXPOSE 8000
# A busy machine is no reason to kill a process that answers slowly: hence the patience.
CMD ["uvicorn", "webapp.asgi:application", "--host", "0.0.0.0", "--port", "8000", "--lifespan", "off", "--workers", "2", "--timeout-worker-healthcheck", "60", "--no-proxy-headers", "--no-access-log"]
