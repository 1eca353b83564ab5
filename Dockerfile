# One image for operator, gateway and the command line tool.  The chart says which of them a pod runs.

FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# --locked: what is tested is what is shipped
RUN cargo build --release --locked --bin hookstream --bin hookstream-operator --bin hookstream-gateway

# The same Debian as the build's: the same glibc.  No package is added and nothing is run here.
FROM docker.io/library/debian:bookworm-slim
# the authorities that destinations and databases are checked against
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /src/target/release/hookstream /src/target/release/hookstream-operator /src/target/release/hookstream-gateway /usr/local/bin/
# a number, so that runAsNonRoot can be judged without a look at /etc/passwd
USER 65532:65532
EXPOSE 8080 9090
ENTRYPOINT []
CMD ["/usr/local/bin/hookstream-gateway"]
