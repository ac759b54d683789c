# Two images from one file:
#   docker build --target cpu -t domicile:cpu .
#   docker build --target gpu -t domicile:gpu .
# Where an index with CPU builds of torch is at hand, give it to the cpu image, which is then several GB smaller:
#   --build-arg PIP_EXTRA_INDEX_URL=…
# Run with --init, since Ray leaves children to be reaped, and with --shm-size of 2 GB or more.
# Names of registries, and digests instead of tags, are for whoever builds to choose:
ARG PYTHON_IMAGE=python:3.11-slim-bookworm
ARG CUDA_IMAGE=nvidia/cuda:13.0.2-runtime-ubuntu24.04


# What is built stays here: no pip cache, no build leftovers in the images.
FROM ${PYTHON_IMAGE} AS build
ENV PATH=/opt/domicile/bin:$PATH PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/domicile
WORKDIR /src


FROM build AS build-cpu
ARG PIP_EXTRA_INDEX_URL
# vLLM's CPU kernels load it; needed here since the model is prepared below.
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
COPY requirements-cpu.txt requirements-cuda-libs.txt ./
RUN --mount=type=cache,target=/root/.cache/pip \
    pip install --no-deps -r requirements-cpu.txt \
    && { python -c 'import torch' || pip install --no-deps -r requirements-cuda-libs.txt; } \
    && python -c 'import torch'
COPY . .
RUN pip install --no-deps --no-build-isolation .
RUN DOMICILE_HOME=/var/lib/domicile HF_HUB_OFFLINE=1 domicile models prepare


FROM build AS build-gpu
COPY requirements-gpu.txt ./
RUN --mount=type=cache,target=/root/.cache/pip pip install --no-deps -r requirements-gpu.txt
COPY . .
RUN pip install --no-deps --no-build-isolation .


FROM ${PYTHON_IMAGE} AS cpu
RUN apt-get update && apt-get install --yes --no-install-recommends libnuma1 && rm -rf /var/lib/apt/lists/*
# There is no C++ compiler here, which vLLM's compilation for CPUs calls: countries keep the profile fast-start.
RUN useradd --uid 10001 --user-group --home-dir /var/lib/domicile --no-create-home --shell /usr/sbin/nologin domicile
COPY --from=build-cpu /opt/domicile /opt/domicile
COPY --from=build-cpu --chown=10001:10001 /var/lib/domicile /var/lib/domicile
# Nothing reports home (R8): vLLM, what honours DO_NOT_TRACK, the model hub, Ray.
ENV PATH=/opt/domicile/bin:$PATH \
    DOMICILE_HOME=/var/lib/domicile \
    VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /var/lib/domicile
# After the model: what is written below a VOLUME line is lost. A named volume starts as a copy of this folder, a
# bind mount or a cluster's volume starts empty, and there `domicile models prepare` runs once more.
VOLUME /var/lib/domicile
HEALTHCHECK --interval=30s --timeout=20s --start-period=5m --retries=3 CMD ["domicile", "status", "--json"]
ENTRYPOINT ["domicile"]
CMD ["up", "--foreground"]


FROM ${CUDA_IMAGE} AS gpu
# libnuma1 for vLLM; the libraries that the copied Python's standard library loads; and a C compiler with its
# headers, since Triton compiles the launcher of each kernel when it is first used.
RUN apt-get update && apt-get install --yes --no-install-recommends \
        ca-certificates gcc libbz2-1.0 libc6-dev libffi8 liblzma5 libnuma1 libsqlite3-0 libssl3t64 tzdata zlib1g \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build-gpu /usr/local/bin/python3.11 /usr/local/bin/python3.11
COPY --from=build-gpu /usr/local/lib/ /usr/local/lib/
COPY --from=build-gpu /usr/local/include/python3.11 /usr/local/include/python3.11
RUN ln -s python3.11 /usr/local/bin/python3 && ln -s python3.11 /usr/local/bin/python && ldconfig
RUN useradd --uid 10001 --user-group --home-dir /var/lib/domicile --create-home --shell /usr/sbin/nologin domicile
COPY --from=build-gpu /opt/domicile /opt/domicile
ENV PATH=/opt/domicile/bin:$PATH \
    DOMICILE_HOME=/var/lib/domicile \
    VLLM_NO_USAGE_STATS=1 DO_NOT_TRACK=1 HF_HUB_OFFLINE=1 RAY_USAGE_STATS_ENABLED=0
USER 10001:10001
WORKDIR /var/lib/domicile
VOLUME /var/lib/domicile
HEALTHCHECK --interval=30s --timeout=20s --start-period=5m --retries=3 CMD ["domicile", "status", "--json"]
ENTRYPOINT ["domicile"]
CMD ["up", "--foreground"]
