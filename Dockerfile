# One static binary, the certificate authorities and an empty /data, run by nobody in particular.
FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=""
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /image/sessiongate ./cmd/sessiongate
RUN mkdir -p /image/data /image/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /src/LICENSE /image/sessiongate /
# The store lives in /data, the demo in /tmp; a new volume takes over the owner of the directory it covers.
COPY --from=build --chown=65532:65532 /image/data /data
COPY --from=build --chown=65532:65532 /image/tmp /tmp
# A number, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
# Where the store belongs: session.store.bbolt.path is relative to the configuration, so write /data/sessions.db there.
WORKDIR /data
VOLUME /data
EXPOSE 8080
# Asks the admin listener, which the container's loopback has to itself.
HEALTHCHECK --interval=10s --timeout=5s --start-period=10s \
  CMD ["/sessiongate", "healthcheck", "-config", "/etc/sessiongate/config.yaml"]
ENTRYPOINT ["/sessiongate"]
CMD ["serve", "-config", "/etc/sessiongate/config.yaml"]
