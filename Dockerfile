# Two images from one file: `--target operator` and `--target runtime`.
# The base image must have Python 3.11 or newer with the venv module, and ca-certificates for what is outside of the
# cluster; any image based on Debian that has them will do.
ARG BASE_IMAGE=python:3.11-slim

FROM ${BASE_IMAGE} AS base
# USER is set because libraries look up the user's name, and user 65532 has no entry in /etc/passwd.
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PATH=/opt/flotilla/bin:$PATH HOME=/tmp USER=flotilla

# Packages and our own code are layers apart: a new release brings only the small one. The programs start isolated (-I), so
# neither PYTHON* variables nor the working directory bring them code; the file flotilla.pth says where ours is.
FROM base AS packages-operator
COPY requirements/operator.txt /src/requirements/operator.txt
RUN python3 -m venv /opt/flotilla \
 && /opt/flotilla/bin/pip install --no-cache-dir --no-compile --require-hashes -r /src/requirements/operator.txt \
 && /opt/flotilla/bin/python3 -c "import sysconfig; open(sysconfig.get_path('purelib') + '/flotilla.pth', 'w').write('import sys; sys.path.insert(0, \'/opt/flotilla/app\')\n')" \
 && python3 -m compileall -q /opt/flotilla

FROM base AS code-operator
COPY operator/flotilla_operator /opt/flotilla/app/flotilla_operator
COPY runtime/flotilla_runtime/__init__.py /opt/flotilla/app/flotilla_runtime/
COPY runtime/flotilla_runtime/contract /opt/flotilla/app/flotilla_runtime/contract
RUN python3 -m compileall -q /opt/flotilla/app

FROM base AS operator
COPY --from=packages-operator /opt/flotilla /opt/flotilla
COPY --from=code-operator /opt/flotilla/app /opt/flotilla/app
USER 65532:65532
ENTRYPOINT ["python3", "-I", "-B", "-u", "-m", "flotilla_operator.controllers"]

FROM base AS packages-runtime
COPY requirements/runtime.txt /src/requirements/runtime.txt
RUN python3 -m venv /opt/flotilla \
 && /opt/flotilla/bin/pip install --no-cache-dir --no-compile --require-hashes -r /src/requirements/runtime.txt \
 && /opt/flotilla/bin/python3 -c "import sysconfig; open(sysconfig.get_path('purelib') + '/flotilla.pth', 'w').write('import sys; sys.path.insert(0, \'/opt/flotilla/app\')\n')" \
 && python3 -m compileall -q /opt/flotilla

FROM base AS code-runtime
COPY runtime/flotilla_runtime /opt/flotilla/app/flotilla_runtime
RUN python3 -m compileall -q /opt/flotilla/app

FROM base AS runtime
COPY --from=packages-runtime /opt/flotilla /opt/flotilla
COPY --from=code-runtime /opt/flotilla/app /opt/flotilla/app
USER 65532:65532
ENTRYPOINT ["python3", "-I", "-B", "-u", "-m"]
