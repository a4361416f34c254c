package oidc

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"

	jose "github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/json" // knows no case folding and refuses duplicate names
)

// metadata is what of the provider's metadata is used (OpenID Connect Discovery
// 1.0, section 3; RFC 8414; RFC 9207, section 3).
type metadata struct {
	Issuer                string   `json:"issuer"`
	AuthorizationEndpoint string   `json:"authorization_endpoint"`
	TokenEndpoint         string   `json:"token_endpoint"`
	JWKSURI               string   `json:"jwks_uri"`
	UserInfoEndpoint      string   `json:"userinfo_endpoint"`
	EndSessionEndpoint    string   `json:"end_session_endpoint"`
	RevocationEndpoint    string   `json:"revocation_endpoint"`
	AuthMethods           []string `json:"token_endpoint_auth_methods_supported"`
	AuthAlgorithms        []string `json:"token_endpoint_auth_signing_alg_values_supported"`
	IDTokenAlgorithms     []string `json:"id_token_signing_alg_values_supported"`
	IssParameter          bool     `json:"authorization_response_iss_parameter_supported"`
}

const wellKnown = "/.well-known/openid-configuration"

// discoveryURL is where the metadata is (Discovery 1.0, section 4.1).
func (c *Config) discoveryURL() string {
	base := c.DiscoveryURL
	if base == "" {
		base = c.Issuer
	}
	if strings.Contains(base, "/.well-known/") {
		return base
	}
	return strings.TrimSuffix(base, "/") + wellKnown
}

// fetchMetadata fetches the metadata and refuses any that is not the issuer's.
func (c *Client) fetchMetadata(ctx context.Context) (*metadata, error) {
	body, err := c.fetch(ctx, "discovery", c.cfg.discoveryURL())
	if err != nil {
		return nil, err
	}
	var md metadata
	if err := json.Unmarshal(body, &md); err != nil {
		return nil, fmt.Errorf("oidc: discovery: %s does not answer with metadata", c.cfg.discoveryURL())
	}
	if err := md.check(c.cfg.Issuer); err != nil {
		return nil, err
	}
	return &md, nil
}

// check refuses metadata by which tokens or users would be sent astray.
func (m *metadata) check(issuer string) error {
	// Discovery 1.0, section 4.3: exactly the same, a trailing slash included.
	if m.Issuer != issuer {
		return fmt.Errorf("oidc: discovery: the metadata is of issuer %q, configured is %q; they must be equal to the letter", m.Issuer, issuer)
	}
	plain := loopbackHTTP(issuer)
	for _, e := range []struct {
		name, url string
		required  bool
	}{
		{"authorization_endpoint", m.AuthorizationEndpoint, true},
		{"token_endpoint", m.TokenEndpoint, true},
		{"jwks_uri", m.JWKSURI, true},
		{"userinfo_endpoint", m.UserInfoEndpoint, false},
		{"end_session_endpoint", m.EndSessionEndpoint, false},
		{"revocation_endpoint", m.RevocationEndpoint, false},
	} {
		if e.url == "" && !e.required {
			continue
		}
		if !secureEndpoint(e.url, plain) {
			return fmt.Errorf("oidc: discovery: %s %q is not an https URL", e.name, e.url)
		}
	}
	return nil
}

// secureEndpoint is secureURL for endpoints, which may have a query
// (RFC 6749, section 3.1).
func secureEndpoint(endpoint string, plain bool) bool {
	u, err := url.Parse(endpoint)
	if err != nil || u.Host == "" || u.User != nil || u.Opaque != "" || strings.Contains(endpoint, "#") {
		return false
	}
	return u.Scheme == "https" || u.Scheme == "http" && plain
}

// signatureAlgorithms are those by which an ID token may be signed at all: by a
// key that only the provider has. Neither none nor HMAC is one (CB-10).
var signatureAlgorithms = []jose.SignatureAlgorithm{
	jose.RS256, jose.RS384, jose.RS512,
	jose.PS256, jose.PS384, jose.PS512,
	jose.ES256, jose.ES384, jose.ES512,
	jose.EdDSA,
}

// idTokenAlgorithms are those this provider may use: what it announces of the
// above, or what Core 1.0, section 3.1.3.7 defaults to.
func (m *metadata) idTokenAlgorithms() []string {
	var algs []string
	for _, alg := range m.IDTokenAlgorithms {
		if slices.Contains(signatureAlgorithms, jose.SignatureAlgorithm(alg)) {
			algs = append(algs, alg)
		}
	}
	if len(algs) == 0 {
		return []string{string(jose.RS256)}
	}
	return algs
}
