# Two images from one file: `--target operator` and `--target runtime`.
# The base image brings Python 3.11 or newer with the venv module; any Debian-like one will do.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS base
# USER: libraries ask for the name of a user that has no entry in /etc/passwd.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/flotilla/bin:$PATH HOME=/tmp USER=flotilla

FROM base AS build-operator
COPY requirements/operator.txt /src/requirements/operator.txt
RUN python3 -m venv /opt/flotilla \
 && /opt/flotilla/bin/pip install --no-cache-dir --no-compile --require-hashes -r /src/requirements/operator.txt
COPY operator/flotilla_operator /opt/flotilla/app/flotilla_operator
COPY runtime/flotilla_runtime/__init__.py /opt/flotilla/app/flotilla_runtime/
COPY runtime/flotilla_runtime/contract /opt/flotilla/app/flotilla_runtime/contract
RUN python3 -m compileall -q /opt/flotilla

FROM base AS operator
COPY --from=build-operator /opt/flotilla /opt/flotilla
ENV PYTHONPATH=/opt/flotilla/app
USER 65532:65532
ENTRYPOINT ["python3", "-m", "flotilla_operator.controllers"]

FROM base AS build-runtime
COPY requirements/runtime.txt /src/requirements/runtime.txt
RUN python3 -m venv /opt/flotilla \
 && /opt/flotilla/bin/pip install --no-cache-dir --no-compile --require-hashes -r /src/requirements/runtime.txt
COPY runtime/flotilla_runtime /opt/flotilla/app/flotilla_runtime
RUN python3 -m compileall -q /opt/flotilla

FROM base AS runtime
COPY --from=build-runtime /opt/flotilla /opt/flotilla
ENV PYTHONPATH=/opt/flotilla/app
USER 65532:65532
ENTRYPOINT ["python3", "-m"]
