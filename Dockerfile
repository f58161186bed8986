# Locker in one small image: the Concourse resource type, the server and the command line are one static binary.
#
#   docker build --tag locker .
#   docker build --tag locker --platform linux/arm64 .       # should work, but has not been built or tested yet
#
# The base images are arguments, so that a machine without a registry can use its own (ci/image does). BUILD_IMAGE needs
# cargo, a C compiler and /etc/ssl/certs/ca-certificates.crt. BASE_IMAGE needs a shell; nothing else of it is used.
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
COPY ci/release-flags ci/release-flags
# This links everything into one file, with glibc and with musl. Because the build names a target, it does not affect
# build scripts and macros, which are loaded at run time.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && RUSTFLAGS="$(sh ci/release-flags --static)" cargo build --release --locked --bin locker --target "$target" \
    && mkdir -p /image/bin && cp "target/$target/release/locker" /image/bin/

# The resource's black-box tests run against the same binary that the image ships.
FROM build AS tests
RUN target=$(rustc -vV | sed -n 's/^host: //p') \
    && LOCKER_BINARY=/image/bin/locker cargo test --locked --target "$target" \
        --test it resource

FROM ${BASE_IMAGE}
# Copied from `tests`, so that no image has a binary that failed them.
COPY --from=tests /image/bin/locker /usr/local/bin/locker
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
# Any user may run the server: the directory of the store is open, the files in it are private.
RUN mkdir -p /opt/resource /data && chmod 1777 /data \
    && ln -s ../../usr/local/bin/locker /opt/resource/check \
    && ln -s ../../usr/local/bin/locker /opt/resource/in \
    && ln -s ../../usr/local/bin/locker /opt/resource/out \
    && ln -s locker /usr/local/bin/lockcli \
    && ln -s locker /usr/local/bin/lockagt
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
    LOCKER_LISTEN=0.0.0.0 \
    LOCKER_STORE=sqlite:/data/locker.db
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
