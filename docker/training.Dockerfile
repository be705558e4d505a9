# Training and the model server: the whole of Tutelage with torch. One image for the machines that compute.
# On machines with NVIDIA GPUs pip takes the CUDA build of torch; for a small CPU image:
#   docker build -f docker/training.Dockerfile --build-arg PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu .
FROM python:3.11.15-slim-bookworm

ARG PIP_EXTRA_INDEX_URL=
RUN apt-get update && apt-get install -y --no-install-recommends g++ && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 tutelage && install -d -o tutelage /data
WORKDIR /app

COPY requirements.lock requirements-cpu.lock requirements-cuda.lock ./
RUN (pip install --no-cache-dir --no-deps --require-hashes -r requirements-cpu.lock || true) \
  && pip install --no-cache-dir --no-deps --require-hashes -r requirements.lock \
  && if python -c 'import importlib.metadata as m; exit(not any(r.startswith("nvidia-") for r in m.requires("torch")))'; \
     then pip install --no-cache-dir --no-deps --require-hashes -r requirements-cuda.lock; fi

COPY manage.py ./
COPY webapp webapp
COPY annotations annotations
COPY templates templates
COPY static static
COPY training training
COPY docker/serve.json docker/serve_config.py docker/

ENV PYTHONUNBUFFERED=1 TOKENIZERS_PARALLELISM=false TUTELAGE_HOME=/data DJANGO_SETTINGS_MODULE=webapp.settings
USER tutelage
VOLUME /data
EXPOSE 8300
# The token, which every request must then carry, comes from the environment: it is not in the image.
CMD ["sh", "-c", "umask 077 && mkdir -p /tmp/serve && python docker/serve_config.py > /tmp/serve/config.json && exec python -m training serve /tmp/serve"]
