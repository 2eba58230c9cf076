# syntax=docker/dockerfile:1
# How to build and use it: docs/docker.md

FROM python:3.11-slim AS wheel
WORKDIR /source
COPY pyproject.toml README.md LICENSE THIRD_PARTY_LICENSES.md ./
COPY src src
COPY benchmark benchmark
# hadolint ignore=DL3013
RUN python -m pip wheel --no-cache-dir --no-deps --wheel-dir /wheel .

FROM python:3.11-slim
# torch and torchvision from one index, and before what needs them: torchvision's compiled operators are linked with one
# build of torch. Their builds without CUDA need 1 GB in place of 5; another index gives builds for a GPU.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir --index-url "$TORCH_INDEX" torch torchvision
COPY --from=wheel /wheel /wheel
# hadolint ignore=DL3013
RUN python -m pip install --no-cache-dir /wheel/*.whl

# Whoever runs it, `--user 1234:1234` too, can write here; each library is told, as such a user has no home. USER: torch
# asks for a name, which such a user lacks as well.
RUN useradd --uid 1000 --create-home bench && mkdir -m 1777 /cache /data
ENV RETRIEVAL_BENCH_CACHE=/cache/retrieval_bench \
    RETRIEVAL_BENCH_STATE=/cache/retrieval_bench-state \
    NUMBA_CACHE_DIR=/cache/numba \
    TORCH_HOME=/cache/torch \
    TORCHINDUCTOR_CACHE_DIR=/cache/inductor \
    HF_HOME=/cache/huggingface \
    MPLCONFIGDIR=/cache/matplotlib \
    XDG_CACHE_HOME=/cache \
    USER=bench
USER 1000
WORKDIR /data
ENTRYPOINT ["retrieval-bench"]
CMD ["--help"]
