# CPU only: docker build -t gnbench . && docker run --rm -v "$PWD:/gnbench" gnbench quick
# Written by the book and not tried: there was no Docker where this was made.
FROM python:3.11-slim
RUN pip install --no-cache-dir torch torchvision --index-url https://download.pytorch.org/whl/cpu
COPY . /src
RUN pip install --no-cache-dir '/src[norms,dashboard]'
ENV GNBENCH_DATA_DIR=/gnbench/data
WORKDIR /gnbench
ENTRYPOINT ["gnbench"]
CMD ["--help"]
