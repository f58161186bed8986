# Locker in one small image: the Concourse resource type, the server and the command line are one static binary.
#
#   docker build --tag locker .
#
# For another architecture, without an emulator: the program that `ci/release --arm64` has compiled takes the place of
# the stages that compile and test.
#
#   ci/image-tree target/aarch64-unknown-linux-gnu/release/locker target/image-arm64/image
#   docker buildx build --tag locker --platform linux/arm64 --build-context tests=target/image-arm64 .
#
# The base images are arguments, so that a machine without a registry can use its own (ci/image does). BUILD_IMAGE needs
# cargo, a C compiler and /etc/ssl/certs/ca-certificates.crt. Nothing in BASE_IMAGE is used; its shell is for people.
ARG BUILD_IMAGE=rust:1.95-slim-bookworm
ARG BASE_IMAGE=busybox:1.37

FROM ${BUILD_IMAGE} AS build
WORKDIR /src
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY bin bin
COPY src src
COPY tests tests
COPY benches benches
COPY ci/release-flags ci/image-tree ci/
# This links everything into one file, with glibc and with musl. Because the build names a target, it does not affect
# build scripts and macros, which are loaded at run time.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && RUSTFLAGS="$(sh ci/release-flags --static)" cargo build --release --locked --bin locker --target "$target" \
    && sh ci/image-tree "target/$target/release/locker" /image

# The resource's black-box tests run against the same binary that the image ships.
FROM build AS tests
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && LOCKER_BINARY=/image/usr/local/bin/locker cargo test --locked --target "$target" \
        --test it resource

FROM ${BASE_IMAGE}
# Copied from `tests`, so that no image has a binary that failed them.
COPY --from=tests /image/ /
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LOCKER_LISTEN=0.0.0.0 \
    LOCKER_STORE=sqlite:/data/locker.db \
    LOCKER_CACHE=/data
VOLUME /data
EXPOSE 8910
# If the server is not ready, `docker inspect` shows the reason.
HEALTHCHECK --interval=15s --timeout=6s --start-period=30s --retries=3 CMD ["locker", "server", "--ask-ready"]
ENTRYPOINT ["locker"]
CMD ["server"]
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="locker" \
      org.opencontainers.image.description="Locks for CI that cannot get stuck, cannot be granted twice, and tell you who holds them and who waits" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
