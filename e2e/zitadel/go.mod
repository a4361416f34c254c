module sessiongate/e2e/zitadel

go 1.26.0

require github.com/zitadel/oidc/v3 v3.51.17 // indirect
