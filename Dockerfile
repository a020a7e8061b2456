# syntax=docker/dockerfile:1
# The worker's image: one static-enough binary on a base without a shell, as a user without rights.
#
#   docker build -t waypost .
#   docker run --read-only --tmpfs /var/lib/waypost:uid=65532 -e WAYPOST_BROKER__URL -e WAYPOST_HTTP__TOKENS waypost
#
# For production pin both images by digest.
ARG RUST=rust:1.95.0-slim-bookworm
ARG RUNTIME=gcr.io/distroless/cc-debian12:nonroot

FROM ${RUST} AS build
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
WORKDIR /build
# The dependencies alone, in a layer of their own: it is built anew only when they change. Cargo wants a source for each target
# of the manifest, so each gets an empty one.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src benches \
    && echo 'fn main() {}' > src/main.rs \
    && touch src/lib.rs \
    && sed -n '/^\[\[bench\]\]/,/^harness/s/^name = "\(.*\)"/\1/p' Cargo.toml \
        | while read -r bench; do echo 'fn main() {}' > "benches/$bench.rs"; done \
    && cargo build --release --locked --bin waypost \
    && rm -rf src benches
COPY assets assets
COPY templates templates
COPY benches benches
COPY src src
# Younger than what was built of the empty sources.
RUN find src -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --bin waypost \
    && mkdir -p /rootfs/var/lib/waypost

FROM ${RUNTIME}
COPY --from=build /build/target/release/waypost /usr/local/bin/waypost
# A volume mounted here takes over the owner.
COPY --from=build --chown=65532:65532 /rootfs/var/lib/waypost /var/lib/waypost
ENV WAYPOST_STORE__PATH=/var/lib/waypost \
    WAYPOST_HTTP__LISTEN=0.0.0.0:8080 \
    WAYPOST_LOG__FORMAT=json
WORKDIR /var/lib/waypost
USER 65532:65532
EXPOSE 8080
# The program asks itself: there is no shell, and no curl.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 CMD ["/usr/local/bin/waypost", "ready"]
ENTRYPOINT ["/usr/local/bin/waypost"]
CMD ["serve"]
